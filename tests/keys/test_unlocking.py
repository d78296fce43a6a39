from __future__ import annotations

import pytest
import trio
import trio.testing

from agentd.keys import UnlockQueue, unlocking
from agentd_client.errors import PassphraseError, TooManyAttemptsError

RUN_SECONDS = 0.5


async def wrong() -> None:
    await trio.sleep(RUN_SECONDS)
    raise PassphraseError


async def right() -> str:
    await trio.sleep(RUN_SECONDS)
    return "unlocked"


async def refused(queue: UnlockQueue, peer: int) -> None:
    with pytest.raises((PassphraseError, TooManyAttemptsError)):
        await queue.attempt(peer, wrong)


async def started(nursery: trio.Nursery, queue: UnlockQueue, peer: int, times: int = 1) -> None:
    for _ in range(times):
        nursery.start_soon(refused, queue, peer)
    await trio.testing.wait_all_tasks_blocked()


def test_the_delays():
    assert [unlocking.delay_seconds(wrong) for wrong in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert unlocking.delay_seconds(10**6) == 30


async def test_a_peer_waits_longer_after_every_wrong_attempt(autojump_clock):
    queue, gaps = UnlockQueue(), []
    for _ in range(8):
        began = trio.current_time()
        await refused(queue, 1)
        gaps.append(trio.current_time() - began - RUN_SECONDS)
    assert gaps == pytest.approx([0, 1, 2, 4, 8, 16, 30, 30])
    assert queue.wrong_attempts == 8


async def test_a_right_attempt_ends_the_delays_of_its_peer_and_tells_of_the_wrong_ones(autojump_clock):
    queue = UnlockQueue()
    await refused(queue, 1)
    await refused(queue, 2)
    assert await queue.attempt(1, right) == "unlocked"
    assert queue.wrong_attempts == 2
    began = trio.current_time()
    await queue.attempt(1, right)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS)


async def test_a_hundred_attempts_of_one_peer_delay_another_by_one_run_at_most(autojump_clock):
    queue = UnlockQueue()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 1, 100)
        assert queue.waiting == unlocking.MAX_WAITING_OF_A_PEER
        for _ in range(3):
            began = trio.current_time()
            assert await queue.attempt(2, right) == "unlocked"
            assert trio.current_time() - began <= 2 * RUN_SECONDS + 0.001
            await trio.sleep(0.9)
        nursery.cancel_scope.cancel()
    assert queue.waiting == 0


async def test_attempts_that_are_right_do_not_keep_another_peer_waiting_either(autojump_clock):
    queue = UnlockQueue()
    async with trio.open_nursery() as nursery:
        for _ in range(unlocking.MAX_WAITING_OF_A_PEER):
            nursery.start_soon(queue.attempt, 1, right)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await queue.attempt(2, right)
        assert trio.current_time() - began == pytest.approx(2 * RUN_SECONDS)


async def test_one_runs_at_a_time(autojump_clock):
    queue, running = UnlockQueue(), 0

    async def alone() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(RUN_SECONDS)
        running -= 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for peer in range(20):
            nursery.start_soon(queue.attempt, peer % 7, alone)
    assert trio.current_time() - began == pytest.approx(20 * RUN_SECONDS)


async def test_a_full_queue_refuses_the_newest_of_the_peer_that_has_the_most(autojump_clock, monkeypatch):
    monkeypatch.setattr(unlocking, "MAX_WAITING", 10)
    queue = UnlockQueue()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 0)  # it runs, the others wait
        await started(nursery, queue, 1, 8)
        await started(nursery, queue, 2, 2)
        assert queue.waiting == 10
        began = trio.current_time()
        assert await queue.attempt(3, right) == "unlocked"
        assert trio.current_time() - began <= 4 * RUN_SECONDS
        nursery.cancel_scope.cancel()


async def test_a_queue_full_of_single_attempts_refuses_the_next(autojump_clock):
    queue = UnlockQueue()
    async with trio.open_nursery() as nursery:
        for peer in range(unlocking.MAX_WAITING + 1):
            nursery.start_soon(refused, queue, peer)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TooManyAttemptsError, match="too many passphrases wait"):
            await queue.attempt(1000, right)
        nursery.cancel_scope.cancel()
    assert await queue.attempt(1000, right) == "unlocked"


async def test_another_error_counts_for_nothing_and_a_cancelled_attempt_holds_nobody_up(autojump_clock):
    async def broken() -> None:
        raise OSError

    queue = UnlockQueue()
    with pytest.raises(OSError):
        await queue.attempt(1, broken)
    with trio.move_on_after(0.1):
        await queue.attempt(1, right)
    began = trio.current_time()
    await queue.attempt(1, right)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS)
    assert queue.wrong_attempts == 0


async def test_what_is_remembered_of_peers_is_bounded_and_forgotten(autojump_clock):
    async def at_once() -> None:
        raise PassphraseError

    queue = UnlockQueue()
    for peer in range(unlocking.MAX_PEERS + 5):
        with pytest.raises(PassphraseError):
            await queue.attempt(peer, at_once)
    assert len(queue._peers) == unlocking.MAX_PEERS
    await trio.sleep(unlocking.FORGOTTEN_AFTER_SECONDS)
    last = unlocking.MAX_PEERS + 4
    await refused(queue, last)
    began = trio.current_time()
    await refused(queue, last)
    assert trio.current_time() - began == pytest.approx(1 + RUN_SECONDS)
