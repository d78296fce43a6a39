"""Processes that sessions are bound to: being told when one ends."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Hashable

import trio

from agentd_client.errors import AgentdError, CannotBindError

from ..process_identity import Process, is_alive

MAX_WATCHED = 512
"""Processes that are watched at a time. Each takes a file descriptor; with as many connections as there may
be they stay below 1,024."""

RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
"""The pause after which the end of a process is told once more; it doubles up to the second one."""

_SENTENCE = "the agent cannot watch that process"


class _Watched:
    __slots__ = ("fd", "is_waited_for", "pid")

    def __init__(self, fd: int, pid: int) -> None:
        self.fd = fd
        self.pid = pid
        self.is_waited_for = False


class ProcessWatch:
    """Tells of every watched process that ends, once: by a file descriptor for each, pidfd_open(2).

    A key is whatever the owner tells one watched process from another by; it is shown in the log. For the
    event loop's thread only.

    Args:
        logger: where to say that the end of a process could not be told.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("agentd.sessions")
        self._watched: dict[Hashable, _Watched] = {}
        self._untold: dict[Hashable, int] = {}  # the pids of those that ended and of which nobody knows yet
        self._nursery: trio.Nursery | None = None
        self._ended: Callable[[Hashable], Awaitable[None]] | None = None

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def keys(self) -> list[Hashable]:
        """Those that a process is watched for."""
        return list(self._watched)

    @property
    def is_full(self) -> bool:
        """Whether it takes no other key."""
        return len(self._watched) >= MAX_WATCHED

    def watch(self, key: Hashable, process: Process) -> bool:
        """Watch a process for a key, instead of the one that the key may have had; False where it has ended.

        Raises:
            CannotBindError: too many are watched, or this system does not let the agent watch it.
        """
        if key not in self._watched and self.is_full:
            raise CannotBindError(
                f"the agent watches {MAX_WATCHED} processes, and no more; end a session that is bound to one"
            )
        fd = _open(process.pid)
        if fd is None:
            return False
        # From here on the descriptor means one process. If the pid had passed to another, this shows it.
        if not is_alive(process) or process.serial not in (None, os.fstat(fd).st_ino):
            os.close(fd)
            return False
        self.forget(key)
        self._untold.pop(key, None)  # of the process that it had before
        watched = self._watched[key] = _Watched(fd, process.pid)
        if self._nursery is not None:
            self._nursery.start_soon(self._wait, key, watched)
        return True

    def forget(self, key: Hashable) -> None:
        """Watch no longer for a key, if it is watched. An end that was seen before is told all the same."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            if watched.is_waited_for:
                trio.lowlevel.notify_closing(watched.fd)
            os.close(watched.fd)

    def close(self) -> None:
        """Forget every key, and what is still to be told."""
        self._untold.clear()
        for key in list(self._watched):
            self.forget(key)

    async def run(self, ended: Callable[[Hashable], Awaitable[None]]) -> None:
        """Call `ended` with the key of every watched process that ends, each in a task; until cancelled.

        By then the key is forgotten. An exception of `ended` is logged, and it is called again after a pause.
        What was not told when this is cancelled is told by the next run.
        """
        if self._nursery is not None:
            raise RuntimeError("it runs already")
        async with trio.open_nursery() as nursery:
            self._nursery, self._ended = nursery, ended
            try:
                for key, watched in self._watched.items():
                    nursery.start_soon(self._wait, key, watched)
                for key in self._untold:
                    nursery.start_soon(self._tell, key)
                await trio.sleep_forever()
            finally:
                self._nursery = self._ended = None

    async def _wait(self, key: Hashable, watched: _Watched) -> None:
        if self._watched.get(key) is not watched:  # forgotten before this task had its first turn
            return
        watched.is_waited_for = True
        try:
            await trio.lowlevel.wait_readable(watched.fd)
        except trio.ClosedResourceError:
            return
        finally:
            watched.is_waited_for = False
        if self._watched.get(key) is not watched:  # forgotten while this task waited for its turn
            return
        self.forget(key)
        self._untold[key] = watched.pid
        await self._tell(key)

    async def _tell(self, key: Hashable) -> None:
        pid, pause = self._untold.get(key, 0), RETRY_SECONDS
        while key in self._untold and self._ended is not None:
            try:
                await self._ended(key)
            except Exception as error:
                # Whatever it was, the session must not live on because of it, nor must the other watches end.
                told = None if isinstance(error, AgentdError) else error
                self._log.error(
                    "process %d ended, but not yet what is bound to it (%s), tried again in %d s: %s",
                    pid,
                    key,
                    pause,
                    error if told is None else type(error).__name__,
                    exc_info=told,
                )
                await trio.sleep(pause)
                pause = min(2 * pause, MAX_RETRY_SECONDS)
            else:
                self._untold.pop(key, None)


def _open(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        raise CannotBindError(f"{_SENTENCE}: this system has no pidfd_open")
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise CannotBindError(
                f"{_SENTENCE}: it has no file descriptor left; close some sessions"
            ) from error
        raise CannotBindError(f"{_SENTENCE} (pidfd_open: {error.strerror})") from error
