"""What peers are refused and cut off for: counted, and told to the log.

Whoever can connect can misbehave ten thousand times a second; `agentd.log_limit` keeps the log readable.
"""

from __future__ import annotations

import logging
from enum import Enum

from .peer import Peer
from .traffic import Traffic


class Reason(Enum):
    """Why a connection was closed by the agent."""

    FOREIGN_USER = "refused: another user"
    TOO_MANY = "refused: too many connections"
    NO_CREDENTIALS = "refused: the kernel does not say who it is"
    MALFORMED = "closed: malformed"
    UNEXPECTED = "closed: a response to nothing that was asked"
    MSGID_IN_USE = "closed: a msgid that is in use"
    UNFINISHED = "closed: a message that was not finished in time"
    NOT_TAKING = "closed: replies that were not taken in time"
    MADE_ROOM = "closed: idle longest, to make room for another"
    MADE_ROOM_WORKING = "closed: of the process that has most, to make room for another"
    DID_NOT_LEAVE = "cut off: it had to make room, and did not take its replies in time"
    NOT_ACCEPTED = "connections cannot be accepted"


# NOT_ACCEPTED is no peer's, and DID_NOT_LEAVE was counted when it made room.
_NOT_COUNTED = {Reason.NOT_ACCEPTED, Reason.DID_NOT_LEAVE}
_REFUSED = {Reason.FOREIGN_USER, Reason.TOO_MANY, Reason.NO_CREDENTIALS}


class PeerLog:
    """A line for each, whose template is its cause: so the log's limit knows one kind for each cause.

    The causes are words of the agent's own, of which there is a bounded number.
    """

    def __init__(self, logger: logging.Logger, traffic: Traffic) -> None:
        self._logger = logger
        self._traffic = traffic

    def write(self, reason: Reason, peer: Peer | None = None, detail: str = "") -> None:
        """Count it and log it; `detail` is one of a few, and never holds what the peer sent."""
        if reason in _REFUSED:
            self._traffic.peers_refused += 1
        elif reason not in _NOT_COUNTED:
            self._traffic.connections_cut_off += 1
        cause = reason.value + (f" ({detail})" if detail else "")
        template = cause.replace("%", "%%")
        if peer is None:
            self._logger.warning(template)
        else:
            self._logger.warning(f"peer uid=%d pid=%d {template}", peer.uid, peer.pid)
