from __future__ import annotations

import pytest
import trio
import trio.testing

from agentd.gate import AT_ONCE, WAITING, Gate
from agentd.server import Sessions, Verifying
from agentd_client.errors import AgentLockedError, SessionManagerNotRunningError, StoreError
from tests.server.talk import VALID, FakeSessions


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
def gate(sessions) -> Gate:
    return Gate(sessions.on_event)


def test_it_knows_every_operation_of_the_interface():
    operations = {name for part in (Sessions, Verifying) for name in vars(part) if not name.startswith("_")}
    assert {*AT_ONCE, *WAITING, "on_event"} == operations


async def test_closed_it_refuses_everything_and_open_it_passes_everything_on(gate, sessions):
    def refuses_all() -> None:
        for name in AT_ONCE + WAITING:
            with pytest.raises(AgentLockedError):
                getattr(gate.sessions, name)("good")

    refuses_all()
    gate.open(sessions)
    assert gate.sessions.verify_nowait("good") is VALID
    assert (await gate.sessions.open_session(None, "desk")).token == "token of desk"
    gate.close()
    refuses_all()


def test_being_lockable_costs_a_verification_nothing(gate, sessions):
    gate.open(sessions)
    assert gate.sessions.verify_nowait == sessions.verify_nowait, "the manager's own method"


def test_who_subscribed_stays_so(gate, sessions):
    heard = []
    gate.sessions.on_event(heard.append)
    gate.open(sessions)
    gate.close()
    sessions.emit("event")
    assert heard == ["event"]


@pytest.mark.parametrize("raised", [SessionManagerNotRunningError, StoreError])
async def test_what_waits_while_it_closes_is_told_that_the_agent_is_locked(gate, raised, nursery):
    class Waiting(FakeSessions):
        async def renew_token(self, token, *, by=None):
            await super().renew_token(token, by=by)
            raise raised

    sessions = Waiting()
    go_on, told = sessions.gate("slow"), []

    async def renew() -> None:
        with pytest.raises((raised, AgentLockedError)) as refused:
            await gate.sessions.renew_token("slow")
        told.append(type(refused.value))

    gate.open(sessions)
    nursery.start_soon(renew)
    await trio.testing.wait_all_tasks_blocked()
    gate.close()
    gate.open(FakeSessions())
    go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert told == [AgentLockedError if raised is SessionManagerNotRunningError else raised]
