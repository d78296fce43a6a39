"""One peer's share of the event loop, counted in turns of the loop: no test here measures time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.server.connection import BUSY_READ_BYTES, SLICE_SECONDS, Turn, Turns
from agentd.server.dispatch import FairQueue
from agentd_client.protocol.limits import MAX_IN_FLIGHT, READ_BYTES
from tests.server.talk import connected, create, msgids, request, verify


class Clock:
    """Goes on by a part of a slice whenever a message is done."""

    def __init__(self, seconds: float) -> None:
        self.now, self._seconds = 0.0, seconds

    def __call__(self) -> float:
        self.now += self._seconds
        return self.now


@asynccontextmanager
async def place(queue: FairQueue, process: str | int) -> AsyncIterator[None]:
    await queue.take(process)
    try:
        yield
    finally:
        queue.give_back()


async def test_a_place_goes_to_the_processes_in_turn_and_within_one_to_the_oldest():
    queue, order = FairQueue(1), []

    async def ask(process: str, number: int) -> None:
        async with place(queue, process):
            order.append((process, number))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, place(queue, "holder"):
        for process, number in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("c", 1)]:
            nursery.start_soon(ask, process, number)
            await wait_all_tasks_blocked()
        assert (queue.taken, queue.waiting) == (1, 6)
    assert order == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert (queue.taken, queue.waiting) == (0, 0)


async def test_no_more_have_a_place_than_there_are():
    queue, most = FairQueue(3), 0

    async def ask(process: int) -> None:
        nonlocal most
        async with place(queue, process):
            most = max(most, queue.taken)
            assert queue.taken <= 3
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for process in range(20):
            nursery.start_soon(ask, process)
    assert (most, queue.taken) == (3, 0)


@pytest.mark.parametrize("when", ["waiting", "handed over"])
async def test_whoever_gives_up_loses_no_place(when):
    queue = FairQueue(1)
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            async with place(queue, "impatient"):
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with place(queue, "holder"):
            nursery.start_soon(give_up)
            await wait_all_tasks_blocked()
            if when == "waiting":
                scope.cancel()
                await wait_all_tasks_blocked()
                assert queue.waiting == 0
        scope.cancel()
        async with place(queue, "next"):
            pass
    assert (queue.taken, queue.waiting) == (0, 0)


async def test_in_one_turn_of_the_loop_one_of_the_busy_connections_has_a_slice():
    turns, loop = Turns(clock=lambda: 0.0), 0
    slices: list[int] = []

    async def busy(process: int) -> None:
        turn = Turn(turns, process)
        for _ in range(5):
            turn.leave()
            await turn.resume()
            slices.append(loop)
        turn.end(READ_BYTES)

    async def count_turns() -> None:
        nonlocal loop
        while len(slices) < 100:
            loop += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        for process in range(20):
            nursery.start_soon(busy, process)
    assert len(slices) == 100
    # The counting task and a busy one have their steps in either order within a turn.
    assert max(slices.count(number) for number in slices) <= 2
    assert slices[-1] - slices[0] >= 95


async def test_a_connection_is_busy_until_it_has_caught_up_with_its_peer():
    turn = Turn(Turns(clock=lambda: 0.0), 1)
    turn.end(READ_BYTES)
    assert (turn.is_busy, turn.read_bytes) == (False, READ_BYTES), (
        "a whole read within its slice is no matter"
    )
    turn.leave()
    await turn.resume()
    turn.end(READ_BYTES)
    assert (turn.is_busy, turn.read_bytes) == (True, BUSY_READ_BYTES)
    await turn.resume()
    turn.end(BUSY_READ_BYTES)
    assert (turn.is_busy, turn.read_bytes) == (True, BUSY_READ_BYTES), "the peer has sent more already"
    await turn.resume()
    turn.end(BUSY_READ_BYTES - 1)
    assert (turn.is_busy, turn.read_bytes) == (False, READ_BYTES)


@pytest.mark.parametrize(
    "message",
    [
        msgpack.packb([2, "", []]),
        request(1, "hello"),
        verify(1),
        request(1, "nonsense"),
        b"\x94\x00\x01\x01\x90",
    ],
    ids=["notification", "hello", "verifyToken", "unknown method", "refused request"],
)
async def test_a_slice_ends_by_time_whatever_the_messages_are(sessions, message):
    turns = Turns(clock=Clock(SLICE_SECONDS / 4))
    slices, take = 0, turns.busy.take

    async def counted(process: object) -> None:
        nonlocal slices
        slices += 1
        await take(process)

    turns.busy.take = counted
    async with connected(sessions, loop_turns=turns) as (talker, _):
        await talker.send(message * 100, verify(2))
        while msgids(await talker.replies(1)) != [2]:
            pass
    assert 100 // 5 <= slices <= 100 // 2
    assert turns.busy.taken == 0


async def test_the_others_have_a_turn_after_so_many_replies_also_within_a_slice(sessions):
    class LoopTurns(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    loop, answered_in = LoopTurns(), []
    verify_nowait = sessions.verify_nowait

    def noticed(*args, **named):
        answered_in.append(loop.count)
        return verify_nowait(*args, **named)

    sessions.verify_nowait = noticed
    trio.lowlevel.add_instrument(loop)
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1) * (2 * MAX_IN_FLIGHT + 1))
        await talker.replies(2 * MAX_IN_FLIGHT + 1)
    trio.lowlevel.remove_instrument(loop)
    assert [len([*turn]) for _, turn in groupby(answered_in)] == [MAX_IN_FLIGHT, MAX_IN_FLIGHT, 1]


async def test_a_connection_that_ends_in_the_middle_of_its_slice_holds_up_nobody(sessions):
    turns = Turns(clock=Clock(SLICE_SECONDS))
    async with connected(sessions, loop_turns=turns) as (talker, _):
        await talker.send(verify(1) * 20, b"\xc1")
        await talker.everything()
    async with connected(sessions, loop_turns=turns) as (talker, _):
        await talker.send(verify(1) * 20)
        assert len(await talker.replies(20)) == 20
    assert turns.busy.taken == 0


async def test_requests_in_work_up_to_the_limit_hold_no_place(sessions):
    """Whoever waits for its own requests keeps nobody else from going on."""
    gates = [sessions.gate(str(number)) for number in range(MAX_IN_FLIGHT)]
    turns = Turns(clock=Clock(SLICE_SECONDS))
    async with connected(sessions, loop_turns=turns) as (talker, _):
        await talker.send(*(create(number, str(number)) for number in range(MAX_IN_FLIGHT + 1)))
        await wait_all_tasks_blocked()
        assert turns.busy.taken == 0
        async with connected(sessions, loop_turns=turns) as (other, _):
            await other.send(verify(1) * 20)
            assert len(await other.replies(20)) == 20
        for gate in gates:
            gate.set()
        assert len(await talker.replies(MAX_IN_FLIGHT + 1)) == MAX_IN_FLIGHT + 1
