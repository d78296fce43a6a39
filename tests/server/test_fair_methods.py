"""Which methods wait for a place, and which must not."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.methods import MAX_WRITES
from agentd.process_identity import Process
from agentd.server.peer import Peer
from agentd_client.protocol import methods
from agentd_client.protocol.codec import Request
from tests.server.talk import FakeCaller, FakeLocking, FakeSessions, dispatch_of


class Waiting(FakeSessions):
    """Nothing is done until `going_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.going_on = trio.Event()
        self.begun: list[str] = []

    def __getattribute__(self, name):
        if name not in SLOW:
            return super().__getattribute__(name)
        method = super().__getattribute__(name)

        async def waiting(*arguments, **named):
            self.begun.append(name)
            await self.going_on.wait()
            return await method(*arguments, **named)

        return waiting


SLOW = {
    "open_session",
    "renew_token",
    "revoke_token",
    "revoke_sessions",
    "reset_key",
    "list_sessions",
    "list_audit",
    "verify_and_consume",
}


def caller(pid: int) -> FakeCaller:
    found = FakeCaller()
    found.peer = Peer(1000, 100, Process(pid, 1, "boot"))
    return found


class Asking:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.sessions, self.locking = Waiting(), FakeLocking()
        self.dispatch = dispatch_of(self.sessions, self.locking)
        self._nursery = nursery
        self.answered: list[int] = []

    def ask(self, pid: int, msgid: int, method: str, **params: object) -> None:
        request, by = Request(msgid, method, [params]), caller(pid)
        if self.dispatch.answer(request, by) is not None:
            self.answered.append(msgid)
            return

        async def wait() -> None:
            await self.dispatch.answer_async(request, by)
            self.answered.append(msgid)

        self._nursery.start_soon(wait)


@pytest.fixture
def asking(nursery):
    return Asking(nursery)


PARAMS: dict[str, dict[str, object]] = {
    "renewToken": {"token": "a"},
    "revokeToken": {"id": "a"},
    "revokeSessions": {"label": "*"},
}


@pytest.mark.parametrize(
    ("method", "places"),
    [
        ("listSessions", 1),
        ("listAudit", 1),
        ("revokeSessions", 1),
        ("createToken", MAX_WRITES),
        ("renewToken", MAX_WRITES),
        ("revokeToken", MAX_WRITES),
        ("resetKey", MAX_WRITES),
    ],
)
async def test_so_many_are_worked_on_at_once_and_no_process_waits_for_all_of_anothers(asking, method, places):
    for msgid in range(MAX_WRITES + 100):
        asking.ask(1, msgid, method, **PARAMS.get(method, {}))
    await wait_all_tasks_blocked()
    assert len(asking.sessions.begun) == places
    asking.ask(2, 9999, method, **PARAMS.get(method, {}))
    await wait_all_tasks_blocked()
    asking.sessions.going_on.set()
    await wait_all_tasks_blocked()
    assert len(asking.answered) == MAX_WRITES + 101
    assert asking.answered.index(9999) <= 2 * places


async def test_a_counted_verification_takes_a_place_and_another_none(asking):
    for msgid in range(MAX_WRITES + 100):
        asking.ask(1, msgid, "verifyToken", token="counted")
    await wait_all_tasks_blocked()
    assert len(asking.sessions.begun) == MAX_WRITES
    asking.ask(1, 9999, "verifyToken", token="good")
    assert asking.answered == [9999]
    asking.sessions.going_on.set()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (methods.LOCK, {}),
        (methods.UNLOCK, {"passphrase": b"right"}),
        (methods.CHANGE_PASSPHRASE, {"old": b"right"}),
        (methods.HELLO, {}),
        (methods.GET_STATUS, {}),
        (methods.INSPECT_TOKEN, {"id": "id"}),
    ],
)
async def test_locking_and_what_is_answered_at_once_wait_for_nobody(asking, method, params):
    for msgid in range(MAX_WRITES + 10):
        for slow in ("createToken", "listSessions", "listAudit", "revokeSessions", "resetKey"):
            asking.ask(1, msgid, slow, **PARAMS.get(slow, {}))
    await wait_all_tasks_blocked()
    asking.ask(1, 9999, method.name, **params)
    await wait_all_tasks_blocked()
    assert asking.answered == [9999]
    asking.sessions.going_on.set()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("requestToken", {}),
        ("requestToken", {"id": "a"}),
        ("decideRequest", {"id": "a", "decision": "approve"}),
    ],
)
async def test_about_processes_one_request_is_worked_on_in_each_turn_of_the_loop(asking, method, params):
    for msgid in range(200):
        asking.ask(1, msgid, method, **params)
    asking.ask(2, 9999, method, **params)
    done = [0]
    while done[-1] < 201:
        await trio.lowlevel.checkpoint()
        done.append(len(asking.sessions.asked))
    assert max(later - before for before, later in itertools.pairwise(done)) == 1
    assert asking.answered.index(9999) <= 2
