"""Requests and decisions on a real session manager; the processes that ask are real, the clocks stand still."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.approval import Policy, RequestDesk
from agentd.approval import book as book_module
from agentd.approval import desk as desk_module
from agentd.approval.asker import Program, program_of
from agentd.approval.book import (
    CLOSING_SECONDS,
    COLLECTED_SECONDS,
    MAX_CALLS,
    MAX_ENDED,
    SHIELDED_SECONDS,
    TICK_SECONDS,
)
from agentd.approval.remembered import MAX_REMEMBERED
from agentd.process_identity import identify
from agentd.sessions.journal import MAX_ENTRIES, TRIM_EVERY
from agentd.store.writer import MAX_BATCH_OPERATIONS
from agentd_client import errors
from agentd_client.protocol.limits import MAX_REQUEST_SECONDS, MAX_SHOWN_CHARACTERS
from agentd_client.protocol.results import ASK_SOCKET, EVENT_KINDS, STOPPING, PeerIdentity
from tests.approval.conftest import PERSON

WHAT = {"scopes": ["read", "write"], "expiry": 600, "label": "fetch", "reason": "to look", "max_uses": 5}
ME = identify(os.getpid())


class Asking:
    """A call of requestToken that waits in a task."""

    def __init__(self, desk, asker, **asked):
        self.desk, self.asker, self.asked = desk, asker, asked
        self.result = self.error = None
        self.done = trio.Event()

    async def run(self):
        try:
            self.result = await self.desk.request(self.asker, **(WHAT | self.asked))
        except errors.AgentdError as error:
            self.error = error
        self.done.set()


@pytest.fixture
async def ask(desk, nursery):
    """Begins a call that waits; returns it once it waits or is over."""

    async def begin(asker, **asked):
        asking = Asking(desk, asker, **asked)
        nursery.start_soon(asking.run)
        await wait_all_tasks_blocked()
        return asking

    return begin


@pytest.fixture
def person():
    """A process unrelated to those that ask: they are children of this one, and it is not their ancestor."""
    return identify(1)


@pytest.fixture
def events(manager):
    found = []
    manager.on_event(found.append)
    return found


def waiting(desk):
    """How many requests wait for a person. A session without one is still on its way to the disk when a call waits."""
    return sum(request.state == "waiting" for request in desk.listed().requests)


async def approve(desk, request_id, process, **granting):
    return await desk.approve(request_id, PERSON, process, **granting)


def ids(desk):
    return [request.id for request in desk.listed().requests]


@pytest.fixture(autouse=True)
def pid_1_is_no_relative(monkeypatch):
    # Everything descends from process 1, which stands for a person's terminal here.
    from agentd.approval import asker

    real = asker._descends
    monkeypatch.setattr(asker, "_descends", lambda pid, ancestor: ancestor != 1 and real(pid, ancestor))


async def test_a_request_is_shown_with_who_asks_what_for_and_why(desk, ask, asker, clock):
    await ask(asker, audience=["api"], bound=True)
    (shown,) = desk.listed().requests
    assert shown.asker == asker.identity
    assert (shown.scopes, shown.audience, shown.expiry, shown.max_uses) == (
        ["read", "write"],
        ["api"],
        600,
        5,
    )
    assert (shown.label, shown.reason, shown.bound, shown.calls) == ("fetch", "to look", True, 1)
    assert (shown.state, shown.socket, shown.asked_at) == ("waiting", "owner", clock.wall)
    assert shown.until == clock.wall + MAX_REQUEST_SECONDS


async def test_an_approval_opens_the_session_for_whoever_asked(desk, ask, asker, person, manager):
    asking = await ask(asker)
    decision = await approve(desk, ids(desk)[0], person)
    await asking.done.wait()
    found = manager.verify_nowait
    session = manager.inspect(asking.result.token).session
    assert (session.id, session.label, session.scopes) == (decision.session_id, "fetch", ["read", "write"])
    assert session.opened_by == asker.identity
    assert found is not None
    assert ids(desk) == []


async def test_a_decision_narrows(desk, ask, asker, person, manager, clock):
    asking = await ask(asker)
    await approve(desk, ids(desk)[0], person, scopes=["read"], expiry=60, max_uses=1)
    await asking.done.wait()
    granted = asking.result
    assert (granted.scopes, granted.expires_at, granted.max_uses) == (["read"], clock.wall + 60, 1)
    assert manager.inspect(granted.token, scopes=["write"]).reason == "MISSING_SCOPE"


@pytest.mark.parametrize(
    ("wider", "beyond"),
    [
        ({"scopes": ["read", "admin"]}, "scopes"),
        ({"expiry": 601}, "expiry"),
        ({"expiry": "never"}, "expiry"),
        ({"max_uses": 6}, "uses"),
    ],
)
async def test_a_decision_cannot_widen_and_the_request_still_waits(
    desk, ask, asker, person, manager, wider, beyond
):
    await ask(asker)
    with pytest.raises(errors.NotWithinRequestError, match=rf"never more \({beyond}\); .* still waits"):
        await approve(desk, ids(desk)[0], person, **wider)
    assert len(ids(desk)) == 1
    assert manager.session_count == 0


async def test_a_session_that_was_granted_cannot_be_renewed_beyond_its_end(
    desk, ask, asker, person, manager, clock
):
    asking = await ask(asker, max_uses=None)
    await approve(desk, ids(desk)[0], person)
    await asking.done.wait()
    end = asking.result.expires_at
    clock.advance(300)
    assert (await manager.renew_token(asking.result.token)).expires_at == end


async def test_a_denial_is_final_and_for_a_while_nobody_is_asked_again(desk, ask, asker, person, clock):
    asking = await ask(asker)
    desk.deny(ids(desk)[0], PERSON)
    await asking.done.wait()
    assert isinstance(asking.error, errors.RequestDeniedError)
    again = await ask(asker)
    assert isinstance(again.error, errors.RequestDeniedError)
    assert ids(desk) == []
    clock.advance(60)
    await ask(asker)
    assert len(ids(desk)) == 1


async def test_no_answer_is_a_no(desk, ask, asker, person, clock, manager, autojump_clock):
    asking = await ask(asker)
    (request_id,) = ids(desk)
    clock.advance(MAX_REQUEST_SECONDS)
    assert ids(desk) == [], "an overdue request is not shown"
    with pytest.raises(errors.NoSuchRequestError, match="expired"):
        await approve(desk, request_id, person)
    await asking.done.wait()
    assert isinstance(asking.error, errors.RequestExpiredError)
    assert manager.session_count == 0


@pytest.mark.parametrize("set_by", [10_000, -10_000])
async def test_a_clock_that_is_set_extends_no_request(
    desk, ask, asker, person, clock, set_by, autojump_clock
):
    await ask(asker)
    clock.set_wall(clock.wall + set_by)
    clock.boot += 299
    assert len(ids(desk)) == (1 if set_by < 0 else 0), "set forward, it ends early: no answer is a no"
    clock.boot += 1
    assert ids(desk) == []


async def test_a_call_that_waits_for_less_gets_the_request_and_can_collect_later(desk, asker, person, clock):
    found = await desk.request(asker, **WHAT, wait=0)
    assert (found.token, found.until) == (None, clock.wall + MAX_REQUEST_SECONDS)
    assert (await desk.collect(found.id, asker, 0)).token is None
    await approve(desk, found.id, person)
    granted = await desk.collect(found.id, asker, 0)
    assert granted.token is not None
    assert (await desk.collect(found.id, asker, 0)) == granted, "the answer may have been lost"


async def test_a_collected_token_is_forgotten_soon(desk, asker, person, clock, manager, autojump_clock):
    found = await desk.request(asker, **WHAT, wait=0)
    await approve(desk, found.id, person)
    granted = await desk.collect(found.id, asker, 0)
    clock.advance(COLLECTED_SECONDS)
    await trio.sleep(2)
    with pytest.raises(errors.NoSuchRequestError):
        await desk.collect(found.id, asker, 0)
    assert manager.inspect(granted.token).valid


def when(manager, kind):
    """An event of trio that is set once the manager has published one of that kind."""
    happened = trio.Event()
    manager.on_event(lambda event: happened.set() if event.kind == kind else None)
    return happened


async def test_what_nobody_collects_is_revoked(desk, asker, person, clock, manager, autojump_clock):
    revoked = when(manager, "revoked")
    found = await desk.request(asker, **WHAT, wait=0)
    decision = await approve(desk, found.id, person)
    assert manager.inspect(id=decision.session_id).valid
    clock.advance(MAX_REQUEST_SECONDS)
    await revoked.wait()
    assert not manager.inspect(id=decision.session_id).valid


async def test_only_the_process_that_asked_can_collect_or_withdraw(desk, asker, start_asker, person):
    found = await desk.request(asker, **WHAT, wait=0)
    await approve(desk, found.id, person)
    for other in (start_asker(), asker._replace(socket=ASK_SOCKET)):
        with pytest.raises(errors.NoSuchRequestError):
            await desk.collect(found.id, other, 0)
        with pytest.raises(errors.NoSuchRequestError):
            desk.withdraw(found.id, other)


async def test_withdrawing_ends_a_request(desk, ask, asker, person):
    asking = await ask(asker)
    (request_id,) = ids(desk)
    assert desk.withdraw(request_id, asker)
    assert not desk.withdraw(request_id, asker)
    await asking.done.wait()
    assert isinstance(asking.error, errors.NoSuchRequestError)
    with pytest.raises(errors.NoSuchRequestError, match="withdrawn"):
        await approve(desk, request_id, person)


async def test_a_request_ends_with_its_process(desk, ask, start_asker, person, manager, events):
    asker = start_asker()
    asking = await ask(asker)
    (request_id,) = ids(desk)
    start_asker.kills[asker.process].kill()
    await asking.done.wait()
    assert ids(desk) == []
    with pytest.raises(errors.NoSuchRequestError, match="process"):
        await approve(desk, request_id, person)
    assert [(event.kind, event.reason) for event in events] == [
        ("requested", None),
        ("withdrawn", "PROCESS_ENDED"),
    ]


async def test_a_process_that_has_ended_is_taken_for_no_relative(desk, start_asker, manager):
    asker, decider = start_asker(), start_asker().process
    found = await desk.request(asker, **WHAT, wait=0)
    start_asker.kills[asker.process].kill()
    start_asker.kills[asker.process].wait()
    with pytest.raises(errors.NoSuchRequestError, match="ended"):  # before the desk has heard of it
        await approve(desk, found.id, decider)
    assert (await manager.list_sessions()).sessions == []


async def test_a_granted_session_that_its_process_never_collected_ends_with_it(
    desk, start_asker, person, manager
):
    asker, revoked = start_asker(), when(manager, "revoked")
    found = await desk.request(asker, **WHAT, wait=0)
    decision = await approve(desk, found.id, person)
    start_asker.kills[asker.process].kill()
    await revoked.wait()
    assert not manager.inspect(id=decision.session_id).valid


async def test_a_process_that_has_ended_cannot_ask(desk, start_asker):
    asker = start_asker()
    start_asker.kills[asker.process].kill()
    start_asker.kills[asker.process].wait()
    with pytest.raises(errors.CannotBindError):
        await desk.request(asker, **WHAT)


async def test_a_process_that_runs_another_program_by_now_gets_nothing(desk, ask, asker, person, monkeypatch):
    asking = await ask(asker)
    (request_id,) = ids(desk)
    monkeypatch.setattr(desk_module, "program_of", lambda asker: Program(("another",), "another program"))
    with pytest.raises(errors.NoSuchRequestError, match="another program"):
        await approve(desk, request_id, person)
    await asking.done.wait()
    assert isinstance(asking.error, errors.NoSuchRequestError)


async def test_of_two_decisions_one_counts(desk, ask, asker, person, manager):
    await ask(asker)
    (request_id,) = ids(desk)
    outcomes = []

    async def decide(how):
        try:
            outcomes.append(await approve(desk, request_id, person) if how else desk.deny(request_id, PERSON))
        except errors.NoSuchRequestError as error:
            outcomes.append(error)

    async with trio.open_nursery() as both:
        for how in (True, True, False):
            both.start_soon(decide, how)
    assert sum(not isinstance(each, Exception) for each in outcomes) == 1
    assert manager.session_count <= 1


async def test_the_same_request_joins_the_first(desk, ask, asker, start_asker, person, manager):
    calls = [await ask(asker) for _ in range(3)]
    other = await ask(start_asker())
    shown = desk.listed().requests
    assert [request.calls for request in shown] == [3, 1]
    await approve(desk, shown[0].id, person)
    for call in calls:
        await call.done.wait()
    assert len({call.result.token for call in calls}) == 1, "one approval opens one session"
    assert manager.session_count == 1
    assert not other.done.is_set()


async def test_calls_that_wait_for_one_request_are_bounded(desk, ask, asker):
    calls = [await ask(asker) for _ in range(MAX_CALLS + 1)]
    assert isinstance(calls[-1].error, errors.TooManyRequestsError)
    assert all(call.error is None for call in calls[:-1])


async def test_a_process_cannot_approve_its_own_request_nor_a_relatives(desk, ask, asker, manager):
    await ask(asker)
    (request_id,) = ids(desk)
    for relative in (asker.process, ME):  # itself, and the parent that started it
        with pytest.raises(errors.OwnRequestError):
            await approve(desk, request_id, relative)
    assert len(ids(desk)) == 1
    assert manager.session_count == 0
    desk.deny(request_id, PERSON)


async def test_whoever_has_given_the_passphrase_may_approve_their_own(desk, ask, asker):
    asking = await ask(asker)
    await approve(desk, ids(desk)[0], asker.process, is_proven=True)
    await asking.done.wait()
    assert asking.result.token


async def test_a_parent_needs_no_person(desk, asker, manager):
    parent = await manager.open_session(600, scopes=["read", "write"])
    granted = await desk.request(asker, scopes=["read"], expiry=60, parent=parent.token)
    assert manager.inspect(granted.token).session.parent == parent.id
    with pytest.raises(errors.NotWithinParentError):
        await desk.request(asker, scopes=["admin"], parent=parent.token)
    await manager.revoke_token(id=parent.id)
    with pytest.raises(errors.ParentNotValidError):
        await desk.request(asker, scopes=["read"], parent=parent.token)
    assert ids(desk) == []


async def test_a_remembered_approval_grants_the_same_again_and_no_more(desk, ask, asker, person, manager):
    await ask(asker)
    decision = await approve(desk, ids(desk)[0], person, scopes=["read"], remember=3600)
    assert decision.remembered_until is not None
    again = await desk.request(asker, **WHAT)
    assert again.scopes == ["read"], "what was granted then, not what was asked for"
    less = await desk.request(asker, **WHAT | {"expiry": 60})
    assert less.token
    await ask(asker, scopes=["read", "admin"])
    assert waiting(desk) == 1, "a person is asked about anything wider"


async def test_a_program_is_its_executable_file_and_an_interpreter_is_none(start_asker):
    cats = [start_asker(exe="/usr/bin/cat") for _ in range(2)]
    assert len({program_of(cat).key for cat in cats}) == 1
    assert program_of(cats[0]).words == "the program /usr/bin/cat"
    cut = "/nix/store/" + "a" * MAX_SHOWN_CHARACTERS
    others = [
        start_asker(exe=exe)
        for exe in ("[cat]", "/usr/bin/python3.11", "/usr/bin/java (deleted)", cut[:MAX_SHOWN_CHARACTERS])
    ]
    keys = {program_of(each).key for each in (*cats, *others)}
    assert len(keys) == 5, "a name proves nothing, and an interpreter runs anything"
    renamed = others[0]
    service = renamed._replace(identity=renamed.identity._replace(unit="backup.service"))
    assert program_of(service).words == "the service backup.service"
    scope = renamed._replace(identity=renamed.identity._replace(unit="terminal.scope"))
    assert program_of(scope).key == program_of(renamed).key


async def test_a_remembered_approval_is_for_that_program_user_and_socket(desk, ask, asker, person):
    await ask(asker)
    await approve(desk, ids(desk)[0], person, remember=3600)
    for other in (
        asker._replace(socket=ASK_SOCKET),
        asker._replace(identity=PeerIdentity(12345, asker.identity.pid)),
    ):
        before = waiting(desk)
        await ask(other)
        assert waiting(desk) == before + 1


async def test_a_remembered_approval_is_listed_and_ends_when_it_is_denied(desk, ask, asker, person, events):
    await ask(asker)
    (request_id,) = ids(desk)
    decision = await approve(desk, request_id, person, remember=3600)
    (shown,) = desk.listed().requests
    assert (shown.id, shown.state, shown.until) == (request_id, "remembered", decision.remembered_until)
    with pytest.raises(errors.NoSuchRequestError):
        await approve(desk, request_id, person)
    desk.deny(request_id, PERSON)
    assert ids(desk) == []
    await ask(asker)
    assert waiting(desk) == 1
    assert events[-2].kind == "forgotten"


@pytest.mark.parametrize("clocks", [{"wall"}, {"boot"}])
async def test_a_remembered_approval_ends_at_its_time_by_either_clock(
    desk, ask, asker, person, clock, clocks
):
    await ask(asker)
    await approve(desk, ids(desk)[0], person, remember=60)
    for name in clocks:
        setattr(clock, name, getattr(clock, name) + 60)
    assert ids(desk) == []
    await ask(asker)
    assert waiting(desk) == 1


async def test_remembered_approvals_are_bounded(desk, start_asker, person, clock, events):
    askers = []
    for _ in range(MAX_REMEMBERED + 1):
        clock.advance(60)  # else a user asks too often
        asker = start_asker()
        found = await desk.request(asker, **WHAT, wait=0)
        await approve(desk, found.id, person, remember=86_400)
        await desk.collect(found.id, asker, 0)
        askers.append(asker)
    assert sum(each.kind == "forgotten" for each in events) == 1
    assert (await desk.request(askers[0], **WHAT, wait=0)).token is None
    assert (await desk.request(askers[1], **WHAT, wait=0)).token is not None


async def test_a_lock_ends_every_request_and_forgets_every_approval(manager, clock, start_asker, person):
    async with trio.open_nursery() as nursery:
        async with RequestDesk(manager, Policy(), clock) as desk:
            await nursery.start(desk.run)
            remembered, waiting = start_asker(), start_asker()
            found = await desk.request(remembered, **WHAT, wait=0)
            decision = await approve(desk, found.id, person, remember=3600)
            asking = Asking(desk, waiting)
            nursery.start_soon(asking.run)
            await wait_all_tasks_blocked()
        await asking.done.wait()
        assert isinstance(asking.error, errors.AgentLockedError)
        assert not manager.inspect(id=decision.session_id).valid, "nobody had collected it"
        with pytest.raises(errors.AgentLockedError):
            await desk.request(remembered, **WHAT)
        with pytest.raises(errors.AgentLockedError):
            desk.listed()
        nursery.cancel_scope.cancel()


class Gate:
    """Holds up what a manager opens until `open` is set."""

    def __init__(self, manager, monkeypatch):
        self.open = trio.Event()
        self._opening = manager.open_session
        monkeypatch.setattr(manager, "open_session", self._open_session)

    async def _open_session(self, *args, **kwargs):
        await self.open.wait()
        return await self._opening(*args, **kwargs)


async def decide_and_keep(desk, request_id, person, outcomes):
    try:
        outcomes.append(await approve(desk, request_id, person))
    except Exception as error:
        outcomes.append(error)


@pytest.mark.parametrize("wait", [MAX_REQUEST_SECONDS, 0])
async def test_a_lock_waits_for_a_decision_that_is_carried_out(
    manager, clock, asker, person, nursery, monkeypatch, wait, events
):
    gate, outcomes = Gate(manager, monkeypatch), []

    async def open_gate():
        await wait_all_tasks_blocked()  # until the lock waits
        gate.open.set()

    async with RequestDesk(manager, Policy(), clock) as desk:
        asking = Asking(desk, asker, wait=wait)
        nursery.start_soon(asking.run)
        await wait_all_tasks_blocked()
        nursery.start_soon(decide_and_keep, desk, ids(desk)[0], person, outcomes)
        await wait_all_tasks_blocked()
        nursery.start_soon(open_gate)
    await wait_all_tasks_blocked()
    (decision,) = outcomes
    assert [event.kind for event in events][:3] == ["requested", "created", "approved"]
    is_collected = asking.error is None and asking.result.token is not None
    assert manager.inspect(id=decision.session_id).valid == is_collected, "nothing is left behind"


async def test_a_lock_does_not_wait_for_a_disk_that_hangs(
    manager, clock, asker, person, monkeypatch, autojump_clock
):
    gate, outcomes = Gate(manager, monkeypatch), []
    async with trio.open_nursery() as nursery:
        async with RequestDesk(manager, Policy(), clock) as desk:
            asking = Asking(desk, asker)
            nursery.start_soon(asking.run)
            await wait_all_tasks_blocked()
            nursery.start_soon(decide_and_keep, desk, ids(desk)[0], person, outcomes)
            await wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() <= began + CLOSING_SECONDS
        await wait_all_tasks_blocked()
        assert isinstance(asking.error, errors.AgentLockedError)
        gate.open.set()
    assert isinstance(outcomes[0], errors.NoSuchRequestError)
    assert (await manager.list_sessions()).sessions == []


async def test_a_decision_is_carried_out_even_if_it_is_cancelled(
    desk, ask, asker, person, manager, monkeypatch, nursery
):
    asking, gate = await ask(asker), Gate(manager, monkeypatch)

    async def open_gate():
        await wait_all_tasks_blocked()
        gate.open.set()

    with trio.CancelScope() as scope:
        scope.cancel()
        nursery.start_soon(open_gate)
        await approve(desk, ids(desk)[0], person)
    await asking.done.wait()
    assert asking.result.token


async def test_a_decision_holds_up_no_stop_if_the_disk_hangs(
    desk, ask, asker, person, manager, monkeypatch, autojump_clock
):
    asking, _ = await ask(asker), Gate(manager, monkeypatch)
    began = trio.current_time()
    with trio.move_on_after(1) as drained:
        await approve(desk, ids(desk)[0], person)
    assert drained.cancelled_caught
    assert SHIELDED_SECONDS <= trio.current_time() - began <= SHIELDED_SECONDS + TICK_SECONDS
    assert asking.error is None
    assert len(ids(desk)) == 1, "it waits again"


async def test_a_lock_ends_a_request_that_is_overdue(manager, clock, asker, nursery):
    async with RequestDesk(manager, Policy(), clock) as desk:
        asking = Asking(desk, asker)
        nursery.start_soon(asking.run)
        await wait_all_tasks_blocked()
        clock.advance(MAX_REQUEST_SECONDS)
    await wait_all_tasks_blocked()
    assert isinstance(asking.error, errors.AgentLockedError)


async def test_a_decision_that_fails_during_a_stop_ends_its_request(
    desk, ask, asker, person, nursery, manager, monkeypatch, events
):
    asking, gate, outcomes = await ask(asker), trio.Event(), []

    async def full(*args, **kwargs):
        await gate.wait()
        raise errors.StoreFullError

    monkeypatch.setattr(manager, "open_session", full)
    nursery.start_soon(decide_and_keep, desk, ids(desk)[0], person, outcomes)
    await wait_all_tasks_blocked()
    desk.close(errors.AgentStoppingError(), STOPPING)
    gate.set()
    await wait_all_tasks_blocked()
    assert isinstance(asking.error, errors.AgentStoppingError)
    assert isinstance(outcomes[0], errors.StoreFullError)
    assert [(event.kind, event.reason) for event in events] == [("requested", None), ("withdrawn", STOPPING)]


async def test_a_stop_ends_them_as_stopping(desk, ask, asker):
    asking = await ask(asker)
    desk.close(errors.AgentStoppingError(), STOPPING)
    await asking.done.wait()
    assert isinstance(asking.error, errors.AgentStoppingError)


@pytest.mark.parametrize("policy", [Policy(grantable=frozenset({"read", "write"}))])
async def test_nobody_is_asked_for_what_nobody_can_grant(desk, asker):
    for scopes in (["admin"], ["read", "admin"], None, []):
        with pytest.raises(errors.NotGrantableError, match="grantable_scopes"):
            await desk.request(asker, **WHAT | {"scopes": scopes})
    assert (await desk.request(asker, **WHAT, wait=0)).token is None


@pytest.mark.parametrize("policy", [Policy(opening="passphrase")])
async def test_under_passphrase_an_approval_needs_it(desk, ask, asker, person):
    asking = await ask(asker)
    (request_id,) = ids(desk)
    with pytest.raises(errors.NoPassphraseError, match="agentctl passwd"):
        await approve(desk, request_id, person)
    with pytest.raises(errors.PassphraseError):
        await approve(desk, request_id, person, has_passphrase=True)
    await approve(desk, request_id, person, is_proven=True, has_passphrase=True)
    await asking.done.wait()
    assert asking.result.token


async def test_if_the_session_cannot_be_opened_the_request_still_waits(
    desk, ask, asker, person, manager, monkeypatch
):
    asking = await ask(asker)

    async def full(*args, **kwargs):
        raise errors.StoreFullError

    with monkeypatch.context() as patched, pytest.raises(errors.StoreFullError):
        patched.setattr(manager, "open_session", full)
        await approve(desk, ids(desk)[0], person)
    await approve(desk, ids(desk)[0], person)
    await asking.done.wait()
    assert asking.result.token


async def test_a_session_opened_for_a_request_that_was_withdrawn_meanwhile_ends(
    desk, ask, asker, person, manager, monkeypatch
):
    asking = await ask(asker)
    (request_id,) = ids(desk)
    opening = manager.open_session

    async def withdrawn_meanwhile(*args, **kwargs):
        created = await opening(*args, **kwargs)
        assert desk.withdraw(request_id, asker)
        return created

    monkeypatch.setattr(manager, "open_session", withdrawn_meanwhile)
    with pytest.raises(errors.NoSuchRequestError):
        await approve(desk, request_id, person, remember=60)
    await asking.done.wait()
    assert isinstance(asking.error, errors.NoSuchRequestError)
    assert (await manager.list_sessions()).sessions == []
    assert ids(desk) == []


async def test_what_ends_while_another_is_taken_back_does_not_stop_the_desk(
    desk, asker, start_asker, person, clock, manager, monkeypatch, autojump_clock
):
    other, revoking, revoked = start_asker(), manager.revoke_token, when(manager, "revoked")
    uncollected = await desk.request(asker, **WHAT, wait=0)
    waiting = await desk.request(other, **WHAT, wait=0)
    await approve(desk, uncollected.id, person)

    async def withdrawn_meanwhile(**selected):
        desk.withdraw(waiting.id, other)
        return await revoking(**selected)

    with monkeypatch.context() as patched:
        patched.setattr(manager, "revoke_token", withdrawn_meanwhile)
        clock.advance(MAX_REQUEST_SECONDS)
        await revoked.wait()
    asking = Asking(desk, other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking.run)
        await wait_all_tasks_blocked()
        clock.advance(MAX_REQUEST_SECONDS)
    assert isinstance(asking.error, errors.RequestExpiredError)


async def test_every_step_is_in_the_audit_log_with_who_asked_and_who_decided(
    desk, ask, asker, person, manager
):
    await ask(asker)
    (request_id,) = ids(desk)
    decision = await approve(desk, request_id, person)
    entries = (await manager.list_audit()).entries
    approved, created, requested = entries
    assert [entry.kind for entry in entries] == ["approved", "created", "requested"]
    assert (approved.peer_pid, approved.peer_exe, approved.peer_unit) == (PERSON.pid, PERSON.exe, PERSON.unit)
    assert approved.asked_by == asker.identity
    assert approved.session_id == created.session_id == decision.session_id
    assert requested.request_id == approved.request_id == request_id
    assert requested.peer_pid == asker.identity.pid
    assert {entry.kind for entry in entries} <= set(EVENT_KINDS)


async def test_requests_cannot_push_what_was_done_out_of_the_audit_log(desk, start_asker, manager, clock):
    await manager.open_session(label="the person's own")
    for _ in range(1100):
        clock.advance(60)
        asker = start_asker() if _ == 0 else asker  # noqa: F821
        found = await desk.request(asker, **WHAT, wait=0)
        desk.withdraw(found.id, asker)
    await manager.sweep()
    kinds = []
    after = ""
    while after is not None:
        page = await manager.list_audit(after=after or None)
        kinds += [entry.kind for entry in page.entries]
        after = page.next
    assert "created" in kinds
    # What is written while a commit is under way is trimmed after the next one.
    assert len(kinds) <= 1 + MAX_ENTRIES // 4 + TRIM_EVERY + MAX_BATCH_OPERATIONS


async def test_what_is_kept_of_ended_requests_is_bounded(desk, asker, clock):
    for _ in range(MAX_ENDED + 20):
        clock.advance(60)
        found = await desk.request(asker, **WHAT, wait=0)
        desk.withdraw(found.id, asker)
    assert len(desk._ended) <= MAX_ENDED
    assert len(desk._requests) == 0
    assert len(desk._watch) == 0


async def test_pages_cover_all_requests_once(desk, start_asker):
    made = [(await desk.request(start_asker(), **WHAT, wait=0)).id for _ in range(8)]
    found, after = [], None
    while True:
        page = desk.listed(after, 3)
        found += [request.id for request in page.requests]
        after = page.next
        if after is None:
            break
    assert found == made
    for wrong in ("x", "-1", "1" * 30, "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(errors.InvalidParamsError, match="after"):
            desk.listed(wrong)


def test_the_tick_is_shorter_than_what_it_looks_at():
    assert book_module.TICK_SECONDS < COLLECTED_SECONDS
