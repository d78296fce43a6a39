"""What a call does when it does not succeed at once: connecting, sending, waiting, and trying again.

`Attempts` decides by the rules of docs/design.md ("Repeating"), without a socket or a clock. The functions
are the steps that both clients take: where a step would block it yields a `Wait`. A client that gives up (an
interruption, a cancellation) closes the steps, which close the connection in use. At the end is how blocking
code runs them, with poll(2).
"""

from __future__ import annotations

import errno
import select
from time import monotonic, sleep

from .. import __version__
from ..errors import (
    AgentdError,
    AgentStoppingError,
    AgentTimeoutError,
    AgentUnreachableError,
    InvalidMessageError,
    OutcomeUnknownError,
    ProtocolError,
    VersionsDifferError,
)
from ..protocol.methods import HELLO, UnusableAnswerError
from .connection import INTRODUCTION, MAX_CONNECTIONS, Connection, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from ..protocol.exchange import Answer
    from ..protocol.methods import Call, Method
    from .connection import Steps
    from .pool import Pool

    T = TypeVar("T")

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

    Times are seconds, monotonic.

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

    def all_connections_busy(self) -> AgentdError:
        """The error of a call that got no connection because other calls of this client used all of them."""
        return AgentTimeoutError(
            f"{MAX_CONNECTIONS} calls of this client were under way for {self._timeout:g} s, and "
            f"{self._name} had to wait for them; use fewer at once or a longer timeout"
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


def connect(pool: Pool, attempts: Attempts) -> Steps[Connection]:
    """Connect to the agent, which may still be starting."""
    while True:
        try:
            return pool.take() or (yield from _wait_for_connection(pool, attempts))
        except AgentdError:  # before OSError: a timeout is one of both
            raise
        except OSError as error:
            try:
                pause = attempts.after_no_connection(error, monotonic())
            except AgentUnreachableError as absent:
                from ..file_locks import agent_elsewhere  # rarely needed

                remedy = agent_elsewhere(attempts.path)
                if remedy is None:
                    raise
                reason = absent.sentence.rpartition("; ")[0]
                raise AgentUnreachableError(f"{reason}; {remedy}") from error
        yield Wait(None, False, pause)


def _wait_for_connection(pool: Pool, attempts: Attempts) -> Steps[Connection]:
    waiter = pool.queue_up()
    try:
        yield Wait(waiter, False, attempts.seconds_left(monotonic()))
        connection = pool.take_served(waiter)
    finally:
        pool.leave(waiter)
    if connection is None:
        raise attempts.all_connections_busy()
    return connection


def carry_out(
    pool: Pool,
    call: Call[T],
    attempts: Attempts,
    begun: Connection | None = None,
    answer: Answer[T] | None = None,
) -> Steps[T]:
    """Carry a call out, repeating it where that is safe; raises the error that the agent answered with.

    Args:
        pool: where connections come from.
        call: the call.
        attempts: the attempts that are left.
        begun: the connection on which the call was begun, if it was.
        answer: the answer that has already come on it.
    """
    while True:
        connection = begun or (yield from connect(pool, attempts))
        reusable = False
        try:
            if begun is None:
                attempts.begin()
                connection.begin(call)
            if answer is None:
                answer = yield from connection.ask(call, attempts)
        except UnusableAnswerError as error:
            differing = yield from _difference(pool, attempts)
            raise attempts.misunderstood(error, differing) from error
        except ProtocolError as error:
            raise attempts.misunderstood(error) from error
        except AgentdError:  # before OSError: a timeout is one of both
            raise
        except OSError as error:
            pause = attempts.after_loss(error, monotonic(), reused=connection.reused)
        else:
            if not isinstance(answer.error, AgentStoppingError):
                reusable = not isinstance(answer.error, InvalidMessageError)
                return answer.unwrap()
            pause = attempts.after_stopping(answer.error, monotonic())
        finally:
            # Also when interrupted or cancelled: the next call must not get a late answer.
            if reusable:
                pool.give_back(connection)
            else:
                pool.drop(connection)
        begun = answer = None
        yield Wait(None, False, pause)


def _difference(pool: Pool, attempts: Attempts) -> Steps[str | None]:
    """How the agent's version differs from this client's; None if it does not or is not known."""
    from ..versions import difference

    connection = None
    try:
        connection = pool.take()
        if connection is None:
            return None
        now = monotonic()
        once = Attempts(attempts.path, HELLO, now=now, timeout=attempts.seconds_left(now), patience=0)
        connection.begin(INTRODUCTION)
        answer = yield from connection.ask(INTRODUCTION, once)
        return None if answer.result is None else difference(answer.result, __version__)
    except (AgentdError, OSError):
        return None
    finally:
        if connection is not None:
            pool.drop(connection)


def run(steps: Steps[T]) -> T:
    """Run steps to their end; returns and raises what they do."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(_wait(wait))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()  # after an interruption while waiting: this closes the connection


def _wait(wait: Wait) -> bool:
    if wait.waited_for is None:
        sleep(wait.seconds or 0)
        return True
    poller = select.poll()
    poller.register(wait.waited_for, select.POLLOUT if wait.writable else select.POLLIN)
    return bool(poller.poll(None if wait.seconds is None else wait.seconds * 1000))
