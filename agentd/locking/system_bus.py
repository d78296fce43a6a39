"""What logind is asked and what it says, over the system bus: the one door to jeepney."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from jeepney import (
    DBusAddress,
    DBusErrorResponse,
    FileDescriptor,
    HeaderFields,
    MatchRule,
    Message,
    Properties,
    message_bus,
    new_method_call,
)
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_bus
from jeepney.io.trio import DBusConnection, DBusRouter
from jeepney.wrappers import unwrap_msg

from .logind_bus import (
    BUS_NAME,
    LOGIND,
    MANAGER_INTERFACE,
    MANAGER_PATH,
    PROPERTIES_INTERFACE,
    SESSION_INTERFACE,
    SESSIONS_PATH,
    RefusedError,
    Signal,
)

ANSWER_SECONDS = 10.0
"""For one answer of the bus or of logind: both are quick, or something is wrong with them."""


class SystemBus:
    """A connection to the system bus; made by `system_bus`, and good for as long as that lasts.

    Every method raises RefusedError for an error that is answered, trio.TooSlowError where no answer comes,
    and what jeepney raises where the connection breaks.
    """

    def __init__(self, router: DBusRouter) -> None:
        self._router = router

    async def hear(self, *, on_suspend: bool, on_screen_lock: bool) -> None:
        """Have the bus pass on the signals of logind that are wanted, and its coming and going."""
        coming = MatchRule(type="signal", sender=BUS_NAME, interface=BUS_NAME, member="NameOwnerChanged")
        coming.add_arg_condition(0, LOGIND)
        rules = [coming]
        if on_suspend:
            rules.append(
                MatchRule(type="signal", sender=LOGIND, interface=MANAGER_INTERFACE, member="PrepareForSleep")
            )
        if on_screen_lock:
            hinted = MatchRule(
                type="signal",
                sender=LOGIND,
                interface=PROPERTIES_INTERFACE,
                member="PropertiesChanged",
                path_namespace=SESSIONS_PATH,
            )
            hinted.add_arg_condition(0, SESSION_INTERFACE)
            rules += [
                MatchRule(type="signal", sender=LOGIND, interface=SESSION_INTERFACE, member="Lock"),
                hinted,
            ]
        for rule in rules:
            await self._call(message_bus.AddMatch(rule))

    async def owner(self) -> str | None:
        """The unique name of the connection that is logind; None where there is none."""
        try:
            (name,) = await self._call(message_bus.GetNameOwner(LOGIND))
        except RefusedError:
            return None
        return str(name)

    async def inhibit(self) -> FileDescriptor:
        """Have logind wait before the machine sleeps, until the descriptor is closed or its patience ends."""
        manager = DBusAddress(MANAGER_PATH, LOGIND, MANAGER_INTERFACE)
        arguments = ("sleep", "agentd", "wipe keys before sleep", "delay")
        (descriptor,) = await self._call(new_method_call(manager, "Inhibit", "ssss", arguments))
        # recvmsg(2) hands over descriptors that an exec passes on; whoever has it can delay every sleep.
        os.set_inheritable(descriptor.fileno(), False)
        return descriptor

    async def uid_of(self, session_path: str) -> int:
        """The user of a logind session, by its object's path."""
        session = DBusAddress(session_path, LOGIND, SESSION_INTERFACE)
        ((_, (uid, _)),) = await self._call(Properties(session).get("User"))
        return int(uid)

    @asynccontextmanager
    async def signals(self) -> AsyncIterator[AsyncIterator[Signal]]:
        """Every signal from here on, in their order, until the connection breaks."""
        # Without a bound: a signal that is dropped is a machine that sleeps with the keys in memory, and what
        # the bus passes on is what was asked for.
        sending, receiving = trio.open_memory_channel[Message](math.inf)
        async with self._router.filter(MatchRule(type="signal"), channel=sending), receiving:
            yield (_signal(message) async for message in receiving)

    async def _call(self, message: Message) -> tuple[Any, ...]:
        with trio.fail_after(ANSWER_SECONDS):
            reply = await self._router.send_and_get_reply(message)
        try:
            body: tuple[Any, ...] = unwrap_msg(reply)
        except DBusErrorResponse as error:
            told = error.data[0] if error.data else ""
            raise RefusedError(str(error.name), str(told)) from None
        return body


@asynccontextmanager
async def system_bus() -> AsyncIterator[SystemBus]:
    """Connect to the bus of DBUS_SYSTEM_BUS_ADDRESS, or to the one at the usual place.

    Raises OSError, TooSlowError or what jeepney raises where that fails, and when the connection breaks
    cancels what runs inside and raises an exception group.
    """
    # As jeepney.io.trio.open_dbus_connection does, which leaves the socket open where it fails or is
    # cancelled, and turns round and round at a bus that hangs up in the middle.
    with trio.fail_after(ANSWER_SECONDS):
        stream = await trio.open_unix_socket(get_bus("SYSTEM"))
    async with stream:
        with trio.fail_after(ANSWER_SECONDS):
            await _authenticate(stream)
        async with DBusConnection(stream.socket, enable_fds=True).router() as router:
            with trio.fail_after(ANSWER_SECONDS):
                await router.send_and_get_reply(message_bus.Hello())
            yield SystemBus(router)


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


def _signal(message: Message) -> Signal:
    fields = message.header.fields
    names = (HeaderFields.sender, HeaderFields.path, HeaderFields.interface, HeaderFields.member)
    sender, path, interface, member = (str(fields.get(name, "")) for name in names)
    return Signal(sender, path, interface, member, tuple(message.body))
