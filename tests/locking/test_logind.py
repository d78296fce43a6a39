"""Against a real bus with a fake logind on it."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import asynccontextmanager

import pytest
import trio

from agentd.locking import SCREEN_LOCK, SUSPEND, logind, watch_logind
from tests.locking.cancelling import CancelAt

OURS = [("sleep", "agentd", "wipe keys before sleep", "delay")]


@pytest.fixture
def watch(lock, logger, nursery):
    """Start watching; returns a function that stops it."""

    def begin(*, on_suspend: bool = True, on_screen_lock: bool = True):
        scope = trio.CancelScope()

        async def run():
            with scope:
                await watch_logind(lock, on_suspend=on_suspend, on_screen_lock=on_screen_lock, logger=logger)

        nursery.start_soon(run)
        return scope.cancel

    return begin


def told(caplog, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


async def test_the_machine_sleeps_when_the_keys_are_gone_and_not_before(control, watch, lock):
    inhibitors = []
    go_on = trio.Event()

    async def meanwhile():
        inhibitors.append(await control.inhibitors())
        await go_on.wait()
        inhibitors.append(await control.inhibitors())

    lock.meanwhile = meanwhile
    watch()
    await control.until(control.is_held)
    assert await control.inhibitors() == OURS
    await control.prepare_for_sleep(True)
    await control.until(lambda: inhibitors)
    go_on.set()
    await control.until(control.is_free)
    assert lock.finished == [SUSPEND]
    assert inhibitors == [OURS, OURS]


async def test_a_machine_that_woke_up_waits_again_before_it_sleeps_the_next_time(control, watch, lock):
    watch()
    for count in (1, 2, 3):
        await control.until(control.is_held)
        assert await control.inhibitors() == OURS
        await control.prepare_for_sleep(True)
        await control.until(control.is_free)
        assert lock.finished == [SUSPEND] * count
        await control.prepare_for_sleep(False)


async def test_a_lock_that_fails_does_not_keep_the_machine_awake(control, watch, lock, caplog):
    async def fail():
        raise ValueError("secret")

    lock.meanwhile = fail
    watch()
    await control.until(control.is_held)
    await control.prepare_for_sleep(True)
    await control.until(control.is_free)
    assert told(caplog, "the agent could not be locked (suspend): ValueError") == 1
    await control.prepare_for_sleep(False)
    await control.until(control.is_held)


@pytest.mark.parametrize("how", ["Lock", "LockedHint"])
async def test_locking_a_session_of_this_user_locks_the_agent_and_no_other(control, watch, lock, caplog, how):
    ours = await control.add_session(os.geteuid())
    other = await control.add_session(os.geteuid() + 1)

    async def lock_session(path):
        if how == "Lock":
            await control.lock_session(path)
        else:
            for is_locked in (True, False):
                await control.call(path, "org.freedesktop.login1.Session", "SetLockedHint", "b", is_locked)

    watch(on_suspend=False)
    await control.until(lambda: told(caplog, "logind locks the agent on screen lock"))
    # The second one is queried after the reply about the other user's session.
    for count, path in enumerate((other, ours, other, ours)):
        await lock_session(path)
        await control.until(lambda count=count: len(lock.finished) == (count + 1) // 2)
    assert lock.reasons == [SCREEN_LOCK, SCREEN_LOCK]
    assert await control.inhibitors() == []


async def test_the_screen_is_no_business_of_an_agent_that_was_told_so(control, watch, lock):
    ours = await control.add_session(os.geteuid())
    watch(on_screen_lock=False)
    await control.until(control.is_held)
    await control.lock_session(ours)
    await control.prepare_for_sleep(True)
    await control.until(control.is_free)
    assert lock.reasons == [SUSPEND]


async def test_forged_signals_are_ignored(control, watch, lock):
    ours = await control.add_session(os.geteuid())
    watch()
    await control.until(control.is_held)
    manager, session = "org.freedesktop.login1.Manager", "org.freedesktop.login1.Session"
    await control.forge("/org/freedesktop/login1", manager, "PrepareForSleep", "b", True)
    await control.forge(ours, session, "Lock")
    forged_owner = ("org.freedesktop.login1", "", ":1.999")
    await control.forge(
        "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", *forged_owner
    )
    await control.lock_session(ours)
    await control.until(lambda: lock.finished)
    assert await control.inhibitors() == OURS
    await control.prepare_for_sleep(True)
    await control.until(control.is_free)
    assert lock.reasons == [SCREEN_LOCK, SUSPEND]


async def test_cancelled_anywhere_it_leaves_no_inhibitor_and_no_descriptor(
    control, lock, logger, open_descriptors
):
    async def run():
        await watch_logind(lock, on_suspend=True, on_screen_lock=True, logger=logger)

    before = open_descriptors()
    for step in itertools.count(1):
        cancel = CancelAt(step)
        trio.lowlevel.add_instrument(cancel)
        with cancel.scope:
            async with trio.open_nursery() as cancel.nursery:
                cancel.nursery.start_soon(run)
                await control.until(control.is_held)
                await control.prepare_for_sleep(True)
                await control.until(control.is_free)
                await control.prepare_for_sleep(False)
                await control.until(control.is_held)
                cancel.scope.cancel()
        trio.lowlevel.remove_instrument(cancel)
        assert open_descriptors() == before
        await control.until(control.is_free)
        if cancel.left > 0:
            break
    assert step > 30
    assert set(lock.reasons) == {SUSPEND}


async def test_cancelled_while_locking_it_lets_go_of_the_inhibitor(control, watch, lock):
    lock.meanwhile = trio.sleep_forever
    end = watch()
    await control.until(control.is_held)
    await control.prepare_for_sleep(True)
    await control.until(lambda: lock.reasons)
    end()
    await control.until(control.is_free)
    assert lock.finished == []


async def test_the_descriptor_is_not_passed_on_by_an_exec(control, watch, open_descriptors):
    before = open_descriptors()
    watch()
    await control.until(control.is_held)
    new = {int(line.split()[0]) for line in open_descriptors() - before}
    assert len(new) == 2  # the connection and the inhibitor
    assert not any(os.get_inheritable(descriptor) for descriptor in new)


async def test_it_comes_back_when_the_bus_does(bus, watch, lock, caplog, monkeypatch):
    monkeypatch.setattr(logind, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(logind, "MAX_PAUSE_SECONDS", 0.01)
    watch()
    for count in (1, 2):
        await bus.start_logind()
        async with bus.control() as control:
            await control.until(control.is_held)
            assert await control.inhibitors() == OURS
        bus.end_bus()
        bus.end_logind()
        with trio.fail_after(30):
            while told(caplog, "no system bus") < count:
                await trio.lowlevel.checkpoint()
        bus.start_bus()
    assert told(caplog, "no system bus") == 2
    assert lock.reasons == []


async def test_it_waits_for_a_logind_that_starts_later_or_restarts(bus, watch, lock, caplog):
    watch()
    async with bus.control() as control:
        await control.until(lambda: told(caplog, "there is no logind"))
        for count in (1, 2):
            await bus.start_logind()
            await control.until(control.is_held)
            assert await control.inhibitors() == OURS
            await control.prepare_for_sleep(True)
            await control.until(control.is_free)
            assert lock.finished == [SUSPEND] * count
            bus.end_logind()
            await control.until(lambda count=count: told(caplog, "there is no logind") == count + 1)


async def attempts(lock, logger, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await watch_logind(lock, on_suspend=True, on_screen_lock=True, logger=logger)


def recorded_pauses(monkeypatch) -> list[float]:
    """How long it sleeps between attempts, from now on."""
    pauses: list[float] = []
    sleep = trio.sleep

    async def recorded(seconds):
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(trio, "sleep", recorded)
    return pauses


async def test_after_a_connection_that_lasted_the_pauses_are_short_again(
    lock, logger, monkeypatch, autojump_clock
):
    pauses = recorded_pauses(monkeypatch)

    @asynccontextmanager
    async def lost_after_a_while(address):
        if len(pauses) in (3, 5):
            await trio.sleep_until(trio.current_time() + {3: 59, 5: 61}[len(pauses)])
        raise trio.BrokenResourceError
        yield

    monkeypatch.setattr(logind, "connected", lost_after_a_while)
    await attempts(lock, logger, 200.0)
    assert pauses[:8] == [1, 2, 4, 8, 16, 1, 2, 4]


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "tcp:host=localhost", "nonsense", ";"])
async def test_without_a_bus_it_says_so_once_and_goes_on_trying(
    address, lock, logger, caplog, monkeypatch, autojump_clock
):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    pauses = recorded_pauses(monkeypatch)
    await attempts(lock, logger, 3600.0)
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(pauses) > 50
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert told(caplog, "no system bus: until there is one") == 1


@pytest.mark.parametrize("said", [b"", b"REJECTED EXTERNAL\r\n", b"OK 0123\r\n", None])
async def test_connecting_to_a_broken_bus_is_retried_with_growing_pauses(
    said, tmp_path, lock, logger, caplog, monkeypatch, autojump_clock, open_descriptors
):
    path = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    before = open_descriptors()
    connections = 0

    async def serve(stream):
        nonlocal connections
        connections += 1
        async with stream:
            if said is None:
                await trio.sleep_forever()
            await stream.receive_some()
            await stream.send_all(said)

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(listening)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        await attempts(lock, logger, 600.0)
        nursery.cancel_scope.cancel()
    assert 10 <= connections <= 20
    assert told(caplog, "no system bus") == 1
    assert open_descriptors() == before


async def test_without_jeepney_it_logs_that_and_returns(lock, logger, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "jeepney", None)
    for name in ("logind", "bus_connection"):
        monkeypatch.delitem(sys.modules, f"agentd.locking.{name}", raising=False)
    await watch_logind(lock, on_suspend=True, on_screen_lock=True, logger=logger)
    assert [record.getMessage() for record in caplog.records] == [
        "suspend and screen lock do not lock the agent: jeepney is not installed; "
        f"`{sys.executable} -m pip install jeepney` installs it"
    ]


async def test_with_both_turned_off_it_returns_at_once(lock, logger, caplog):
    await watch_logind(lock, on_suspend=False, on_screen_lock=False, logger=logger)
    assert caplog.records == []


def test_the_agent_does_not_import_jeepney_before_it_watches():
    from subprocess import run

    code = "import sys, agentd.locking; sys.exit('jeepney' in sys.modules)"
    assert run([sys.executable, "-c", code]).returncode == 0
