"""What the server counts and logs: requests, peers that it turned away, and its own failures."""

from __future__ import annotations

import logging
import traceback
from enum import Enum

from agentd_client.protocol.results import Counters

from .peer import Peer


class Traffic:
    """Counters since the start, for `getStatus`."""

    def __init__(self) -> None:
        self.connections = 0
        self.connections_open = 0
        self.connections_cut_off = 0
        self.peers_refused = 0
        self.requests = 0
        self.refusals = 0

    def read(self, commits: int) -> Counters:
        """The counters together with the store's."""
        return Counters(**vars(self), commits=commits)


class Reason(Enum):
    """Why the agent closed a connection."""

    FOREIGN_USER = "refused: another user"
    TOO_MANY = "refused: too many connections"
    NO_CREDENTIALS = "refused: the kernel does not say who it is"
    MALFORMED = "closed: malformed message"
    UNEXPECTED = "closed: a response to no request"
    MSGID_IN_USE = "closed: a msgid that is in use"
    UNFINISHED = "closed: message not finished in time"
    NOT_TAKING = "closed: replies not read in time"
    EVICTED_IDLE = "closed: idle longest, to make room for another"
    EVICTED_BUSY = "closed: its process has most, to make room for another"
    EVICTION_TIMEOUT = "cut off: had to make room, and did not read its replies in time"
    NOT_ACCEPTED = "connections cannot be accepted"


# NOT_ACCEPTED concerns no peer, and EVICTION_TIMEOUT was counted at the eviction.
_NOT_COUNTED = {Reason.NOT_ACCEPTED, Reason.EVICTION_TIMEOUT}
_REFUSED = {Reason.FOREIGN_USER, Reason.TOO_MANY, Reason.NO_CREDENTIALS}


class PeerLog:
    """Counts and logs what peers are refused or cut off for.

    Anyone who can connect can misbehave ten thousand times a second. `agentd.log_limit` limits each log
    template, so the reason is part of the template, and there is a bounded number of reasons.
    """

    def __init__(self, logger: logging.Logger, traffic: Traffic) -> None:
        self._logger = logger
        self._traffic = traffic

    def write(self, reason: Reason, peer: Peer | None = None, detail: str = "") -> None:
        """Count it and log it. `detail` is one of a few sentences, and never holds what the peer sent."""
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


def describe_failure(error: BaseException) -> str:
    """The class and traceback of an exception and of every exception behind it.

    Never the exception's text: libraries quote the value that they could not use, and it may be a token.
    An OSError's number is included, because it tells a full disk from a broken one.
    """
    lines = []
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        number = f" errno {one.errno}" if isinstance(one, OSError) else ""
        lines.append(name + number)
        lines += [line.rstrip("\n") for line in traceback.format_tb(one.__traceback__)]
        behind = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        waiting += [behind] if behind is not None else []
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return "\n".join(lines)
