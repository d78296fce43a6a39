from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
import trio
import trio.testing

from agentd.keys import PassphraseThrottle, throttle
from agentd_client.errors import PassphraseError, TooManyAttemptsError

RUN_SECONDS = 0.5


async def wrong() -> bool:
    await trio.sleep(RUN_SECONDS)
    raise PassphraseError


async def right() -> bool:
    await trio.sleep(RUN_SECONDS)
    return True


async def refused(queue: PassphraseThrottle, peer: object) -> None:
    with pytest.raises((PassphraseError, TooManyAttemptsError)):
        await queue.attempt(peer, wrong)


async def started(nursery: trio.Nursery, queue: PassphraseThrottle, peer: object, times: int = 1) -> None:
    for _ in range(times):
        nursery.start_soon(refused, queue, peer)
    await trio.testing.wait_all_tasks_blocked()


def test_the_delays():
    assert [throttle.delay_seconds(wrong) for wrong in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert throttle.delay_seconds(10**6) == 30
    assert [throttle.pause_seconds(wrong) for wrong in range(7)] == [0, 0.5, 1, 2, 4, 5, 5]
    assert throttle.pause_seconds(10**6) == 5


async def test_a_peer_waits_longer_after_every_wrong_attempt(autojump_clock):
    queue, gaps = PassphraseThrottle(), []
    for _ in range(8):
        began = trio.current_time()
        await refused(queue, 1)
        gaps.append(trio.current_time() - began - RUN_SECONDS)
    assert gaps == pytest.approx([0, 1, 2, 4, 8, 16, 30, 30])
    assert queue.wrong_attempts == 8


async def test_a_right_attempt_ends_the_delays_of_its_peer_and_tells_of_the_wrong_ones(autojump_clock):
    queue = PassphraseThrottle()
    await refused(queue, 1)
    await refused(queue, 2)
    assert await queue.attempt(1, right)
    assert queue.wrong_attempts == 2
    began = trio.current_time()
    await queue.attempt(1, right)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS)
    await refused(queue, 1)
    began = trio.current_time()
    await queue.attempt(1, right)
    assert trio.current_time() - began == pytest.approx(1 + RUN_SECONDS), "as after the first wrong one"


async def test_a_hundred_attempts_of_one_peer_delay_another_by_one_run_and_the_pause_at_most(autojump_clock):
    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 1, 100)
        assert queue.waiting == throttle.MAX_WAITING_OF_A_PEER
        for _ in range(3):
            began = trio.current_time()
            assert await queue.attempt(2, right)
            assert trio.current_time() - began <= 2 * RUN_SECONDS + throttle.FIRST_PAUSE_SECONDS + 0.001
            await trio.sleep(0.9)
        nursery.cancel_scope.cancel()
    assert queue.waiting == 0


async def test_all_peers_wait_longer_after_every_wrong_attempt(autojump_clock):
    queue, gaps = PassphraseThrottle(), []
    for peer in range(8):
        began = trio.current_time()
        await refused(queue, peer)
        gaps.append(trio.current_time() - began - RUN_SECONDS)
    assert gaps == pytest.approx([0, 0.5, 1, 2, 4, 5, 5, 5])
    assert await queue.attempt(100, right)
    began = trio.current_time()
    await refused(queue, 101)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS), "a right one ends the pauses"
    await trio.sleep(throttle.FORGOTTEN_AFTER_SECONDS)
    began = trio.current_time()
    await refused(queue, 102)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS), "and so does time"


async def guess(queue: PassphraseThrottle, peer: object) -> None:
    """A process that tries wrong passphrases for ever."""
    while True:
        try:
            await queue.attempt(peer, wrong)
        except PassphraseError:
            pass
        except TooManyAttemptsError:
            await trio.sleep(1)


ONE_TURN = RUN_SECONDS + throttle.MAX_PAUSE_SECONDS


@pytest.mark.parametrize("crowd", [1, 7, 70, 100])
@pytest.mark.parametrize("before", [0, 1, 60])
async def test_the_right_passphrase_of_another_process_waits_for_at_most_two_guesses(
    autojump_clock, crowd, before
):
    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        for peer in range(crowd):
            nursery.start_soon(guess, queue, peer)
        await trio.sleep(before)
        await trio.testing.wait_all_tasks_blocked(0.001)
        began = trio.current_time()
        assert await queue.attempt("the right one", right)
        assert trio.current_time() - began <= RUN_SECONDS + 2 * ONE_TURN + 0.1
        nursery.cancel_scope.cancel()


async def test_however_many_processes_guess_they_have_one_attempt_in_five_seconds(autojump_clock):
    """Even if every attempt comes from a new process."""

    async def guess_from_new_processes(me: int) -> None:
        for number in itertools.count():
            with suppress(PassphraseError, TooManyAttemptsError):
                await queue.attempt((me, number), wrong)
            await trio.sleep(1)

    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        for me in range(20):
            nursery.start_soon(guess_from_new_processes, me)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    assert queue.wrong_attempts <= 300 / throttle.MAX_PAUSE_SECONDS


async def test_places_are_kept_for_processes_that_were_never_wrong(autojump_clock):
    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        for peer in range(48):
            await refused(queue, peer)
        for peer in range(48):
            nursery.start_soon(refused, queue, peer)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.waiting <= throttle.MAX_WAITING_AFTER_WRONG
        for peer in range(1000, 1000 + throttle.MAX_WAITING - throttle.MAX_WAITING_AFTER_WRONG):
            nursery.start_soon(queue.attempt, peer, right)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.waiting >= throttle.MAX_WAITING - 1
        nursery.cancel_scope.cancel()


async def test_an_attempt_whose_client_has_gone_is_dropped_unless_it_runs(autojump_clock):
    async def give_up_while_it_runs() -> bool:
        running.cancel()
        return await right()

    queue = PassphraseThrottle()
    running, waiting = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 1)
        dropped: list[str] = []

        async def wait() -> None:
            with pytest.raises(TooManyAttemptsError, match="client has gone"):
                await queue.attempt(2, right, waiting)
            dropped.append("dropped")

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.waiting == 1
        waiting.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (queue.waiting, dropped) == (0, ["dropped"])
    assert await queue.attempt(3, give_up_while_it_runs, running)
    before = trio.CancelScope()
    before.cancel()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 1)
        with pytest.raises(TooManyAttemptsError, match="client has gone"):
            await queue.attempt(4, right, before)


async def test_a_turn_that_comes_as_its_client_goes_is_passed_on(autojump_clock):
    for _ in range(30):  # trio runs the tasks of one moment in any order
        queue = PassphraseThrottle()
        running, going = trio.Event(), trio.CancelScope()

        async def end_as_the_next_client_goes(running=running, going=going) -> bool:
            await running.wait()
            going.cancel()
            return True

        async def go(queue=queue, going=going) -> None:
            with suppress(TooManyAttemptsError):
                await queue.attempt("going", right, going)

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(queue.attempt, "first", end_as_the_next_client_goes)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(go)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(queue.attempt, "staying", right)
                await trio.testing.wait_all_tasks_blocked()
                running.set()


async def test_an_attempt_that_was_not_checked_does_not_count(autojump_clock):
    async def not_looked_at() -> bool:
        return False

    queue = PassphraseThrottle()
    for _ in range(3):
        await refused(queue, 1)
    assert not await queue.attempt(1, not_looked_at)
    began = trio.current_time()
    await refused(queue, 1)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS), (
        "the delay of 4 s was over, and is now 8 s"
    )
    began = trio.current_time()
    await refused(queue, 1)
    assert trio.current_time() - began == pytest.approx(8 + RUN_SECONDS)


async def test_attempts_that_are_right_do_not_keep_another_peer_waiting_either(autojump_clock):
    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        for _ in range(throttle.MAX_WAITING_OF_A_PEER):
            nursery.start_soon(queue.attempt, 1, right)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await queue.attempt(2, right)
        assert trio.current_time() - began == pytest.approx(2 * RUN_SECONDS)


async def test_one_runs_at_a_time(autojump_clock):
    queue, running = PassphraseThrottle(), 0

    async def alone() -> bool:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(RUN_SECONDS)
        running -= 1
        return True

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for peer in range(20):
            nursery.start_soon(queue.attempt, peer % 7, alone)
    assert trio.current_time() - began == pytest.approx(20 * RUN_SECONDS)


async def turns(nursery: trio.Nursery, queue: PassphraseThrottle, peers: str) -> list[str]:
    """Let these peers attempt while another one is busy; who had a turn, in order."""
    had: list[str] = []

    async def attempt(peer: str) -> None:
        await queue.attempt(peer, right)
        had.append(peer)

    for peer in ("busy", *peers):
        nursery.start_soon(attempt, peer)
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep((len(peers) + 2) * RUN_SECONDS)
    return had[1:]


async def test_no_peer_has_two_turns_in_a_row_while_another_waits(autojump_clock, nursery):
    had = await turns(nursery, PassphraseThrottle(), "abaaba")
    assert sorted(had) == sorted("abaaba")
    assert "aa" not in "".join(had)[:4]


@pytest.mark.parametrize("before", [1, 2])
async def test_a_peer_that_was_right_counts_as_new_again(autojump_clock, nursery, before):
    queue = PassphraseThrottle()
    for _ in range(before):  # whichever of the newest and the oldest is next
        await queue.attempt("c", right)
    assert "c" in (await turns(nursery, queue, "aabbc"))[:3]


async def test_a_full_queue_refuses_the_newest_of_the_peer_that_has_the_most(autojump_clock, monkeypatch):
    monkeypatch.setattr(throttle, "MAX_WAITING", 10)
    queue = PassphraseThrottle()
    async with trio.open_nursery() as nursery:
        await started(nursery, queue, 0)  # running; the others wait
        await started(nursery, queue, 1, 8)
        await started(nursery, queue, 2, 2)
        assert queue.waiting == 10
        began = trio.current_time()
        assert await queue.attempt(3, right)
        assert trio.current_time() - began <= 4 * RUN_SECONDS + 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("was_wrong", [False, True])
async def test_a_queue_full_of_single_attempts_gives_a_new_peer_the_place_in_the_middle_once(
    autojump_clock, was_wrong
):
    queue, evicted = PassphraseThrottle(), []
    if was_wrong:  # then its place is given, wherever it is
        await refused(queue, 5)
        await trio.sleep(5)

    async def wait(peer: object) -> None:
        try:
            await queue.attempt(peer, right)
        except TooManyAttemptsError:
            evicted.append(peer)

    async with trio.open_nursery() as nursery:
        for peer in range(throttle.MAX_WAITING + 1):
            nursery.start_soon(wait, peer)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert evicted == [5 if was_wrong else 1 + throttle.MAX_WAITING // 2]
        with pytest.raises(TooManyAttemptsError, match="too many passphrase attempts"):
            await queue.attempt(evicted[0], right)
        nursery.cancel_scope.cancel()


async def test_other_errors_and_cancelled_attempts_do_not_count(autojump_clock):
    async def broken() -> bool:
        raise OSError

    queue = PassphraseThrottle()
    with pytest.raises(OSError):
        await queue.attempt(1, broken)
    with trio.move_on_after(0.1):
        await queue.attempt(1, right)
    began = trio.current_time()
    await queue.attempt(1, right)
    assert trio.current_time() - began == pytest.approx(RUN_SECONDS)
    assert queue.wrong_attempts == 0


async def test_the_memory_of_peers_is_bounded_and_expires(autojump_clock, monkeypatch):
    monkeypatch.setattr(throttle, "MAX_PEERS", 20)
    monkeypatch.setattr(throttle, "MAX_SEEN_PEERS", 30)

    async def at_once() -> bool:
        raise PassphraseError

    queue = PassphraseThrottle()
    for peer in range(40):
        with pytest.raises(PassphraseError):
            await queue.attempt(peer, at_once)
    assert (len(queue._failures), len(queue._seen)) == (20, 30)
    await trio.sleep(throttle.FORGOTTEN_AFTER_SECONDS)
    last = 39
    await refused(queue, last)
    began = trio.current_time()
    await refused(queue, last)
    assert trio.current_time() - began == pytest.approx(1 + RUN_SECONDS)
