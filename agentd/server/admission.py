"""Who is let in at a socket, and how many at once: by the kernel's word, before a byte of theirs is read."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

from agentd_client.protocol.limits import (
    MAX_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS_OF_UID,
)

from .connection import SLICE_MESSAGES, Connection
from .peer import Peer

VERIFY_SLICE_MESSAGES = 1
"""Of one connection of the second door, before the owner's connections get their turn: however many requests
another user sends, the owner waits for one of each of its connections, which takes a few milliseconds."""


class Crowd(NamedTuple):
    """Connections that are as many as they may be: for one more, one of them has to end."""

    connections: list[Connection]
    limit: int
    limit_in_words: str


class Admission(NamedTuple):
    """The rule of one door.

    only_uid: the one user who is let in; None for whoever can reach the socket.
    connections: how many there may be at once. connections_of_uid: how many of them one user's.
    slice_messages: of one connection, before the others have a turn.
    """

    only_uid: int | None
    connections: int
    connections_of_uid: int
    slice_messages: int

    def lets_in(self, peer: Peer) -> bool:
        """Whether this user may be heard at all."""
        return self.only_uid is None or self.only_uid == peer.uid

    def crowd(self, peer: Peer, present: Collection[Connection]) -> Crowd | None:
        """Among whom room for one more of this peer's user has to be made; None where there is some.

        Who has used up a share of its own makes room itself, and closes nobody else's connection.
        """
        if len(present) >= self.connections_of_uid < self.connections:
            own = [connection for connection in present if connection.peer.uid == peer.uid]
            if len(own) >= self.connections_of_uid:
                limit = self.connections_of_uid
                return Crowd(own, limit, f"the limit of one user is {limit}")
        if len(present) >= self.connections:
            return Crowd(list(present), self.connections, f"the limit is {self.connections}")
        return None


def owner_only() -> Admission:
    """The agent's own user and nobody else, root included: whatever the socket's mode became."""
    return Admission(os.geteuid(), MAX_CONNECTIONS, MAX_CONNECTIONS, SLICE_MESSAGES)


def anybody() -> Admission:
    """Whoever the socket's folder, group and mode let in; no user can have all of the connections."""
    return Admission(None, MAX_VERIFY_CONNECTIONS, MAX_VERIFY_CONNECTIONS_OF_UID, VERIFY_SLICE_MESSAGES)
