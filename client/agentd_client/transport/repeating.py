"""A call as steps, from wherever it stands to its end: connecting, sending, waiting, and trying again.

Both clients take these steps when a call does not succeed at once. Where a step would block it yields a
`Wait`. A client that gives up (an interruption, a cancellation) closes the steps, which close the connection
in use.

At the end is how blocking code runs them: it waits with poll(2).
"""

from __future__ import annotations

import select
from time import monotonic, sleep

from .. import __version__
from ..errors import (
    AgentdError,
    AgentStoppingError,
    AgentUnreachableError,
    InvalidMessageError,
    ProtocolError,
)
from ..protocol.methods import HELLO
from ..protocol.wire import UnusableAnswerError
from .connection import INTRODUCTION, Connection, Wait
from .pool import MAX_CONNECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from ..protocol.exchange import Answer
    from ..protocol.wire import Call
    from .attempts import Attempts
    from .connection import Steps
    from .pool import Pool

    T = TypeVar("T")


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
        raise attempts.all_connections_busy(MAX_CONNECTIONS)
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
        connection.begin(INTRODUCTION)
        answer = yield from connection.ask(INTRODUCTION, attempts.beside(HELLO, monotonic()))
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
