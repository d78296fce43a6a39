from __future__ import annotations

import errno
import logging
import os
import subprocess
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from agentd import process_identity, process_watch
from agentd.process_identity import Process, identify
from agentd.process_watch import ProcessWatch
from agentd_client.errors import CannotBindError, StoreError
from tests.children import child

LONG_SECONDS = 30  # reached only if something is broken


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with child() as process:
        yield process


@pytest.fixture
def watch() -> Iterator[ProcessWatch]:
    watch = ProcessWatch()
    before = open_files()
    yield watch
    watch.close()
    assert open_files() == before


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(process_watch, "RETRY_SECONDS", 0)


class Reported:
    """Collects the keys whose processes ended, and waits for them."""

    def __init__(self) -> None:
        self.keys: list[object] = []
        self._changed = trio.Event()

    async def __call__(self, key: object) -> None:
        self.keys.append(key)
        self._changed.set()

    async def wait_for(self, *keys: object) -> None:
        with trio.fail_after(LONG_SECONDS):
            while not set(keys) <= set(self.keys):
                self._changed = trio.Event()
                await self._changed.wait()


def open_files() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if is_pidfd(name)]


def is_pidfd(name: str) -> bool:
    try:
        return "pidfd" in os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:  # the folder's own
        return False


def identity(process: subprocess.Popen[bytes]) -> Process:
    found = identify(process.pid)
    assert found is not None
    return found


async def ended_unwaited(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and wait until it is a zombie: it has ended, and its status was not collected."""
    process.kill()
    with trio.fail_after(LONG_SECONDS):
        await trio.to_thread.run_sync(wait_without_taking_its_status, process)


def wait_without_taking_its_status(process: subprocess.Popen[bytes]) -> None:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


# --- watching ---


@pytest.mark.parametrize("is_running_first", [True, False])
async def test_the_end_of_a_process_is_reported_once(watch, running, nursery, is_running_first):
    reported = Reported()
    if is_running_first:
        nursery.start_soon(watch.run, reported)
        await trio.testing.wait_all_tasks_blocked()
    with child() as other:
        assert watch.watch("one", identity(running))
        assert watch.watch("other", identity(other))
        if not is_running_first:
            nursery.start_soon(watch.run, reported)
        await trio.testing.wait_all_tasks_blocked()
        assert reported.keys == []
        running.kill()
        await reported.wait_for("one")
        assert reported.keys == ["one"]
        assert len(watch) == len(open_files()) == 1
    await reported.wait_for("other")
    assert reported.keys == ["one", "other"]


async def test_a_process_may_end_before_the_watch_runs(watch, running, nursery):
    reported = Reported()
    watch.watch("key", identity(running))
    running.kill()
    running.wait()
    nursery.start_soon(watch.run, reported)
    await reported.wait_for("key")


async def test_two_keys_of_one_process_are_both_reported(watch, running, nursery):
    reported = Reported()
    nursery.start_soon(watch.run, reported)
    assert [watch.watch(key, identity(running)) for key in "ab"] == [True, True]
    running.kill()
    await reported.wait_for("a", "b")
    assert sorted(reported.keys) == ["a", "b"]


async def test_an_ended_or_different_process_is_not_watched(watch, running):
    found = identity(running)
    assert not watch.watch("reused", found._replace(started=found.started - 1))
    await ended_unwaited(running)
    assert not watch.watch("zombie", found)
    running.wait()
    assert not watch.watch("gone", found)
    assert len(watch) == 0
    assert open_files() == []


async def test_a_forgotten_key_is_not_reported_and_its_descriptor_is_closed(watch, running, nursery):
    reported = Reported()
    nursery.start_soon(watch.run, reported)
    watch.watch("waited for", identity(running))
    watch.watch("kept", identity(running))
    await trio.testing.wait_all_tasks_blocked()
    watch.watch("not yet waited for", identity(running))
    for key in ("waited for", "not yet waited for", "waited for", "never known"):
        watch.forget(key)
    assert len(watch) == len(open_files()) == 1
    running.kill()
    await reported.wait_for("kept")
    await trio.testing.wait_all_tasks_blocked()
    assert reported.keys == ["kept"]


async def test_a_reused_descriptor_is_not_mistaken_for_the_previous_one(watch, running, nursery):
    reported = Reported()
    nursery.start_soon(watch.run, reported)
    with child() as other:
        watch.watch("before", identity(running))
        await trio.testing.wait_all_tasks_blocked()
        fd = watch._watched["before"].fd
        watch.forget("before")
        watch.watch("after", identity(other))
        assert watch._watched["after"].fd == fd  # otherwise this tests nothing
        running.kill()
        running.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert reported.keys == []
    await reported.wait_for("after")
    assert reported.keys == ["after"]


async def test_forgetting_a_key_whose_end_is_not_reported_yet(watch, running, nursery):
    reported, other = Reported(), {"a": "b", "b": "a"}

    async def ended(key):
        watch.forget(other[key])  # whose task was woken at the same time and has not run yet
        await reported(key)

    nursery.start_soon(watch.run, ended)
    for key in other:
        watch.watch(key, identity(running))
    await trio.testing.wait_all_tasks_blocked()
    running.kill()
    wait_without_taking_its_status(running)  # on this thread, so both are noticed at once
    with trio.fail_after(LONG_SECONDS):
        while not reported.keys:
            await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    assert len(reported.keys) == 1


async def test_a_key_that_is_watched_again_follows_the_new_process(watch, running, nursery):
    reported = Reported()
    nursery.start_soon(watch.run, reported)
    with child() as other:
        watch.watch("key", identity(running))
        await trio.testing.wait_all_tasks_blocked()
        watch.watch("key", identity(other))
        assert len(open_files()) == 1
        running.kill()
        running.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert reported.keys == []
    await reported.wait_for("key")


async def test_cancelled_it_leaves_every_watch_for_the_next_run(watch, running):
    reported = Reported()
    watch.watch("key", identity(running))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, reported)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError):
            await watch.run(reported)  # only one run at a time
        nursery.cancel_scope.cancel()
    assert len(watch) == len(open_files()) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, reported)
        running.kill()
        await reported.wait_for("key")
        nursery.cancel_scope.cancel()


async def test_forgetting_while_it_is_being_cancelled(watch, running):
    watch.watch("key", identity(running))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, Reported())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        watch.forget("key")  # the task that waits for it has not run yet
    assert open_files() == []


# --- where telling fails ---


@pytest.mark.parametrize("error", [StoreError("the store failed"), ValueError("a slip")])
async def test_a_failed_report_is_repeated_and_does_not_affect_others(
    watch, running, nursery, no_pause, caplog, error
):
    reported, failures = Reported(), [error, error]

    async def ended(key):
        if key == "failing" and failures:
            watch.forget(key)  # as the callback may, before it fails
            raise failures.pop()
        await reported(key)

    nursery.start_soon(watch.run, ended)
    with child() as other, caplog.at_level(logging.ERROR, "agentd.sessions"):
        watch.watch("failing", identity(running))
        watch.watch("other", identity(other))
        running.kill()
        await reported.wait_for("failing")
        other.kill()
        await reported.wait_for("other")
    assert [bool(record.exc_info) for record in caplog.records] == [isinstance(error, ValueError)] * 2
    assert str(running.pid) in caplog.text


async def test_ends_not_reported_before_cancellation_are_reported_by_the_next_run(watch, running):
    reported, has_failed = Reported(), trio.Event()

    async def fails(key):
        has_failed.set()
        raise StoreError

    watch.watch("key", identity(running))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, fails)
        running.kill()
        with trio.fail_after(LONG_SECONDS):
            await has_failed.wait()
        nursery.cancel_scope.cancel()
    assert len(watch) == len(open_files()) == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, reported)
        await reported.wait_for("key")
        nursery.cancel_scope.cancel()
    assert reported.keys == ["key"]


async def test_pauses_grow_up_to_a_limit(watch, running, monkeypatch):
    pauses: list[float] = []

    async def fails(key):
        if len(pauses) == 8:
            await trio.sleep_forever()
        raise StoreError

    async def sleep(seconds):
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio, "sleep", sleep)
    watch.watch("key", identity(running))
    running.kill()
    with trio.fail_after(LONG_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run, fails)
            while len(pauses) < 8:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


# --- what cannot be watched ---


async def test_the_number_is_limited_and_forgetting_makes_room(watch, running, monkeypatch):
    monkeypatch.setattr(process_watch, "MAX_WATCHED", 3)
    found = identity(running)
    for number in range(3):
        assert watch.watch(number, found)
    with pytest.raises(CannotBindError, match="3 processes"):
        watch.watch("one more", found)
    assert watch.watch(0, found)  # instead of the previous one
    assert len(watch) == len(open_files()) == 3
    watch.forget(1)
    assert watch.watch("one more", found)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSYS, "Function not implemented"),
        (errno.EPERM, "not permitted"),
        (errno.EMFILE, "no file descriptor"),
    ],
)
async def test_a_refusal_of_the_kernel_is_an_error(watch, running, monkeypatch, number, sentence):
    def refuse(pid, flags=0):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(CannotBindError, match=sentence):
        watch.watch("key", identity(running))
    assert len(watch) == 0


async def test_a_python_without_pidfd_open_is_an_error(watch, running, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(CannotBindError, match="no pidfd_open"):
        watch.watch("key", identity(running))


async def test_a_pid_reused_between_the_two_checks_is_not_watched(watch, running, monkeypatch):
    found = identity(running)
    with child() as other:
        real = os.pidfd_open
        # The descriptor is of another process, and /proc shows that process under the pid.
        monkeypatch.setattr(os, "pidfd_open", lambda pid: real(other.pid))
        monkeypatch.setattr(process_identity, "identify", lambda pid: identity_after(found))
        assert not watch.watch("key", found)
        assert open_files() == []


def identity_after(process: Process) -> Process:
    return process._replace(started=process.started + 1)
