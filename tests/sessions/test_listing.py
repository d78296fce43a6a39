"""Listing, selecting and revoking many sessions."""

from __future__ import annotations

import fnmatch
import re

import pytest
import trio

from agentd.sessions import listing
from agentd.sessions.records import SESSIONS_PATH, SessionRecord
from agentd_client import PeerIdentity
from agentd_client.errors import InvalidParamsError, LifecycleError, StoreFullError
from agentd_client.protocol import reasons


def labels(page):
    return [session.label for session in page.sessions]


async def opened(manager, clock, how_many, **more):
    created = []
    for number in range(how_many):
        clock.advance(0.01)
        created.append(await manager.open_session(600, f"session {number}", **more))
    return created


async def test_pages_list_every_session_once_newest_first(manager, clock):
    await opened(manager, clock, 40)
    found, after = [], None
    while True:
        page = await manager.list_sessions(after=after, limit=7)
        found += labels(page)
        after = page.next
        if after is None:
            break
    assert found == [f"session {number}" for number in reversed(range(40))]


async def test_a_session_that_ends_between_two_pages_is_not_shown_and_hides_none(manager, clock):
    created = await opened(manager, clock, 6)
    first = await manager.list_sessions(limit=3)
    await manager.revoke_token(created[3].token)  # the last one listed, after which the next page begins
    await manager.revoke_token(created[1].token)
    assert labels(await manager.list_sessions(after=first.next)) == ["session 2", "session 0"]


async def test_a_page_examines_a_limited_number_of_records(manager, clock, monkeypatch):
    monkeypatch.setattr(listing, "CHUNK_RECORDS", 4)
    monkeypatch.setattr(listing, "MAX_EXAMINED", 8)
    await opened(manager, clock, 20)
    page = await manager.list_sessions(label="session 0")
    assert page.sessions == []
    pages = 1
    while page.next is not None and not page.sessions:
        page = await manager.list_sessions(label="session 0", after=page.next)
        pages += 1
    assert labels(page) == ["session 0"]
    assert pages == 3


async def test_conditions(manager, clock):
    short = await manager.open_session(5, "short", PeerIdentity(1000, 1))
    parent = await manager.open_session(600, "editor one", PeerIdentity(1000, 2))
    child = await manager.open_session(600, "editor two", PeerIdentity(1000, 3), parent=parent.token)
    grandchild = await manager.open_session(600, "below", PeerIdentity(1000, 3), parent=child.token)
    clock.advance(10)

    async def ids(**conditions):
        return {session.id for session in (await manager.list_sessions(**conditions)).sessions}

    assert await ids(state="expired") == {short.id}
    assert await ids(state="active") == {parent.id, child.id, grandchild.id}
    assert await ids(label="editor*") == {parent.id, child.id}
    assert await ids(label="editor ?ne") == {parent.id}
    assert await ids(label="EDITOR*") == set()
    assert await ids(label="[e]ditor*") == set(), "brackets stand for themselves"
    assert await ids(pid=3) == {child.id, grandchild.id}
    assert await ids(parent=parent.id) == {child.id, grandchild.id}
    assert await ids(parent=parent.id, label="below", pid=3, state="active") == {grandchild.id}
    states = {session.id: session.state for session in (await manager.list_sessions()).sessions}
    assert states[short.id] == "expired"
    assert states[child.id] == "active"


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "dead"},
        {"state": 1},
        {"label": 1},
        {"pid": "1"},
        {"pid": True},
        {"parent": 1},
        {"limit": 0},
        {"limit": 17},
        {"limit": True},
        {"after": "nonsense"},
        {"after": 7},
        {"after": "a.\0"},
        {"after": "."},
        {"after": "a." + "b" * 200},
    ],
)
async def test_an_unusable_condition_is_refused_by_name(manager, wrong):
    with pytest.raises(InvalidParamsError, match=next(iter(wrong))):
        (await manager.list_sessions(**wrong))


async def test_a_cursor_under_a_deleted_key_is_the_end(manager, clock):
    await opened(manager, clock, 3)
    page = await manager.list_sessions(limit=2)
    await manager.reset_key()
    assert (await manager.list_sessions(after=page.next)) == ([], None)


async def test_revoking_by_condition_ends_only_what_matches(manager, clock, monkeypatch):
    monkeypatch.setattr(listing, "STEP_RECORDS", 4)
    ten = await opened(manager, clock, 10)
    other = await manager.open_session(600, "other")
    below = await manager.open_session(600, "below", parent=ten[4].token)
    assert await manager.revoke_sessions(label="session*") == 10
    assert not any([await manager.verify_token(created.token) for created in [*ten, below]])
    assert await manager.verify_token(other.token)
    assert await manager.revoke_sessions(label="session*") == 0


async def test_a_known_expired_session_is_listed_as_expired_when_the_clock_is_set_back(manager, clock):
    seen = await manager.open_session(60, "seen")
    child = await manager.open_session(60, "child", parent=seen.token)
    unseen = await manager.open_session(600, "unseen")
    clock.advance(100)
    assert not await manager.verify_token(seen.token)
    clock.set_wall(clock.wall - 100)
    clock.reboot()
    assert not await manager.verify_token(child.token)
    assert sorted(labels(await manager.list_sessions(state="expired"))) == ["child", "seen"]
    assert labels(await manager.list_sessions(state="active")) == ["unseen"]
    assert await manager.revoke_sessions(state="active") == 1
    assert not await manager.verify_token(unseen.token)


async def test_other_tasks_run_while_many_records_are_examined(manager, clock, monkeypatch):
    monkeypatch.setattr(listing, "STEP_RECORDS", 1)
    await opened(manager, clock, 10)
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        assert await manager.revoke_sessions(label="none such") == 0
        nursery.cancel_scope.cancel()
    assert turns > 5


@pytest.mark.parametrize("wrong", [{"state": "dead"}, {"pid": "1"}])
async def test_revoking_by_an_unusable_condition_ends_nothing(manager, wrong):
    token = await manager.create_token()
    with pytest.raises(InvalidParamsError):
        await manager.revoke_sessions(**wrong)
    assert await manager.verify_token(token)


async def test_inspecting_by_id(manager, clock):
    created = await manager.open_session(60, "mine")
    assert manager.inspect(id=created.id).session.label == "mine"
    assert manager.inspect(id="unknown").reason == reasons.REVOKED
    clock.advance(100)
    assert manager.inspect(id=created.id).reason == reasons.EXPIRED
    for wrong in ({"id": ""}, {"id": 1}, {"id": "x" * 65}, {"token": "x", "id": "y"}):
        with pytest.raises(InvalidParamsError):
            manager.inspect(**wrong)


async def test_the_last_use_is_known_at_once_and_written_later(db, manager, clock):
    created = await manager.open_session(600)
    clock.advance(5)
    assert await manager.verify_token(created.token)
    revision = db.revision
    assert manager.inspect(created.token).session.last_used_at == clock.wall
    assert (await manager.list_sessions()).sessions[0].last_used_at == clock.wall
    assert db.revision == revision, "a verification writes nothing"
    await manager.stop()
    await manager.start()
    assert manager.inspect(created.token).session.last_used_at == clock.wall


async def test_a_last_use_that_could_not_be_written_is_written_later(db, manager, clock, monkeypatch):
    created = await manager.open_session(600)
    clock.advance(5)
    assert await manager.verify_token(created.token)

    async def refuse(function, **options):
        raise StoreFullError

    with monkeypatch.context() as patched:
        patched.setattr(db, "write", refuse)
        with pytest.raises(StoreFullError):
            await manager._upkeep.write_pending()
    await manager.stop()
    await manager.start()
    assert manager.inspect(created.token).session.last_used_at == clock.wall


@pytest.mark.parametrize("grant", [{}, {"audience": ["web"]}, {"scopes": ["read"]}, {"max_uses": 90}])
async def test_a_verification_reports_itself_as_the_last_use(manager, clock, grant):
    created = await manager.open_session(600, "a label", **grant)
    asked = {"audience": "web"} if "audience" in grant else {}
    for seconds in (0, 5, 1, 60):
        clock.advance(seconds)
        found = manager.verify_nowait(created.token, **asked) or await manager.verify_and_consume(
            created.token
        )
        assert found.session.last_used_at == clock.wall
        assert found.session == manager.inspect(created.token, **asked).session


async def test_a_renewed_token_reports_its_last_use(manager, clock):
    created = await manager.open_session(600)
    token = (await manager.renew_token(created.token)).token
    for _ in range(3):
        clock.advance(5)
        assert manager.verify_nowait(token).session.last_used_at == clock.wall


async def test_the_answer_to_a_verification_is_renewed_every_second(manager, clock):
    token = await manager.create_token(600)
    first = manager.verify_nowait(token)
    clock.advance(0.999)
    assert manager.verify_nowait(token) is first
    assert manager.inspect(token).session.last_used_at == clock.wall, "an inspection reports the exact time"
    clock.advance(0.001)
    assert manager.verify_nowait(token).session.last_used_at == clock.wall
    clock.set_wall(clock.wall - 100)
    assert manager.verify_nowait(token).session.last_used_at == clock.wall, "not a time in the future"


async def test_the_answer_to_a_verification_shows_a_change_of_the_session_at_once(manager):
    created = await manager.open_session(600)
    assert manager.verify_nowait(created.token).session.generation == 0
    await manager.renew_token(created.token)
    assert manager.verify_nowait(created.token).session.generation == 1


async def test_a_transaction_reports_a_last_use_that_is_not_written_yet(db, manager, clock):
    token = await manager.create_token(600)
    clock.advance(5)
    assert await manager.verify_token(token)
    async with db.transaction() as tran:
        assert (await manager.inspect_token(token, tran)).session.last_used_at == clock.wall


async def test_writing_the_last_use_does_not_revive_a_session(db, manager):
    created = await manager.open_session(600)
    assert await manager.verify_token(created.token)
    await manager.revoke_token(created.token)
    await manager.stop()
    assert list(db.iterate(SESSIONS_PATH)) == []
    await manager.start()


# --- the event loop's time ---


class TurnCounter:
    """How many records are examined between two turns of the event loop."""

    def __init__(self, monkeypatch):
        self.looked_at = [0]
        self._seconds = 0.0
        decode = SessionRecord.decode

        def counting(stored):
            self.looked_at[-1] += 1
            self._seconds += listing.SLICE_SECONDS / 4
            return decode(stored)

        monkeypatch.setattr(SessionRecord, "decode", counting)
        monkeypatch.setattr(listing.Slices.__init__, "__defaults__", (lambda: self._seconds,))

    async def run(self, scope):
        with scope:
            while True:
                self.looked_at.append(0)
                await trio.lowlevel.checkpoint()


async def test_after_a_pause_a_whole_slice_begins():
    now = 0.0
    slices = listing.Slices(lambda: now)
    now = listing.SLICE_SECONDS
    assert await slices.pause_if_over()
    assert not await slices.pause_if_over()


async def sweep_through(manager):
    await manager.sweep()


async def list_what_fits_nothing(manager):
    page = await manager.list_sessions(label="*" + "a" * 100 + "b")
    assert page.sessions == []


async def revoke_what_fits_nothing(manager):
    assert await manager.revoke_sessions(label="*" + "a" * 100 + "b") == 0


@pytest.mark.parametrize("scan", [list_what_fits_nothing, revoke_what_fits_nothing, sweep_through])
async def test_every_scan_yields_after_each_slice(manager, clock, monkeypatch, scan):
    for number in range(100):
        clock.advance(0.01)
        await manager.open_session(600, f"session {number} " + "a" * 150)
    counter = TurnCounter(monkeypatch)
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counter.run, scope)
        await scan(manager)
        scope.cancel()
    assert sum(counter.looked_at) >= 100
    # A slice is four records; the counting task and the scan have their steps in either order within a turn.
    assert max(counter.looked_at) <= 2 * 4


async def test_patterns_are_not_cached(manager, clock):
    compiled = fnmatch._compile_pattern.cache_info().currsize  # type: ignore[attr-defined]
    kept = len(re._cache)  # type: ignore[attr-defined]
    await opened(manager, clock, 1)
    for number in range(300):
        await manager.list_sessions(label=f"*{number}?")
    assert fnmatch._compile_pattern.cache_info().currsize == compiled  # type: ignore[attr-defined]
    assert len(re._cache) == kept  # type: ignore[attr-defined]


async def test_a_page_fails_when_the_store_stops_meanwhile(manager, clock, monkeypatch):
    monkeypatch.setattr(listing.Slices.__init__, "__defaults__", (iter(range(10**6)).__next__,))
    await opened(manager, clock, 5)
    monkeypatch.setattr(listing, "checkpoint", manager._db.stop)  # while it yields to other tasks
    with pytest.raises(LifecycleError):
        await manager.list_sessions()
