"""The connections of one client: exclusive to one call at a time, bounded, and never shared by a fork.

That each call has a connection to itself is what makes giving up simple: whoever times out, is
interrupted or cancelled closes its own connection, and hurts nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from . import paths
from .connection import Connection
from .errors import ClientClosedError
from .protocol.calls import LocalParamsError

MAX_CONNECTIONS = 8
"""Of one client in one process. The agent takes 256 of all its peers, and two cores are busy with eight."""

MAX_UID = 2**32 - 2
"""uid_t has 32 bits, and chown(2) gives the last one another meaning."""

SlotsT = TypeVar("SlotsT")


class Pool(Generic[SlotsT]):
    """The connections of one client in one process, the idle one last used on top. Any thread may use it.

    No lock of its own: each step is one append, pop, add or discard, which are whole in themselves. `slots`
    is the client's semaphore, which bounds how many connections there are.
    """

    def __init__(self, path: str, slots: SlotsT, agent_uid: int | None = None) -> None:
        self.slots = slots
        self._path = path
        self._agent_uid = agent_uid
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._closed = False

    def take(self) -> Connection:
        """An idle connection, or a new one; raises as `Connection.open` does."""
        try:
            return self._idle.pop()
        except IndexError:
            connection = Connection.open(self._path, agent_uid=self._agent_uid)
            self._open.add(connection)
            return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last call was answered."""
        connection.reused = True
        self._idle.append(connection)
        if self._closed:
            self._drop_idle()

    def drop(self, connection: Connection) -> None:
        """Close a connection that is of no use any more."""
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close what is idle now; what is in use is closed when its call is over."""
        self._closed = True
        self._drop_idle()

    def close_inherited(self) -> None:
        """In a forked child: let go of all of the parent's connections, which stay usable for the parent."""
        for connection in tuple(self._open):
            self.drop(connection)

    def _drop_idle(self) -> None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self.drop(connection)


class ProcessPools(Generic[SlotsT]):
    """The present process's pool. After fork(2) a client finds an empty one and connects anew.

    Kept by process id, which also holds for a fork made by an extension that runs none of Python's hooks.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None,
        make_slots: Callable[[int], SlotsT],
        agent_uid: int | None = None,
    ) -> None:
        _check_uid(agent_uid)
        self.agent_uid = agent_uid
        # Absolute from now on: a later chdir must not move the agent.
        self.path = os.path.abspath(paths.socket_path() if socket_path is None else socket_path)
        self._make_slots = make_slots
        self._pools: dict[int, Pool[SlotsT]] = {}
        self._closed = False

    def here(self) -> Pool[SlotsT]:
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

    def _pool_of(self, pid: int) -> Pool[SlotsT]:
        # Of threads that come here at once, all get the one that was first.
        made = Pool(self.path, self._make_slots(MAX_CONNECTIONS), self.agent_uid)
        pool = self._pools.setdefault(pid, made)
        self._forget_others(pid)
        return pool

    def _forget_others(self, pid: int) -> None:
        for other in tuple(self._pools):
            if other != pid and (inherited := self._pools.pop(other, None)) is not None:
                inherited.close_inherited()


def _check_uid(agent_uid: object) -> None:
    # Strictly: what is no user id must not pass for one (True is 1), nor for "my own".
    if agent_uid is not None and (type(agent_uid) is not int or not 0 <= agent_uid <= MAX_UID):
        raise LocalParamsError(f"agent_uid is a user id, a whole number from 0 to {MAX_UID}, or None")
