"""Who may connect to a socket, and how many at once: decided by the kernel's word, before a byte is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import NamedTuple, TypeVar

from agentd_client.errors import ConfigError
from agentd_client.protocol.limits import (
    MAX_ASK_CONNECTIONS,
    MAX_ASK_CONNECTIONS_OF_UID,
    MAX_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS_OF_UID,
)
from agentd_client.user_namespace import own_uid_fault

from ..process_identity import Process
from .connection import SLICE_SECONDS, Connection
from .peer import Peer

Key = TypeVar("Key")

OTHERS_SLICE_SECONDS = 0.0
"""For one connection of a socket for others, before the owner's connections get a turn. However many requests
another user sends, the owner waits for one on each of its connections, which takes a few milliseconds."""

EVICTION_SLACK = 0.25
"""Evicted connections that may still answer what was sent to them, as a share of the limit. That usually
takes one turn of the event loop, but a peer that does not read its replies can draw it out. Beyond this share
the oldest is cut off."""

OVER_LIMIT_SHARE = 0.5
"""All connections beyond the limit, as a share of it: evicted ones, ones that were cut off and take some
turns of the event loop to end, and ones that are accepted while the agent stops."""


def _hard_limit(connections: int) -> int:
    return int(connections * (1 + OVER_LIMIT_SHARE))


MOST_CONNECTIONS = sum(map(_hard_limit, (MAX_CONNECTIONS, MAX_VERIFY_CONNECTIONS, MAX_ASK_CONNECTIONS)))
"""Of all sockets together. Each takes a file descriptor."""


class OpenConnections:
    """The connections of one socket.

    of_processes: those that stay, by user and process. of_users: how many of them each user has.
    staying: how many there are. leaving: evicted ones that still answer, the oldest first.

    The counts are kept up to date, because a client that connects without end has them read every time.
    """

    def __init__(self) -> None:
        self.of_processes: dict[tuple[int, Process], set[Connection]] = {}
        self.of_users: dict[int, int] = {}
        self.staying = 0
        self.leaving: dict[Connection, None] = {}

    def __iter__(self) -> Iterator[Connection]:
        return chain(chain.from_iterable(self.of_processes.values()), self.leaving)

    def __len__(self) -> int:
        return self.staying + len(self.leaving)

    def add(self, connection: Connection) -> None:
        """Count a new connection, which stays."""
        uid, process = connection.peer.uid, connection.peer.process
        self.of_processes.setdefault((uid, process), set()).add(connection)
        self.of_users[uid] = self.of_users.get(uid, 0) + 1
        self.staying += 1

    def leave(self, connection: Connection) -> None:
        """Count it as evicted."""
        if self._remove_staying(connection):
            self.leaving[connection] = None

    def remove(self, connection: Connection) -> None:
        """Count it no longer: it has ended."""
        self._remove_staying(connection)
        self.leaving.pop(connection, None)

    def _remove_staying(self, connection: Connection) -> bool:
        uid, process = connection.peer.uid, connection.peer.process
        own = self.of_processes.get((uid, process), set())
        if connection not in own:
            return False
        own.remove(connection)
        if not own:
            del self.of_processes[uid, process]
        self.of_users[uid] -= 1
        if not self.of_users[uid]:
            del self.of_users[uid]
        self.staying -= 1
        return True


class Decision(NamedTuple):
    """What happens to a new connection.

    is_admitted: whether there is room for it. evicted: the connection that is closed for it, once that has
    answered. abandoned: one that was evicted before and ends now, answered or not.
    reached: the limit that is reached, in words; empty if none is.
    """

    is_admitted: bool
    evicted: Connection | None = None
    abandoned: Connection | None = None
    reached: str = ""


ADMITTED = Decision(True)
"""The usual decision: no limit is reached."""


class Admission(NamedTuple):
    """The rule of one socket.

    only_uid: the one user who may connect; None for everyone who can reach the socket.
    connections: how many there may be at once. connections_of_uid: how many of them one user may have.
    slice_seconds: how long one connection is served before the others have a turn.
    """

    only_uid: int | None
    connections: int
    connections_of_uid: int
    slice_seconds: float

    def allows(self, peer: Peer) -> bool:
        """Whether this user may connect at all."""
        return self.only_uid is None or self.only_uid == peer.uid

    def decide(self, peer: Peer, present: OpenConnections) -> Decision:
        """Share the connections among users, and a user's among its processes.

        At the limit the user with the most connections gives one up, and of its processes the one with the
        most. So a process without a connection always gets one, and a process that has its share makes room
        for more out of its own idle ones. Being busy protects a connection from its own process only:
        otherwise a process that keeps all of them busy would keep everyone else out.
        """
        if not (last := self.within_hard_limit(present)).is_admitted:
            return last
        if present.staying >= self.connections:
            users = {*_largest(present.of_users, peer.uid)}
            reached = f"the limit is {self.connections}"
        elif present.of_users.get(peer.uid, 0) >= self.connections_of_uid:
            users = {peer.uid}
            reached = f"the limit of one user is {self.connections_of_uid}"
        else:
            return last
        newcomer = peer.uid, peer.process
        sizes = {process: len(own) for process, own in present.of_processes.items() if process[0] in users}
        processes = _largest(sizes, newcomer)
        candidates = [connection for process in processes for connection in present.of_processes[process]]
        idle = [connection for connection in candidates if connection.is_idle]
        if not idle and processes == [newcomer]:
            return Decision(False, reached=reached)
        evicted = min(idle or candidates, key=attrgetter("last_active"))
        abandoned = None
        if len(present.leaving) >= self.connections * EVICTION_SLACK:
            abandoned = next((one for one in present.leaving if not one.is_abandoned), None)
        return Decision(True, evicted, abandoned, reached)

    def within_hard_limit(self, present: OpenConnections) -> Decision:
        """Whether there may be one more at all, beyond the limit."""
        if len(present) < _hard_limit(self.connections):
            return ADMITTED
        return Decision(False, reached=f"the limit is {self.connections}")


def require_own_uid() -> None:
    """Check that the agent's user can be distinguished from others.

    Raises:
        ConfigError: in this user namespace other users look like the agent's own, so none could be kept out.
    """
    if (fault := own_uid_fault()) is not None:
        raise ConfigError(fault)


def owner_only() -> Admission:
    """The agent's own user only, not even root, whatever the socket's mode. Raises as `require_own_uid`."""
    require_own_uid()
    return Admission(os.geteuid(), MAX_CONNECTIONS, MAX_CONNECTIONS, SLICE_SECONDS)


def verifiers() -> Admission:
    """Everyone whom the verify socket's folder, group and mode admit. No user can have all connections."""
    return Admission(None, MAX_VERIFY_CONNECTIONS, MAX_VERIFY_CONNECTIONS_OF_UID, OTHERS_SLICE_SECONDS)


def askers() -> Admission:
    """The same for the ask socket."""
    return Admission(None, MAX_ASK_CONNECTIONS, MAX_ASK_CONNECTIONS_OF_UID, OTHERS_SLICE_SECONDS)


def _largest(sizes: dict[Key, int], newcomer: Key) -> list[Key]:
    """Those with the most connections; the newcomer itself unless another has at least two more.

    With one more, a connection would only change sides, and be asked back at once, without end.
    """
    own, most = sizes.get(newcomer, 0), max(sizes.values())
    if own and most <= own + 1:
        return [newcomer]
    return [key for key, size in sizes.items() if size == most]
