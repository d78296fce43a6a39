"""The connections of one client: bounded in number, one call at a time each, not shared across a fork.

A call that times out, is interrupted or is cancelled closes its own connection and affects no other.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from time import monotonic

from .. import paths
from ..errors import ClientClosedError, LocalParamsError
from .connection import MAX_CONNECTIONS, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..protocol.methods import Method
    from .repeating import Attempts

MAX_UID = 2**32 - 2
"""uid_t has 32 bits, and chown(2) gives the last one another meaning."""

LONGEST_TIMEOUT_SECONDS = 24 * 3600


class Waiter:
    """A place in the queue for a connection; its descriptor becomes readable when it is served."""

    def __init__(self) -> None:
        self.is_served = False
        self.connection: Connection | None = None
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def serve(self, connection: Connection | None) -> None:
        """Give it a connection, or with None the permission to open one."""
        self.is_served, self.connection = True, connection
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class Pool:
    """The connections of one client in one process, the last used idle one on top. Thread-safe.

    Taking an idle connection and giving it back are one pop and one append, which are atomic. A lock is only
    needed when there are more calls than connections: those calls wait in a queue, and a connection that
    becomes free goes to the first of them, so that a thread that calls without a pause cannot starve others.
    """

    __slots__ = ("_agent_uid", "_closed", "_idle", "_open", "_path", "_queue_lock", "_room", "_waiting")

    def __init__(self, path: str, agent_uid: int | None = None) -> None:
        self._path = path
        self._agent_uid = agent_uid
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._room = [None] * MAX_CONNECTIONS  # one item per connection that may still be opened
        self._waiting: list[Waiter] = []
        self._queue_lock = allocate_lock()
        self._closed = False

    def take_idle(self) -> Connection | None:
        """The idle connection that was used last, if any."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def take(self) -> Connection | None:
        """An idle connection, or a new one; None if all are in use. Raises as `Connection.open` does."""
        connection = self.take_idle()
        if connection is not None:
            return connection
        try:
            self._room.pop()
        except IndexError:
            return None
        return self._opened()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last call was answered."""
        connection.reused = True
        self._idle.append(connection)
        if self._waiting:
            self._serve()
        if self._closed:
            self._drop_idle()

    def drop(self, connection: Connection) -> None:
        """Close a connection that cannot be reused."""
        self._open.discard(connection)
        connection.close()
        self._free_room()

    def queue_up(self) -> Waiter:
        """Enter the queue for a connection; call `leave` in any case."""
        waiter = Waiter()
        with self._queue_lock:
            self._waiting.append(waiter)
        self._serve()  # a connection may have been given back just before
        return waiter

    def take_served(self, waiter: Waiter) -> Connection | None:
        """The connection of a waiter that was served, else None. Raises as `Connection.open` does."""
        with self._queue_lock:
            if not waiter.is_served:
                return None
            waiter.is_served = False
        return waiter.connection or self._opened()

    def leave(self, waiter: Waiter) -> None:
        """Leave the queue. A connection that the waiter was given and did not take goes to the next one."""
        with self._queue_lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            is_unused, waiter.is_served = waiter.is_served, False
        waiter.close()
        if is_unused and waiter.connection is not None:
            self.give_back(waiter.connection)
        elif is_unused:
            self._free_room()

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their calls end."""
        self._closed = True
        self._drop_idle()

    def close_inherited(self) -> None:
        """In a forked child: close the parent's connections here; they stay usable in the parent."""
        for connection in tuple(self._open):
            connection.close()

    def _opened(self) -> Connection:
        try:
            connection = Connection.open(self._path, agent_uid=self._agent_uid)
        except BaseException:
            self._free_room()
            raise
        self._open.add(connection)
        return connection

    def _free_room(self) -> None:
        self._room.append(None)
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        with self._queue_lock:
            while self._waiting:
                connection = self.take_idle()
                if connection is None:
                    try:
                        self._room.pop()
                    except IndexError:
                        return
                self._waiting.pop(0).serve(connection)

    def _drop_idle(self) -> None:
        while (connection := self.take_idle()) is not None:
            self.drop(connection)


class ProcessPools:
    """The pool of the present process. After fork(2) a client gets an empty one and connects again.

    Keyed by process id, which also works for a fork by an extension that does not run Python's hooks.
    """

    __slots__ = ("_closed", "_folder", "_path", "_pools", "agent_uid")

    def __init__(self, socket_path: str | os.PathLike[str] | None, agent_uid: int | None = None) -> None:
        _check_uid(agent_uid)
        self.agent_uid = agent_uid
        # Absolute from now on: a later chdir must not move the agent.
        self._folder = _current_folder()
        self._path = None if socket_path is None else os.path.abspath(socket_path)
        self._pools: dict[int, Pool] = {}
        self._closed = False

    @property
    def path(self) -> str:
        """Where the agent is; without a path, the environment says so when this is first read.

        A server's guard is often made when a module is imported, and its tests set the environment later.
        """
        if self._path is None:
            self._path = os.path.normpath(os.path.join(self._folder, paths.socket_path()))
        return self._path

    def here(self) -> Pool:
        """The pool of this process; raises `ClientClosedError` after `close`."""
        if self._closed:
            raise ClientClosedError
        pid = os.getpid()
        return self._pools.get(pid) or self._pool_of(pid)

    def close(self) -> None:
        """Close every idle connection; no call can begin from now on."""
        self._closed = True
        pid = os.getpid()
        self._forget_others(pid)
        if pid in self._pools:
            self._pools[pid].close()

    def _pool_of(self, pid: int) -> Pool:
        # If several threads come here at once, setdefault gives all of them the same pool.
        pool = self._pools.setdefault(pid, Pool(self.path, self.agent_uid))
        self._forget_others(pid)
        return pool

    def _forget_others(self, pid: int) -> None:
        for other in tuple(self._pools):
            if other != pid and (inherited := self._pools.pop(other, None)) is not None:
                inherited.close_inherited()


class ClientBase:
    """What both clients have in common: connections, and the time that a call may take."""

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None,
        timeout: float,
        patience: float | None,
        agent_uid: int | None = None,
    ) -> None:
        self.timeout = timeout
        self.patience = patience
        self._pools = ProcessPools(socket_path, agent_uid)

    @property
    def socket_path(self) -> str:
        """Where the agent is."""
        return self._pools.path

    @property
    def timeout(self) -> float:
        """The seconds for a whole call; `InvalidParamsError` if it is set to something else."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        _check_seconds("timeout", seconds)
        self._timeout = seconds

    @property
    def patience(self) -> float | None:
        """How many of them to wait for an agent that is not there; None means all."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float | None) -> None:
        if seconds is not None:
            _check_seconds("patience", seconds)
        self._patience = seconds

    def _attempts(
        self, method: Method[Any] | None, timeout: float | None = None, began: float | None = None
    ) -> Attempts:
        from .repeating import Attempts  # only needed to connect, or when something goes wrong

        return Attempts(
            self.socket_path,
            method,
            now=monotonic() if began is None else began,
            timeout=self._timeout if timeout is None else timeout,
            patience=self._patience,
        )


def _current_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed; only relative paths need it
        return "/"


def _check_uid(agent_uid: object) -> None:
    # Strict: True must not count as user 1, nor anything else as this process's own user.
    if agent_uid is not None and (type(agent_uid) is not int or not 0 <= agent_uid <= MAX_UID):
        raise LocalParamsError(f"agent_uid is a user id, a whole number from 0 to {MAX_UID}, or None")


def _check_seconds(name: str, seconds: object) -> None:
    # NaN fails every comparison. None, for ever, is not a deadline.
    if not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_TIMEOUT_SECONDS:
        raise LocalParamsError(f"{name} is a number of seconds from 0 to {LONGEST_TIMEOUT_SECONDS}")
