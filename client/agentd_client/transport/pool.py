"""The connections of one client: exclusive to one call at a time, bounded, and never shared by a fork.

That each call has a connection to itself is what makes giving up simple: whoever times out, is
interrupted or cancelled closes its own connection, and hurts nobody else.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from time import monotonic

from .. import paths
from ..errors import ClientClosedError, LocalParamsError
from .connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.methods import Method
    from .attempts import Attempts

MAX_CONNECTIONS = 16
"""Of one client in one process, so that as many threads call side by side. The agent takes 256 of all its
peers, and 32 of one other user at the verify socket."""

MAX_UID = 2**32 - 2
"""uid_t has 32 bits, and chown(2) gives the last one another meaning."""

LONGEST_TIMEOUT_SECONDS = 24 * 3600


class Turn:
    """A place in the queue for a connection; its descriptor is readable once the turn has come."""

    def __init__(self) -> None:
        self.has_come = False
        self.connection: Connection | None = None
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def come(self, connection: Connection | None) -> None:
        """Give it a connection, or with None the right to open one."""
        self.has_come, self.connection = True, connection
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class Pool:
    """The connections of one client in one process, the idle one last used on top. Any thread may use it.

    Taking an idle connection and giving it back are one pop and one append, which are whole in themselves.
    There is a lock only where more calls are under way than there may be connections: those wait in a queue,
    and what becomes free is handed to the first of them, so that a thread that calls without a pause starves
    no other.
    """

    __slots__ = ("_agent_uid", "_closed", "_idle", "_open", "_path", "_queue_lock", "_room", "_waiting")

    def __init__(self, path: str, agent_uid: int | None = None) -> None:
        self._path = path
        self._agent_uid = agent_uid
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._room = [None] * MAX_CONNECTIONS  # one for each connection that may still be opened
        self._waiting: list[Turn] = []
        self._queue_lock = allocate_lock()
        self._closed = False

    def take_idle(self) -> Connection | None:
        """The idle connection that was used last; None where there is none."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def take(self) -> Connection | None:
        """An idle connection, or a new one; None where all are in use. Raises as `Connection.open` does."""
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
        """Close a connection that is of no use any more."""
        self._open.discard(connection)
        connection.close()
        self._free_room()

    def queue_up(self) -> Turn:
        """Wait for a connection; to be left in any case."""
        turn = Turn()
        with self._queue_lock:
            self._waiting.append(turn)
        self._serve()  # what was given back before it stood in the queue
        return turn

    def take_in_turn(self, turn: Turn) -> Connection | None:
        """The connection of a turn that has come; None where it has not. Raises as `Connection.open` does."""
        with self._queue_lock:
            if not turn.has_come:
                return None
            turn.has_come = False
        return turn.connection or self._opened()

    def leave(self, turn: Turn) -> None:
        """Leave the queue. What the turn was given and did not take is the next one's."""
        with self._queue_lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            is_unused, turn.has_come = turn.has_come, False
        turn.close()
        if is_unused and turn.connection is not None:
            self.give_back(turn.connection)
        elif is_unused:
            self._free_room()

    def close(self) -> None:
        """Close what is idle now; what is in use is closed when its call is over."""
        self._closed = True
        self._drop_idle()

    def close_inherited(self) -> None:
        """In a forked child: let go of all of the parent's connections, which stay usable for the parent."""
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
                self._waiting.pop(0).come(connection)

    def _drop_idle(self) -> None:
        while (connection := self.take_idle()) is not None:
            self.drop(connection)


class ProcessPools:
    """The present process's pool. After fork(2) a client finds an empty one and connects anew.

    Kept by process id, which also holds for a fork made by an extension that runs none of Python's hooks.
    """

    __slots__ = ("_closed", "_pools", "agent_uid", "path")

    def __init__(self, socket_path: str | os.PathLike[str] | None, agent_uid: int | None = None) -> None:
        _check_uid(agent_uid)
        self.agent_uid = agent_uid
        # Absolute from now on: a later chdir must not move the agent.
        self.path = os.path.abspath(paths.socket_path() if socket_path is None else socket_path)
        self._pools: dict[int, Pool] = {}
        self._closed = False

    def here(self) -> Pool:
        """The pool of this process; raises `ClientClosedError` after `close`."""
        if self._closed:
            raise ClientClosedError
        pid = os.getpid()
        return self._pools.get(pid) or self._pool_of(pid)

    def close(self) -> None:
        """Close every connection that is not in use; no call begins from now on."""
        self._closed = True
        pid = os.getpid()
        self._forget_others(pid)
        if pid in self._pools:
            self._pools[pid].close()

    def _pool_of(self, pid: int) -> Pool:
        # Of threads that come here at once, all get the one that was first.
        pool = self._pools.setdefault(pid, Pool(self.path, self.agent_uid))
        self._forget_others(pid)
        return pool

    def _forget_others(self, pid: int) -> None:
        for other in tuple(self._pools):
            if other != pid and (inherited := self._pools.pop(other, None)) is not None:
                inherited.close_inherited()


class Caller:
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
        """The seconds for a whole call; `InvalidParamsError` where it is set to what is no such number."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        _check_seconds("timeout", seconds)
        self._timeout = seconds

    @property
    def patience(self) -> float | None:
        """How many of them may go by waiting for an agent that is not there; None means all."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float | None) -> None:
        if seconds is not None:
            _check_seconds("patience", seconds)
        self._patience = seconds

    def _attempts(
        self, method: Method | None, timeout: float | None = None, began: float | None = None
    ) -> Attempts:
        from .attempts import Attempts  # where something goes wrong, or nobody has called yet

        timeout = self._timeout if timeout is None else timeout
        return Attempts(
            self.socket_path,
            method,
            now=monotonic() if began is None else began,
            timeout=timeout,
            patience=timeout if self._patience is None else self._patience,
        )


def _check_uid(agent_uid: object) -> None:
    # Strictly: what is no user id must not pass for one (True is 1), nor for "my own".
    if agent_uid is not None and (type(agent_uid) is not int or not 0 <= agent_uid <= MAX_UID):
        raise LocalParamsError(f"agent_uid is a user id, a whole number from 0 to {MAX_UID}, or None")


def _check_seconds(name: str, seconds: object) -> None:
    # A NaN fails every comparison; None, "for ever", is no deadline.
    if not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_TIMEOUT_SECONDS:
        raise LocalParamsError(f"{name} is a number of seconds from 0 to {LONGEST_TIMEOUT_SECONDS}")
