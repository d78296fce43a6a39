"""One call over a Unix socket, as steps: everything that the blocking and the async client have in common.

The socket never blocks. Where it would, a step yields a `Wait`, and the client that runs the steps does the
waiting in its own way and sends back whether it came about in time. A client that gives up (an
interruption, a cancellation) closes the steps, and with them the connection in use.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Generator
from contextlib import suppress
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

from . import __version__
from .attempts import Attempts
from .errors import (
    AgentdError,
    AgentStoppingError,
    AgentUnreachableError,
    ForeignAgentError,
    InvalidMessageError,
    ProtocolError,
)
from .protocol import calls
from .protocol.calls import Call
from .protocol.exchange import Answer, Exchange
from .protocol.limits import READ_BYTES
from .protocol.methods import HELLO
from .protocol.wire import UnusableAnswerError
from .user_namespace import own_uid_fault, stands_for_others
from .versions import difference

T = TypeVar("T")

CLIENT_NAME = f"agentd-client {__version__}"
"""As the client introduces itself."""

_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid

_MAX_PATH_BYTES = 107
"""unix(7): sun_path has 108 bytes, of which the last is a NUL."""


class Wait(NamedTuple):
    """Wait until the socket is readable (or writable), but at most `seconds`; with no socket, so long.

    `seconds` is None for as long as it takes, which only a socket may.
    """

    socket: socket.socket | None
    writable: bool
    seconds: float | None


Steps = Generator[Wait, bool, T]


def peer_uid(connected: socket.socket) -> int:
    """Who listens at the other end: SO_PEERCRED, unix(7). It is the one who called listen(2)."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    uid: int = _PEERCRED.unpack(credentials)[1]
    return uid


def _foreign(path: str, uid: int, agent_uid: int | None) -> ForeignAgentError:
    if (whose := own_uid_fault()) is not None:
        return ForeignAgentError(f"anybody may listen at {path}; nothing was sent: {whose}")
    if stands_for_others(uid):
        return ForeignAgentError(
            f"anybody may listen at {path}; nothing was sent: uid {uid} stands for everybody whom this user "
            "namespace does not map; ask from outside of it"
        )
    if agent_uid is not None:
        return ForeignAgentError(
            f"uid {uid} listens at {path}, and uid {agent_uid} is whose agent was asked for; nothing was sent"
        )
    return ForeignAgentError(
        f"uid {uid} listens at {path}, and you are uid {os.geteuid()}; nothing was sent: "
        "look at who made that socket, and set AGENTD_SOCKET to your own agent's"
    )


class Connection:
    """A connection to an agent of our own, or of a user whom we trust, for one call at a time."""

    def __init__(self, connected: socket.socket, exchange: Exchange | None = None) -> None:
        self._socket = connected
        self._exchange = exchange or Exchange()
        self.reused = False

    @classmethod
    def open(cls, path: str, exchange: Exchange | None = None, *, agent_uid: int | None = None) -> Connection:
        """Connect, and see whose agent it is before a byte is sent.

        Args:
            path: the agent's socket.
            exchange: what reads the conversation; None for one that reads answers alone.
            agent_uid: the one user whose agent is trusted; None for this process's own.

        Raises:
            OSError: nobody listens there, or not yet.
            AgentUnreachableError: the path cannot be a socket's.
            ForeignAgentError: another user listens there, or one that cannot be told from others here.
        """
        if len(os.fsencode(path)) > _MAX_PATH_BYTES or "\0" in path:
            raise AgentUnreachableError(
                f"{path!r} cannot be a socket: its path may have {_MAX_PATH_BYTES} bytes; set AGENTD_SOCKET"
            )
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connected.connect(path)
            uid = peer_uid(connected)
            trusted = os.geteuid() if agent_uid is None else agent_uid
            if uid != trusted or stands_for_others(uid):
                raise _foreign(path, uid, agent_uid)
        except BaseException:
            connected.close()
            raise
        return cls(connected, exchange)

    def close(self) -> None:
        """Close the descriptor. Not shutdown(2): after fork(2) another process may still use the socket."""
        self._socket.close()

    def hang_up(self) -> None:
        """End the conversation for every process that has this socket; whoever waits on it wakes up."""
        with suppress(OSError):  # the other end was faster, or it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def ask(self, call: Call[T], attempts: Attempts) -> Steps[Answer[T]]:
        """Send a request and receive its answer.

        Raises:
            OSError: the connection broke.
            ProtocolError: the answer is none.
            AgentTimeoutError, OutcomeUnknownError: the time was up.
        """
        attempts.begin()
        unsent = memoryview(self._exchange.request(call))
        while unsent:
            try:
                unsent = unsent[self._socket.send(unsent, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                yield from self._wait(attempts, writable=True)
            except OSError:
                # The agent takes no more of it. It may have said why before it closed.
                answer = self._last_answer(call)
                if answer is None:
                    raise
                return answer
        attempts.sent_whole()
        while True:
            yield from self._wait(attempts, writable=False)
            data = self._received()
            if data is None:
                continue
            if not data:
                raise ConnectionResetError("it ended")
            answer = self._exchange.receive(data, call)
            if answer is not None:
                return answer

    def _last_answer(self, call: Call[T]) -> Answer[T] | None:
        with suppress(OSError):  # nothing is left, or nobody is there
            while data := self._socket.recv(READ_BYTES):
                answer = self._exchange.receive(data, call)
                if answer is not None:
                    return answer
        return None

    def listen(self) -> Steps[bytes]:
        """Receive what comes next, however long that takes; nothing where the peer has closed.

        Raises:
            OSError: the connection broke, or was closed here.
        """
        while True:
            yield Wait(self._socket, False, None)
            data = self._received()
            if data is not None:
                return data

    def _received(self) -> bytes | None:
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None

    def _wait(self, attempts: Attempts, *, writable: bool) -> Steps[None]:
        if not (yield Wait(self._socket, writable, attempts.seconds_left(monotonic()))):
            raise attempts.timed_out()


class Connections(Protocol):
    """Where connections come from and go to: `agentd_client.pool.Pool`."""

    def take(self) -> Connection:
        """An idle connection, or a new one; raises as `Connection.open` does."""

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next call."""

    def drop(self, connection: Connection) -> None:
        """Close it."""


def connect(pool: Connections, attempts: Attempts) -> Steps[Connection]:
    """A connection to the agent, which may still be starting."""
    while True:
        try:
            return pool.take()
        except OSError as error:
            try:
                pause = attempts.after_no_connection(error, monotonic())
            except AgentUnreachableError as absent:
                from .lock_holder import agent_elsewhere  # where there is none, which is rare

                remedy = agent_elsewhere(attempts.path)
                if remedy is None:
                    raise
                reason = absent.sentence.rpartition("; ")[0]
                raise AgentUnreachableError(f"{reason}; {remedy}") from error
        yield Wait(None, False, pause)


def _difference(pool: Connections, attempts: Attempts) -> Steps[str | None]:
    """How the agent's version differs from this client's; None where it does not or is not known."""
    connection = None
    try:
        connection = pool.take()
        answer = yield from connection.ask(calls.hello(CLIENT_NAME), attempts.beside(HELLO, monotonic()))
        return None if answer.result is None else difference(answer.result, __version__)
    except (AgentdError, OSError):
        return None
    finally:
        if connection is not None:
            pool.drop(connection)


def carry_out(pool: Connections, call: Call[T], attempts: Attempts) -> Steps[T]:
    """A call from beginning to end, repeated where that is safe; raises the agent's refusal as it is."""
    while True:
        connection = yield from connect(pool, attempts)
        reusable = False
        try:
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
            refusal = answer.refusal
            if not isinstance(refusal, AgentStoppingError):
                reusable = not isinstance(refusal, InvalidMessageError)
                return answer.unwrap()
            pause = attempts.after_stopping(refusal, monotonic())
        finally:
            # Also when interrupted or cancelled: a late answer must not meet the next call.
            if reusable:
                pool.give_back(connection)
            else:
                pool.drop(connection)
        yield Wait(None, False, pause)
