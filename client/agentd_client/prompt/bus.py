"""A connection to the session bus, on which every program of the user can send anything to everyone.

Messages are jeepney's. Its own connection is not used, because it parses messages of any size, and does not
ask who runs the bus.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import anyio
from anyio.abc import SocketAttribute, SocketStream
from jeepney import DBusErrorResponse, HeaderFields, Message, MessageFlag, MessageType, message_bus
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_bus
from jeepney.low_level import Header, calc_msg_size
from jeepney.wrappers import unwrap_msg

from ..errors import ConfigError

ANSWER_SECONDS = 10.0
"""For one reply. A bus is quick, and so is a program that it starts, or something is wrong with them."""

SEND_SECONDS = 1.0
"""For a message to a bus that may not read any more."""

MAX_MESSAGE_BYTES = 65_536
"""Longer messages are skipped: a bus lets any program send 32 MiB, which would take seconds to parse."""

MAX_UNANSWERED = 64
"""Calls without a reply, after which the connection is given up. There are a few at a time."""

_START_BYTES = 16  # of a message; enough to compute its length
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid; unix(7)

_NOBODY = {f"org.freedesktop.DBus.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner")}

OnMessage = Callable[[Message], None]


class BusError(Exception):
    """The bus cannot be used, or did not do what it was asked to; says why."""


class Bus:
    """Calls, their replies, and signals; made by `connected`."""

    def __init__(self, stream: SocketStream, raw: socket.socket, on_signal: OnMessage) -> None:
        self._stream = stream
        self._raw = raw
        self._on_signal = on_signal
        self._serials = count(1)
        self._sending = anyio.Lock()
        self._replies: dict[int, OnMessage] = {}
        self._unread = b""

    async def request(self, message: Message, on_reply: OnMessage) -> None:
        """Send a call. Its reply, even a late one, is given to `on_reply` before any later message is read.

        Raises:
            BusError: it cannot be sent.
        """
        if len(self._replies) >= MAX_UNANSWERED:
            self._hang_up()
            raise BusError("nobody answers on it")
        serial = next(self._serials)
        self._replies[serial] = on_reply
        await self._send(message.serialise(serial))

    async def call(self, message: Message) -> Message:
        """Send a call and wait for its reply.

        Raises:
            BusError: the reply is an error, or there is none.
        """
        replied, replies = anyio.Event(), list[Message]()

        def on_reply(reply: Message) -> None:
            replies.append(reply)
            replied.set()

        await self.request(message, on_reply)
        with anyio.move_on_after(ANSWER_SECONDS):
            await replied.wait()
        if not replies:
            raise BusError("no answer")
        return checked(replies[0])

    async def send(self, message: Message) -> None:
        """Send a call to which no reply is wanted, in a cancelled task as well.

        Raises:
            BusError: it cannot be sent.
        """
        message.header.flags |= MessageFlag.no_reply_expected
        await self._send(message.serialise(next(self._serials)))

    async def read(self) -> None:
        """Hand out what comes; returns when the connection ends."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            while True:
                content = await self._next_message()
                if content is not None:
                    self._hand_out(content)

    async def _send(self, content: bytes) -> None:
        # Shielded for a second at most: after a part of a message, the next one would be taken for the rest.
        with anyio.CancelScope(shield=True):
            async with self._sending:
                try:
                    with anyio.fail_after(SEND_SECONDS):
                        await self._stream.send(content)
                except TimeoutError:
                    self._hang_up()
                    raise BusError("it does not read") from None
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    raise BusError("it hung up") from None

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

    def _hand_out(self, content: bytes) -> None:
        try:
            header, _ = Header.from_buffer(content)
            message = Message.from_buffer(content)
        except Exception:  # jeepney cannot parse it; the next message is not affected
            return
        match header.message_type:
            case MessageType.method_return | MessageType.error:
                on_reply = self._replies.pop(header.fields.get(HeaderFields.reply_serial), None)
                if on_reply is not None:
                    on_reply(message)
            case MessageType.signal:
                self._on_signal(message)

    async def _next_message(self) -> bytes | None:
        start = await self._receive(_START_BYTES)
        left = calc_msg_size(start) - _START_BYTES
        if left <= MAX_MESSAGE_BYTES:
            return start + await self._receive(left)
        while left:
            left -= len(await self._receive(min(left, MAX_MESSAGE_BYTES)))
        return None

    async def _receive(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._unread += await self._stream.receive()
        received, self._unread = self._unread[:size], self._unread[size:]
        return received


@asynccontextmanager
async def connected(on_signal: OnMessage) -> AsyncIterator[Bus]:
    """Connect to the session bus. The body is cancelled when the connection ends.

    Raises:
        BusError: that fails. An end of the connection is no error.
    """
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            stream = await anyio.connect_unix(session_bus())
    except ConfigError as error:
        raise BusError(error.sentence) from None
    except TimeoutError:
        raise BusError("it accepts no connection") from None
    except OSError as error:
        raise BusError(error.strerror or type(error).__name__) from None
    async with stream:
        raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
        _check_owner(raw)
        await _authenticate(stream)
        bus = Bus(stream, raw, on_signal)
        failure: BusError | None = None
        async with anyio.create_task_group() as reading:

            async def read() -> None:
                await bus.read()
                reading.cancel_scope.cancel()

            reading.start_soon(read)
            try:
                await bus.call(message_bus.Hello())
                yield bus
            except BusError as error:  # raised below, where the group does not wrap it
                failure = error
            reading.cancel_scope.cancel()
        if failure is not None:
            raise failure


def session_bus() -> str:
    """The path of the session bus's socket; an abstract one begins with a NUL.

    Raises:
        ConfigError: nothing says where the bus is.
    """
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        try:
            address: str = get_bus("SESSION")
        except Exception:  # whatever jeepney's parsing happens to raise
            raise ConfigError("DBUS_SESSION_BUS_ADDRESS names no Unix socket") from None
        return address
    # Where sd_bus_open_user(3) looks for that of a systemd user manager.
    path = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "bus")
    if not os.path.exists(path):
        raise ConfigError(
            "there is no session bus for notifications: set DBUS_SESSION_BUS_ADDRESS, or use --with pinentry "
            "or --with askpass"
        )
    return path


def checked(reply: Message) -> Message:
    """The reply, unless it is an error.

    Raises:
        BusError: it is.
    """
    try:
        unwrap_msg(reply)
    except DBusErrorResponse as error:
        # The name of any other error is the peer's to choose.
        raise BusError("nobody is there" if error.name in _NOBODY else "the answer is an error") from None
    return reply


def sender(message: Message) -> str | None:
    """The unique name of the connection that sent a message, which the bus itself writes into it."""
    name: str | None = message.header.fields.get(HeaderFields.sender)
    return name


def _check_owner(raw: socket.socket) -> None:
    # An abstract address belongs to whoever takes it first.
    packed = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(packed)
    if uid not in (0, os.geteuid()):
        raise BusError(f"it belongs to uid {uid}")


async def _authenticate(stream: SocketStream) -> None:
    dialogue = Authenticator(enable_fds=False, inc_null_byte=False)
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            await stream.send(b"\0")
            for line in dialogue:
                await stream.send(line)
                dialogue.feed(await stream.receive())
            await stream.send(BEGIN)
    except TimeoutError:
        raise BusError("it does not answer") from None
    except Exception as error:  # jeepney's own, or a broken stream
        raise BusError(f"it refused the connection ({type(error).__name__})") from None
