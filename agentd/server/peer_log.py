"""Log lines about peers that misbehave, as many as a reader can use.

Whoever can connect can misbehave ten thousand times a second; the log must not be the victim.
"""

from __future__ import annotations

import logging
from enum import Enum

import trio

from .peer import Peer
from .traffic import Traffic

QUIET_SECONDS = 1.0
"""After a line, the next one of the same reason waits this long; what came in between is counted."""


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
    NOT_ACCEPTED = "connections cannot be accepted"


_REFUSED = {Reason.FOREIGN_USER, Reason.TOO_MANY, Reason.NO_CREDENTIALS}


class PeerLog:
    """One line for each reason and second, with the number of those that were left out."""

    def __init__(self, logger: logging.Logger, traffic: Traffic) -> None:
        self._logger = logger
        self._traffic = traffic
        self._quiet_until: dict[Reason, float] = {}
        self._left_out: dict[Reason, int] = {}

    def write(self, reason: Reason, peer: Peer | None = None, detail: str = "") -> None:
        """Log it, or count it; `detail` never holds what the peer sent."""
        if reason in _REFUSED:
            self._traffic.peers_refused += 1
        elif reason is not Reason.NOT_ACCEPTED:
            self._traffic.connections_cut_off += 1
        now = trio.current_time()
        if now < self._quiet_until.get(reason, now):
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            return
        self._quiet_until[reason] = now + QUIET_SECONDS
        left_out = self._left_out.pop(reason, 0)
        self._logger.warning(
            "%s%s%s%s",
            f"peer uid={peer.uid} pid={peer.pid} " if peer is not None else "",
            reason.value,
            f" ({detail})" if detail else "",
            f" [{left_out} more since the last such line]" if left_out else "",
        )

    def close(self) -> None:
        """Tell what was counted and not yet told."""
        for reason, count in self._left_out.items():
            self._logger.warning("%s [%d more since the last such line]", reason.value, count)
        self._left_out.clear()
