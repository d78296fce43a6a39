"""Whether and when a failed call is tried again, and its error if not: one set of rules for both clients.

Pure: no socket and no clock; the time comes in as an argument (seconds, monotonic).

The rules (docs/design.md, "Repeating"):

1. A request that was not sent completely cannot have been carried out: the agent only acts on complete
   messages, and shuts down its receiving side before it stops, so a request that fails to be sent was never
   read completely. It is repeated, whatever the method.
2. A reply of `AgentStoppingError` says that nothing was carried out. The request is repeated.
3. A request that was sent completely and whose answer was lost is repeated if the method is repeatable.
   Otherwise it ends in `OutcomeUnknownError`, also after a timeout or an answer that makes no sense.
4. All of this happens within one deadline.
"""

from __future__ import annotations

import errno

from ..errors import (
    AgentdError,
    AgentStoppingError,
    AgentTimeoutError,
    AgentUnreachableError,
    OutcomeUnknownError,
    ProtocolError,
    VersionsDifferError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..protocol.wire import Method

_STARTING = frozenset({errno.ENOENT, errno.ECONNREFUSED})
"""No socket yet, or nobody listening on it yet."""

_QUEUE_FULL = errno.EAGAIN
"""connect(2) of a Unix socket: somebody listens, but the queue of pending connections is full."""

_START = "start one with `agentd serve`"
_BUSY = "see whether it is busy or stopped, and its log"

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.05
"""An agent starts within a fifth of a second; nobody should have to wait much longer than that."""


class Attempts:
    """The attempts of one call. Each `after_...` returns the pause before the next, or raises the error.

    Args:
        path: the socket, for error messages.
        method: what is called; None to connect only.
        now: the present time.
        timeout: seconds for the whole call.
        patience: how many of them to wait for an agent that is not there; None means all of them.
    """

    def __init__(
        self, path: str, method: Method[Any] | None, *, now: float, timeout: float, patience: float | None
    ) -> None:
        self.path = path
        self._name = method.name if method is not None else "the connection"
        self._repeatable = method is None or method.repeatable
        self._timeout = timeout
        self._deadline = now + timeout
        self._patience = timeout if patience is None else patience
        self._absent_until: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._sent = False

    def seconds_left(self, now: float) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self._deadline - now)

    def beside(self, method: Method[Any], now: float) -> Attempts:
        """The attempts of another call, which is made once within the same deadline."""
        return Attempts(self.path, method, now=now, timeout=self.seconds_left(now), patience=0)

    def begin(self) -> None:
        """There is a connection and nothing has been sent on it."""
        self._sent = False

    def sent_whole(self) -> None:
        """From now on the request may be carried out."""
        self._sent = True

    def after_no_connection(self, error: OSError, now: float) -> float:
        """Connecting failed; an agent may be starting."""
        if error.errno == _QUEUE_FULL:
            timeout = AgentTimeoutError(
                f"the agent at {self.path} has taken no connection for {self._timeout:g} s; {_BUSY}"
            )
            return self._next(timeout, now)
        absent = AgentUnreachableError(
            f"no agent answers at {self.path} ({error.strerror or error}); {_START}"
        )
        if error.errno not in _STARTING:
            raise absent from error
        if self._absent_until is None:
            self._absent_until = now + self._patience
        if now >= self._absent_until:
            raise absent from error
        return self._next(absent, now)

    def after_loss(self, error: OSError, now: float, *, reused: bool) -> float:
        """The connection broke. A `reused` one may have broken long ago, so no pause is needed."""
        lost = AgentUnreachableError(
            f"the agent at {self.path} closed the connection ({error.strerror or error}); "
            "see whether it still runs, and its log"
        )
        if self._sent and not self._repeatable:
            raise self._unknown("the connection was closed before the answer came") from error
        return self._next(lost, now, at_once=reused)

    def after_stopping(self, error: AgentStoppingError, now: float) -> float:
        """The agent is stopping; another may be starting."""
        return self._next(error, now)

    def timed_out(self) -> AgentdError:
        """The error of a call that timed out."""
        if self._sent and not self._repeatable:
            return self._unknown(f"no answer came within {self._timeout:g} s")
        what = "answer" if self._sent else "take"
        return AgentTimeoutError(
            f"the agent at {self.path} did not {what} {self._name} within {self._timeout:g} s; {_BUSY}"
        )

    def all_connections_busy(self, connections: int) -> AgentdError:
        """The error of a call that got no connection because other calls of this client used all of them."""
        return AgentTimeoutError(
            f"{connections} calls of this client were under way for {self._timeout:g} s, and {self._name} "
            "had to wait for them; use fewer at once or a longer timeout"
        )

    def misunderstood(self, error: ProtocolError, difference: str | None = None) -> AgentdError:
        """The error of a call whose answer made no sense; repeating it would not help.

        `difference` says how the two versions differ, if the agent could tell its own.
        """
        if self._sent and not self._repeatable:
            because = "" if difference is None else f"; {difference}"
            return self._unknown(f"the answer could not be understood ({error.sentence}{because})")
        if difference is not None:
            return VersionsDifferError(f"{difference} ({self._name}: {error.sentence})")
        return ProtocolError(f"what listens at {self.path} does not answer as agentd does: {error.sentence}")

    def _next(self, failure: AgentdError, now: float, *, at_once: bool = False) -> float:
        pause = 0.0 if at_once else self._pause
        if now + pause >= self._deadline:
            raise failure
        if not at_once:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return pause

    def _unknown(self, reason: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self._name} was sent to the agent at {self.path}, but {reason}; whether it was carried "
            "out is unknown; check (`agentctl status`) before you repeat it"
        )
