"""A connection to a D-Bus message bus, on which every user can send anything to everyone.

Messages are jeepney's. Its own connection is not used, because it leaves unclaimed descriptors to the garbage
collector, lets descriptors be inherited across an exec, and parses messages of any size from any user.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import trio
from jeepney import DBusErrorResponse, HeaderFields, Message, MessageType, message_bus
from jeepney.auth import BEGIN, Authenticator
from jeepney.fds import FileDescriptor, fds_buf_size
from jeepney.low_level import Header, calc_msg_size
from jeepney.wrappers import unwrap_msg

ANSWER_SECONDS = 10.0
"""For one reply. The bus and logind are quick, or something is wrong with them."""

MAX_MESSAGE_BYTES = 65_536
"""Longer messages are skipped: a bus lets any user send 32 MiB, which would take seconds to parse. The
expected ones have some hundred bytes."""

_START_BYTES = 16  # of a message; enough to compute its length
_REPLIES = (MessageType.method_return, MessageType.error)


class RefusedError(Exception):
    """A call was answered with an error; the text is its name and message."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name


class BusConnection:
    """Method calls, their replies, and subscribed signals; made by `connected`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._serials = count(1)
        self._sending = trio.Lock()
        self._answers: dict[int, _Answer] = {}
        # Unbounded, because a dropped signal could let the machine sleep with the keys in memory; only
        # subscribed signals get here.
        self._received, self._signals = trio.open_memory_channel[Message](math.inf)

    async def call(self, message: Message) -> tuple[Any, ...]:
        """Call a method; returns the body of the reply. The caller closes descriptors in it.

        Raises RefusedError if the reply is an error, trio.TooSlowError if none comes, and
        trio.BrokenResourceError or trio.ClosedResourceError if the connection ended.
        """
        serial = next(self._serials)
        answer = self._answers[serial] = _Answer()
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._send(message.serialise(serial))
                await answer.came.wait()
            if answer.message is None:
                raise trio.BrokenResourceError("the bus hung up")
            body: tuple[Any, ...] = unwrap_msg(answer.message)
            return body
        except DBusErrorResponse as error:
            _close(answer.descriptors)
            raise RefusedError(str(error.name), str(error.data[0]) if error.data else "") from None
        except BaseException:
            _close(answer.descriptors)  # the reply may have arrived at the moment of a cancellation
            raise
        finally:
            del self._answers[serial]

    async def next_signal(self) -> Message:
        """The next subscribed signal, in order."""
        return await self._signals.receive()

    async def _send(self, content: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(content)
            except BaseException:
                # Part of it may have been sent: the next message would be taken for the rest.
                self._stream.socket.close()
                raise

    async def _read(self) -> None:
        while True:
            descriptors: list[FileDescriptor] = []
            try:
                content = await self._receive_message(descriptors)
                if content is not None:
                    with suppress(Exception):  # jeepney cannot parse it; the next message is not affected
                        self._hand_out(content, descriptors)
            finally:
                _close(descriptors)

    def _hand_out(self, content: bytes, descriptors: list[FileDescriptor]) -> None:
        """Pass on a message; a call that waits for it takes the descriptors out of the list."""
        header, _ = Header.from_buffer(content)
        if header.message_type in _REPLIES:
            answer = self._answers.get(header.fields.get(HeaderFields.reply_serial))
            if answer is not None and not answer.came.is_set():
                answer.message = Message.from_buffer(content, fds=descriptors)
                answer.descriptors, descriptors[:] = descriptors[:], []
                answer.came.set()
        # A signal without a destination was routed by a match rule, which names a sender that the bus
        # guarantees. Anyone can send a look-alike to a destination (D-Bus specification, "Message Bus Message
        # Routing").
        elif header.message_type is MessageType.signal and HeaderFields.destination not in header.fields:
            self._received.send_nowait(Message.from_buffer(content, fds=descriptors))

    async def _receive_message(self, descriptors: list[FileDescriptor]) -> bytes | None:
        start = await self._receive(_START_BYTES, descriptors)
        left = calc_msg_size(start) - _START_BYTES
        if left <= MAX_MESSAGE_BYTES:
            return start + await self._receive(left, descriptors)
        while left:
            left -= len(await self._receive(min(left, MAX_MESSAGE_BYTES), descriptors))
        return None

    async def _receive(self, size: int, descriptors: list[FileDescriptor]) -> bytes:
        content = b""
        while len(content) < size:
            # No checkpoint between receiving and adding to `descriptors`, so none can be lost.
            piece, ancillary, _, _ = await self._stream.socket.recvmsg(
                size - len(content), fds_buf_size(), socket.MSG_CMSG_CLOEXEC
            )
            descriptors += FileDescriptor.from_ancdata(ancillary)
            if not piece:
                raise trio.BrokenResourceError("the bus hung up")
            content += piece
        return content


class _Answer:
    """The reply that a call waits for; there is no message if the connection ended first."""

    def __init__(self) -> None:
        self.came = trio.Event()
        self.message: Message | None = None
        self.descriptors: list[FileDescriptor] = []


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[BusConnection]:
    """Connect to the bus at a socket path; an abstract one begins with a NUL.

    Raises OSError, trio.TooSlowError, trio.BrokenResourceError or what jeepney raises if that fails. If the
    connection breaks, the body is cancelled and an exception group raised.
    """
    with trio.fail_after(ANSWER_SECONDS):
        stream = await trio.open_unix_socket(address)
    connection = BusConnection(stream)
    try:
        async with stream:
            with trio.fail_after(ANSWER_SECONDS):
                await _authenticate(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection._read)
                await connection.call(message_bus.Hello())
                yield connection
                nursery.cancel_scope.cancel()
    finally:
        # Ends calls of other tasks that are waiting; later ones find the socket closed.
        for answer in connection._answers.values():
            answer.came.set()


async def _authenticate(stream: trio.SocketStream) -> None:
    dialogue = Authenticator(enable_fds=True, inc_null_byte=False)
    await stream.send_all(b"\0")
    for line in dialogue:
        await stream.send_all(line)
        answer = await stream.receive_some()
        if not answer:
            raise trio.BrokenResourceError("the bus hung up")
        dialogue.feed(answer)
    await stream.send_all(BEGIN)


def _close(descriptors: list[FileDescriptor]) -> None:
    for descriptor in descriptors:
        descriptor.close()
