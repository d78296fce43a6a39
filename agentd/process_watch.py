"""Watches processes and calls back when they end, by pidfd_open(2)."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable

import trio
from msgspec import Struct

from agentd_client.errors import AgentdError, CannotBindError

from .process_identity import Process, is_alive

MAX_WATCHED = 512
"""Processes watched at a time. Each takes a file descriptor."""

RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
"""The first pause before a failed callback is repeated; it doubles up to the second value."""

_CANNOT_WATCH = "the agent cannot watch that process"


class _Watched(Struct, eq=False):
    fd: int
    pid: int
    is_waited_for: bool = False


class ProcessWatch:
    """Calls back once for every watched process that ends, by a file descriptor for each, pidfd_open(2).

    A key names a watched process, also in the log. For the event loop's thread only.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("agentd.sessions")
        self._watched: dict[str, _Watched] = {}
        self._unreported: dict[str, int] = {}  # the pids of those that ended, until `on_end` succeeds
        self._nursery: trio.Nursery | None = None
        self._on_end: Callable[[str], Awaitable[None]] | None = None

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def keys(self) -> list[str]:
        """The keys of all watched processes."""
        return list(self._watched)

    @property
    def is_full(self) -> bool:
        """Whether it accepts no other key."""
        return len(self._watched) >= MAX_WATCHED

    def watch(self, key: str, process: Process) -> bool:
        """Watch a process, instead of the one that the key may have had; False if it has ended.

        Raises:
            CannotBindError: too many are watched, or this system does not let the agent watch it.
        """
        if key not in self._watched and self.is_full:
            raise CannotBindError(
                f"the agent already watches {MAX_WATCHED} processes, its maximum; end a session bound to one"
            )
        fd = _open_pidfd(process.pid)
        if fd is None:
            return False
        # From here on the descriptor refers to one process. This check shows if another one had got the pid.
        if not is_alive(process) or process.serial not in (None, os.fstat(fd).st_ino):
            os.close(fd)
            return False
        self.forget(key)
        self._unreported.pop(key, None)  # of the key's previous process
        watched = self._watched[key] = _Watched(fd, process.pid)
        if self._nursery is not None:
            self._nursery.start_soon(self._wait, key, watched)
        return True

    def forget(self, key: str) -> None:
        """Stop watching, if it is watched. An end already noticed is still reported."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            if watched.is_waited_for:
                trio.lowlevel.notify_closing(watched.fd)
            os.close(watched.fd)

    def close(self) -> None:
        """Forget every key, and every end that is not reported yet."""
        self._unreported.clear()
        for key in list(self._watched):
            self.forget(key)

    async def run(self, on_end: Callable[[str], Awaitable[None]]) -> None:
        """Call `on_end` with the key of every watched process that ends, each in a task; until cancelled.

        By then the key is forgotten. If `on_end` fails, that is logged and it is called again after a pause.
        Ends not yet reported when this is cancelled are reported by the next run.
        """
        if self._nursery is not None:
            raise RuntimeError("it is already running")
        async with trio.open_nursery() as nursery:
            self._nursery, self._on_end = nursery, on_end
            try:
                for key, watched in self._watched.items():
                    nursery.start_soon(self._wait, key, watched)
                for key in self._unreported:
                    nursery.start_soon(self._report, key)
                await trio.sleep_forever()
            finally:
                self._nursery = self._on_end = None

    async def _wait(self, key: str, watched: _Watched) -> None:
        if self._watched.get(key) is not watched:  # forgotten before this task first ran
            return
        watched.is_waited_for = True
        try:
            await trio.lowlevel.wait_readable(watched.fd)
        except trio.ClosedResourceError:
            return
        finally:
            watched.is_waited_for = False
        if self._watched.get(key) is not watched:  # forgotten before this task ran again
            return
        self.forget(key)
        self._unreported[key] = watched.pid
        await self._report(key)

    async def _report(self, key: str) -> None:
        pid, pause = self._unreported.get(key, 0), RETRY_SECONDS
        while key in self._unreported and self._on_end is not None:
            try:
                await self._on_end(key)
            except Exception as error:
                # Whatever it was, the session must not outlive its process, nor must the other watches end.
                is_expected = isinstance(error, AgentdError)
                self._log.error(
                    "process %d exited; ending its session %s failed, next attempt in %d s: %s",
                    pid,
                    key,
                    pause,
                    error if is_expected else type(error).__name__,
                    exc_info=None if is_expected else error,
                )
                await trio.sleep(pause)
                pause = min(2 * pause, MAX_RETRY_SECONDS)
            else:
                self._unreported.pop(key, None)


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        raise CannotBindError(f"{_CANNOT_WATCH}: this system has no pidfd_open")
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise CannotBindError(
                f"{_CANNOT_WATCH}: it has no file descriptor left; end some sessions"
            ) from error
        raise CannotBindError(f"{_CANNOT_WATCH} (pidfd_open: {error.strerror})") from error
