"""What the agent does at logind's signals, without a bus."""

from __future__ import annotations

import math
import os
from contextlib import asynccontextmanager

import pytest
import trio
from jeepney import DBusAddress, HeaderFields, Message, new_signal

from agentd.locking import SCREEN_LOCK, SUSPEND, logind, watch_logind
from agentd.locking.bus_connection import RefusedError
from agentd.locking.logind import OPERATION_IN_PROGRESS, Name
from agentd_client.errors import StoreError

LOCK_SECONDS = 4  # promised in docs/security.md, so it is not imported


def signal(interface: str, member: str, *body: object, path: str = "/org/freedesktop/login1") -> Message:
    message = new_signal(DBusAddress(path, interface=interface), member)
    message.body = body
    return message


SLEEP = signal(Name.MANAGER, "PrepareForSleep", True)
AWAKE = signal(Name.MANAGER, "PrepareForSleep", False)
SESSION = "/org/freedesktop/login1/session/c1"
SCREEN = signal("org.freedesktop.login1.Session", "Lock", path=SESSION)


class FakeInhibitor:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class FakeBus:
    """A connection to a bus with logind on it."""

    def __init__(self) -> None:
        self.say, self._signals = trio.open_memory_channel[Message](math.inf)
        self.inhibitors: list[FakeInhibitor] = []
        self.refusal: Exception | None = None
        self.uid: int | None = None

    async def call(self, message: Message) -> tuple[object, ...]:
        await trio.lowlevel.checkpoint()
        match message.header.fields[HeaderFields.member]:
            case "AddMatch":
                return ()
            case "NameHasOwner":
                return (True,)
            case "Inhibit":
                if self.refusal is not None:
                    raise self.refusal
                self.inhibitors.append(FakeInhibitor())
                return (self.inhibitors[-1],)
            case "Get":
                if self.uid is None:
                    raise trio.BrokenResourceError
                return (("(uo)", (self.uid, "/org/freedesktop/login1/user/_0")),)
        raise AssertionError(message)

    async def next_signal(self) -> Message:
        return await self._signals.receive()


@pytest.fixture
def bus(monkeypatch):
    bus = FakeBus()

    @asynccontextmanager
    async def connected(address):
        yield bus

    monkeypatch.setattr(logind, "connected", connected)
    return bus


@pytest.fixture
def watch(bus, lock, logger, nursery):
    """Start watching; returns a function that stops it."""

    async def begin():
        scope = trio.CancelScope()

        async def run():
            with scope:
                await watch_logind(lock, on_suspend=True, on_screen_lock=True, logger=logger)

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        return scope.cancel

    return begin


async def say(bus, *signals):
    for signal in signals:
        bus.say.send_nowait(signal)
    await trio.testing.wait_all_tasks_blocked()


async def test_a_lock_that_takes_too_long_goes_on_and_the_machine_sleeps(
    autojump_clock, bus, watch, lock, caplog
):
    async def meanwhile():
        await trio.sleep(LOCK_SECONDS + 10)

    lock.meanwhile = meanwhile
    await watch()
    bus.say.send_nowait(SLEEP)
    await trio.sleep(LOCK_SECONDS - 0.1)
    assert not bus.inhibitors[0].is_closed
    await trio.sleep(0.2)
    assert bus.inhibitors[0].is_closed
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert lock.finished == []
    await trio.sleep(10)
    assert lock.finished == [SUSPEND]


async def test_told_while_it_sleeps_already_it_locks_at_once(bus, watch, lock):
    bus.refusal = RefusedError(OPERATION_IN_PROGRESS)
    await watch()
    assert lock.finished == [SUSPEND]


async def test_without_an_inhibitor_it_says_so_and_locks_all_the_same(bus, watch, lock, caplog):
    bus.refusal = RefusedError("org.freedesktop.DBus.Error.AccessDenied", "no")
    await watch()
    assert "will not wait for the agent to lock before it sleeps" in caplog.text
    assert "org.freedesktop.DBus.Error.AccessDenied: no" in caplog.text
    assert lock.reasons == []
    await say(bus, SLEEP)
    assert lock.finished == [SUSPEND]
    bus.refusal = None
    await say(bus, AWAKE)
    assert not bus.inhibitors[0].is_closed


@pytest.mark.parametrize(("uid", "is_ours"), [(os.geteuid(), True), (os.geteuid() + 1, False), (None, True)])
async def test_a_session_of_an_unknown_user_counts_as_ours(bus, watch, lock, uid, is_ours):
    bus.uid = uid
    await watch()
    await say(bus, SCREEN)
    assert lock.finished == [SCREEN_LOCK] * is_ours


async def test_other_signals_are_ignored(bus, watch, lock):
    await watch()
    await say(
        bus,
        signal(Name.MANAGER, "PrepareForSleep"),
        signal(Name.MANAGER, "PrepareForSleep", "yes"),
        signal(Name.MANAGER, "PrepareForShutdown", True),
        signal("org.freedesktop.login1.Session", "Unlock", path=SESSION),
        signal("org.freedesktop.DBus", "NameOwnerChanged", path="/org/freedesktop/DBus"),
    )
    assert lock.reasons == []
    await say(bus, SLEEP)
    assert lock.finished == [SUSPEND]


async def test_there_is_one_inhibitor_at_a_time_and_none_at_the_end(bus, watch):
    end = await watch()
    await say(bus, AWAKE, AWAKE)
    assert [inhibitor.is_closed for inhibitor in bus.inhibitors] == [True, True, False]
    end()
    await trio.testing.wait_all_tasks_blocked()
    assert bus.inhibitors[-1].is_closed


async def test_an_error_of_the_agent_is_logged_as_a_sentence(bus, watch, lock, caplog):
    async def fail():
        raise StoreError("the store is gone")

    lock.meanwhile = fail
    await watch()
    await say(bus, SLEEP)
    assert bus.inhibitors[0].is_closed
    record = caplog.records[-1]
    assert record.getMessage() == "the agent could not be locked (suspend): the store is gone"
    assert record.exc_info is None
