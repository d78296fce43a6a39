"""Against a fake bus that sends malformed and hostile messages."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.low_level import Parser

from agentd.locking.bus_connection import (
    ANSWER_SECONDS,
    MAX_MESSAGE_BYTES,
    BusConnection,
    RefusedError,
    connected,
)

ASKED = DBusAddress("/", "org.example", "org.example")
QUESTION = new_method_call(ASKED, "Question")


class FakeBus:
    """The other end of one connection."""

    stream: trio.SocketStream
    connection: BusConnection

    def __init__(self) -> None:
        self._parser = Parser()
        self.kept: list[socket.socket] = []

    async def greet(self) -> None:
        for ending, said in ((b"\r\n", b"OK 0123\r\n"), (b"NEGOTIATE_UNIX_FD\r\n", b"AGREE_UNIX_FD\r\n")):
            await self._receive_until(ending)
            await self.stream.send_all(said)
        await self._receive_until(b"BEGIN\r\n")
        await self.answer(await self.next_call(), "s", ":1.1")

    async def _receive_until(self, ending: bytes) -> None:
        received = b""
        while not received.endswith(ending):
            # Byte by byte, because a message follows the last line.
            received += await self.stream.receive_some(1)

    async def next_call(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._parser.add_data(await self.stream.receive_some())
        return message

    async def answer(self, call: Message, signature: str | None = None, *body: object) -> None:
        await self.send(new_method_return(call, signature, body))

    async def send(self, message: Message) -> None:
        await self.stream.send_all(message.serialise(1))

    async def send_with_descriptor(self, message: Message, size: int | None = None) -> socket.socket:
        """Send a message with a descriptor, or its first bytes; returns the other end of the descriptor."""
        sent, kept = socket.socketpair()
        self.kept.append(kept)
        with sent:
            message.header.fields[HeaderFields.unix_fds] = 1
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", sent.fileno()))]
            await self.stream.socket.sendmsg([message.serialise(1)[:size]], rights)
        return kept


@asynccontextmanager
async def fake_bus(path) -> AsyncIterator[FakeBus]:
    """A bus that accepts one connection, to be made in the body."""
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen()
        async with trio.open_nursery() as nursery:
            bus = FakeBus()

            async def accept():
                bus.stream = await trio.SocketListener(listening).accept()
                await bus.greet()

            nursery.start_soon(accept)
            try:
                yield bus
            finally:
                await trio.aclose_forcefully(bus.stream)
                for kept in bus.kept:
                    kept.close()


@pytest.fixture
async def bus(tmp_path):
    """A fake bus and a connection to it."""
    async with fake_bus(tmp_path / "bus") as bus, connected(str(tmp_path / "bus")) as bus.connection:
        yield bus


async def is_closed(kept: socket.socket) -> bool:
    """Wait until the receiver of the descriptor has closed it."""
    with trio.fail_after(30):
        await trio.lowlevel.wait_readable(kept)
    return kept.recv(1) == b""


@pytest.fixture
def ask(bus, nursery):
    """Call the fake bus from a task; yields the call as received, and its outcome."""

    async def begin():
        ended = []

        async def call():
            try:
                ended.append(await bus.connection.call(QUESTION))
            except Exception as error:
                ended.append(error)

        nursery.start_soon(call)
        return await bus.next_call(), ended

    return begin


async def until(ended):
    with trio.fail_after(30):
        while not ended:
            await trio.lowlevel.checkpoint()


async def test_answers_may_come_in_any_order(bus, ask):
    first, first_end = await ask()
    second, second_end = await ask()
    await bus.answer(second, "s", "second")
    await until(second_end)
    assert first_end == []
    await bus.answer(first, "s", "first")
    await until(first_end)
    assert (first_end, second_end) == ([("first",)], [("second",)])


async def test_an_error_is_a_refusal_with_its_name(bus, ask):
    for signature, body, text in ((None, (), "org.example.No"), ("s", ("never",), "org.example.No: never")):
        call, ended = await ask()
        await bus.send(new_error(call, "org.example.No", signature, body))
        await until(ended)
        assert isinstance(ended[0], RefusedError)
        assert (ended[0].name, str(ended[0])) == ("org.example.No", text)


async def test_an_answer_that_comes_too_late_is_let_go_of(autojump_clock, bus, ask):
    call, ended = await ask()
    await trio.sleep(ANSWER_SECONDS + 1)
    assert isinstance(ended[0], trio.TooSlowError)
    kept = await bus.send_with_descriptor(new_method_return(call))
    assert await is_closed(kept)


async def test_an_answer_that_comes_with_the_cancellation_is_let_go_of(bus, nursery, monkeypatch):
    scope, ended, send = trio.CancelScope(), trio.Event(), bus.connection._send

    async def sent_slowly(content):
        await send(content)
        (answer,) = bus.connection._answers.values()
        await answer.came.wait()
        scope.cancel()

    async def call():
        with scope:
            await bus.connection.call(QUESTION)
        ended.set()

    monkeypatch.setattr(bus.connection, "_send", sent_slowly)
    nursery.start_soon(call)
    kept = await bus.send_with_descriptor(new_method_return(await bus.next_call()))
    await ended.wait()
    assert scope.cancelled_caught
    assert await is_closed(kept)


async def test_a_descriptor_that_is_asked_for_is_the_callers_and_no_execs(bus, ask, monkeypatch):
    call, ended = await ask()
    message = new_method_return(call, "u", (0,))
    message.header.fields[HeaderFields.unix_fds] = 1
    # In a body, a descriptor is a number; only the signature distinguishes it from an integer.
    content = message.serialise(1).replace(b"\x01g\0\x01u", b"\x01g\0\x01h")
    monkeypatch.setattr(message, "serialise", lambda serial: content)
    kept = await bus.send_with_descriptor(message)
    await until(ended)
    ((descriptor,),) = ended
    with descriptor:
        assert not os.get_inheritable(descriptor.fileno())
        os.write(descriptor.fileno(), b"x")
    assert kept.recv(2) == b"x"
    assert await is_closed(kept)


async def test_the_end_of_the_connection_fails_waiting_and_later_calls(tmp_path, nursery):
    ended = []

    async def call(connection):
        try:
            await connection.call(QUESTION)
        except Exception as error:
            ended.append(type(error))

    async with fake_bus(tmp_path / "bus") as bus:
        with pytest.RaisesGroup(pytest.RaisesExc(trio.BrokenResourceError, match="hung up")):
            async with connected(str(tmp_path / "bus")) as connection:
                nursery.start_soon(call, connection)
                await bus.next_call()
                await bus.stream.aclose()
                await trio.sleep_forever()
    await until(ended)
    await call(connection)
    assert ended == [trio.BrokenResourceError, trio.ClosedResourceError]


async def test_a_call_that_is_cancelled_while_it_is_sent_ends_the_connection(tmp_path, nursery):
    # The bus would take the next message for the rest of this one.
    scope = trio.CancelScope()

    async def call(connection):
        with scope:
            await connection.call(new_method_call(ASKED, "Question", "ay", (bytes(2**21),)))

    async with fake_bus(tmp_path / "bus"):
        with pytest.RaisesGroup(trio.ClosedResourceError), trio.fail_after(30):
            async with connected(str(tmp_path / "bus")) as connection:
                nursery.start_soon(call, connection)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_descriptor_in_half_a_message_is_let_go_of_when_the_connection_ends(
    tmp_path, open_descriptors
):
    before = open_descriptors()
    async with fake_bus(tmp_path / "bus") as bus:
        async with connected(str(tmp_path / "bus")):
            during = open_descriptors()
            kept = await bus.send_with_descriptor(signal("half", signature="s"), 20)
            with trio.fail_after(30):
                while len(open_descriptors()) < len(during) + 2:  # both ends
                    await trio.lowlevel.checkpoint()
        assert await is_closed(kept)
    assert open_descriptors() == before


async def test_a_second_answer_to_one_call_is_let_go_of(bus, ask, monkeypatch):
    send, both_came = bus.connection._send, trio.Event()

    async def sent_slowly(content):
        await send(content)
        await both_came.wait()

    monkeypatch.setattr(bus.connection, "_send", sent_slowly)
    call, ended = await ask()
    await bus.answer(call, "s", "first")
    kept = await bus.send_with_descriptor(new_method_return(call))
    assert await is_closed(kept)
    both_came.set()
    await until(ended)
    assert ended == [("first",)]


def signal(*body: object, destination: str | None = None, signature: str | None = None) -> Message:
    message = new_signal(DBusAddress("/", interface="org.example"), "Happened", signature, body)
    if destination is not None:
        message.header.fields[HeaderFields.destination] = destination
    return message


async def happened(bus) -> tuple:
    with trio.fail_after(30):
        return (await bus.connection.next_signal()).body


async def test_signals_to_a_destination_are_ignored_and_calls_not_answered(bus):
    await bus.send(signal("forged", destination=":1.1", signature="s"))
    await bus.send(new_method_call(ASKED, "Question", "s", ("forged",)))
    kept = await bus.send_with_descriptor(signal(0, destination=":1.1", signature="u"))
    await bus.send(signal("genuine", signature="s"))
    assert await happened(bus) == ("genuine",)
    assert await is_closed(kept)


async def test_a_descriptor_in_a_signal_is_let_go_of(bus):
    kept = await bus.send_with_descriptor(signal())
    assert await happened(bus) == ()
    assert await is_closed(kept)


async def test_an_overlong_message_is_skipped_without_being_parsed(bus):
    await bus.send(signal(bytes(MAX_MESSAGE_BYTES), signature="ay"))
    await bus.send(signal(bytes(10 * MAX_MESSAGE_BYTES), signature="ay"))
    await bus.send(signal(bytes(MAX_MESSAGE_BYTES - 1000), signature="ay"))
    assert await happened(bus) == (bytes(MAX_MESSAGE_BYTES - 1000),)


@pytest.mark.parametrize(("at", "byte"), [(1, 9), (16, 77)])
async def test_an_unparsable_message_is_skipped(bus, at, byte):
    content = bytearray(signal().serialise(1))
    content[at] = byte  # the type of the message, the first field of its header
    await bus.stream.send_all(content)
    await bus.send(signal("genuine", signature="s"))
    assert await happened(bus) == ("genuine",)


async def test_a_message_comes_in_pieces(bus):
    for byte in signal("genuine", signature="s").serialise(1):
        await bus.stream.send_all(bytes([byte]))
    assert await happened(bus) == ("genuine",)
