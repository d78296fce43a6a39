"""A connection to an agent: how it is made, and how a request and its answer travel on it.

The socket never blocks. A call without trouble is one send (`send_at_once`), one wait, which each client
does in its own way, and one receive (`receive_at_once`). Everything else is left to `ask`, which continues
where those stopped: see `repeating`.
"""

from __future__ import annotations

import os
import struct
from _socket import (  # `socket` would import enum and selectors, which are not needed here
    AF_UNIX,
    MSG_NOSIGNAL,
    SHUT_RDWR,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from select import POLLIN, poll
from time import monotonic

from .. import __version__
from ..errors import AgentUnreachableError, ForeignAgentError, ProtocolError
from ..protocol.exchange import Exchange
from ..protocol.limits import PROTOCOL_VERSION, READ_BYTES
from ..protocol.methods import HELLO
from ..user_namespace import own_uid_fault, stands_for_others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NamedTuple, Protocol, TypeVar

    from ..protocol.exchange import Answer
    from ..protocol.methods import Call
    from .repeating import Attempts

    T = TypeVar("T")

    class HasDescriptor(Protocol):
        """Something that can be waited for."""

        def fileno(self) -> int:
            """The descriptor."""

    Steps = Generator["Wait", bool, T]
else:
    from ..light_typing import NamedTuple

INTRODUCTION = HELLO.call(client=f"agentd-client {__version__}", protocol=PROTOCOL_VERSION)
"""How the client introduces itself."""

MAX_CONNECTIONS = 16
"""Per client and process, so that as many threads can call in parallel. The agent takes 256 from all its
peers, and 32 from one other user at the verify socket."""

_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid

_MAX_PATH_BYTES = 107
"""unix(7): sun_path has 108 bytes, of which the last is a NUL."""


class Wait(NamedTuple):
    """Wait until something is readable (or writable), for at most `seconds`; for nothing, just pause.

    Steps yield it. The client that runs them waits in its own way and sends back whether it happened in time.
    `seconds` is None to wait as long as it takes, but not to pause.
    """

    waited_for: HasDescriptor | None
    writable: bool
    seconds: float | None


def peer_uid(connected: socket) -> int:
    """The user who called listen(2) at the other end: SO_PEERCRED, unix(7)."""
    credentials = connected.getsockopt(SOL_SOCKET, SO_PEERCRED, _PEERCRED.size)
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
        "check who made that socket, and set AGENTD_SOCKET to your own agent's"
    )


class Connection:
    """A connection to this user's agent, or to that of a trusted user, for one call at a time."""

    __slots__ = ("_exchange", "_misread", "_socket", "_unsent", "reused", "wait")

    def __init__(self, connected: socket, exchange: Exchange | None = None) -> None:
        self._socket = connected
        self._exchange = exchange or Exchange()
        self._unsent: bytes | memoryview = b""
        self._misread: ProtocolError | None = None
        waiting = poll()
        waiting.register(connected, POLLIN)
        self.wait = waiting.poll
        """How blocking code waits for an answer; takes milliseconds."""
        self.reused = False

    @classmethod
    def open(cls, path: str, exchange: Exchange | None = None, *, agent_uid: int | None = None) -> Connection:
        """Connect, and check whose agent it is before a byte is sent.

        Args:
            path: the agent's socket.
            exchange: reads the conversation; None for one that only reads answers.
            agent_uid: the one user whose agent is trusted; None for this process's own.

        Raises:
            OSError: nobody listens there, or not yet.
            AgentUnreachableError: the path cannot be a socket's.
            ForeignAgentError: another user listens there, or it is not known which.
        """
        if len(os.fsencode(path)) > _MAX_PATH_BYTES or "\0" in path:
            raise AgentUnreachableError(
                f"{path!r} cannot be a socket: its path may have {_MAX_PATH_BYTES} bytes; set AGENTD_SOCKET"
            )
        connected = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
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
        """Close the descriptor. Without shutdown(2): after a fork another process may use the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor to wait for; -1 once it is closed."""
        return self._socket.fileno()

    def hang_up(self) -> None:
        """Shut the socket down for every process that has it; this wakes everybody who waits on it."""
        try:  # noqa: SIM105 - contextlib is slow to import
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass  # the other end was faster, or the socket is closed

    def send_at_once(self, call: Call[T]) -> bool:
        """Send a request; False if `ask` has to continue."""
        request = self._exchange.request(call)
        try:
            sent = self._socket.send(request, MSG_NOSIGNAL)
        except OSError:  # `ask` runs into it again
            sent = 0
        if sent == len(request):
            return True
        self._unsent = request[sent:]
        return False

    def receive_at_once(self, call: Call[T]) -> Answer[T] | None:
        """The answer, if it is complete; None if `ask` has to continue."""
        try:
            data = self._socket.recv(READ_BYTES)
            return self._exchange.receive(data, call) if data else None
        except OSError:
            return None
        except ProtocolError as error:
            self._misread = error
            return None

    def begin(self, call: Call[T]) -> None:
        """Encode the request, which `ask` then sends."""
        self._unsent = self._exchange.request(call)

    def ask(self, call: Call[T], attempts: Attempts) -> Steps[Answer[T]]:
        """Send the rest of the request, and receive its answer.

        Raises:
            OSError: the connection broke.
            ProtocolError: the answer is none.
            AgentTimeoutError, OutcomeUnknownError: the deadline has passed.
        """
        while self._unsent:
            try:
                self._unsent = memoryview(self._unsent)[self._socket.send(self._unsent, MSG_NOSIGNAL) :]
            except BlockingIOError:
                yield from self._wait(attempts, writable=True)
            except OSError:
                # The agent reads no more of it. It may have sent the reason before it closed.
                answer = self._last_answer(call)
                if answer is None:
                    raise
                return answer
        attempts.sent_whole()
        if self._misread is not None:
            raise self._misread
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
        try:
            while data := self._socket.recv(READ_BYTES):
                answer = self._exchange.receive(data, call)
                if answer is not None:
                    return answer
        except OSError:
            pass  # nothing left to read, or nobody there
        return None

    def listen(self) -> Steps[bytes]:
        """Receive what comes next, however long that takes; b"" if the peer has closed.

        Raises:
            OSError: the connection broke, or was closed here.
        """
        while True:
            yield Wait(self, False, None)
            data = self._received()
            if data is not None:
                return data

    def _received(self) -> bytes | None:
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None

    def _wait(self, attempts: Attempts, *, writable: bool) -> Steps[None]:
        if not (yield Wait(self, writable, attempts.seconds_left(monotonic()))):
            raise attempts.timed_out()
