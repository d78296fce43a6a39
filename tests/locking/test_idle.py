from __future__ import annotations

import time

import pytest
import trio

from agentd.locking import IDLE, IdleTimer
from agentd.locking.triggers import CHECK_SECONDS


@pytest.fixture
def clock():
    """Seconds since boot: those of trio's autojump clock plus those that the machine was suspended."""

    class Clock:
        suspended = 0.0

        def __call__(self) -> float:
            return trio.current_time() + self.suspended

    return Clock()


@pytest.fixture
def locked_at(clock):
    return []


@pytest.fixture
def running(clock, locked_at, nursery):
    def begin(seconds):
        timer = IdleTimer(seconds, now=clock)
        began = trio.current_time()

        async def lock(reason):
            assert reason == IDLE
            locked_at.append(pytest.approx(trio.current_time() - began, abs=0.01))

        nursery.start_soon(timer.run, lock)
        return timer

    return begin


@pytest.mark.parametrize("seconds", [0.5, 10, 100, 3600])
async def test_an_unused_agent_is_locked_when_its_time_is_up(autojump_clock, running, locked_at, seconds):
    running(seconds)
    await trio.sleep(seconds - 0.1)
    assert locked_at == []
    await trio.sleep(10 * seconds)
    assert locked_at == [seconds]


async def test_every_use_restarts_the_time(autojump_clock, running, locked_at):
    timer = running(100)
    for _ in range(5):
        await trio.sleep(90)
        timer.touch()
    await trio.sleep(1000)
    assert locked_at == [550]


async def test_locked_once_it_waits_for_the_next_use(autojump_clock, running, locked_at):
    timer = running(100)
    await trio.sleep(1000)
    timer.touch()
    timer.touch()
    await trio.sleep(1000)
    timer.touch()
    await trio.sleep(50)
    timer.touch()
    await trio.sleep(1000)
    assert locked_at == [100, 1100, 2150]


async def test_a_use_while_it_is_being_locked_counts(autojump_clock, clock, locked_at, nursery):
    timer = IdleTimer(100, now=clock)

    async def lock(reason):
        locked_at.append(clock())
        if len(locked_at) == 1:
            timer.touch()
        await trio.sleep(1)

    began = clock()
    nursery.start_soon(timer.run, lock)
    await trio.sleep(1000)
    assert [at - began for at in locked_at] == pytest.approx([100, 200], abs=0.01)


async def test_suspended_time_counts(autojump_clock, running, locked_at, clock):
    running(3600)
    await trio.sleep(60)
    clock.suspended += 8 * 3600
    await trio.sleep(CHECK_SECONDS + 1)
    assert len(locked_at) == 1


async def test_the_time_begins_when_it_runs(autojump_clock, clock, locked_at, nursery):
    timer = IdleTimer(100, now=clock)
    await trio.sleep(1000)

    async def lock(reason):
        locked_at.append(clock())

    began = clock()
    nursery.start_soon(timer.run, lock)
    await trio.sleep(1000)
    assert [at - began for at in locked_at] == pytest.approx([100], abs=0.01)


async def test_never_is_never(autojump_clock, clock):
    timer = IdleTimer(None, now=clock)
    timer.touch()
    with trio.fail_after(1):
        await timer.run(None)


async def test_errors_of_locking_are_raised(autojump_clock, clock):
    async def lock(reason):
        raise OSError

    with pytest.raises(OSError):
        await IdleTimer(1, now=clock).run(lock)


def test_its_own_clock_is_the_one_that_counts_suspended_time(monkeypatch):
    read = []
    monkeypatch.setattr(time, "clock_gettime", lambda clock: read.append(clock) or 0.0)
    IdleTimer(1).touch()
    assert set(read) == {time.CLOCK_BOOTTIME}
