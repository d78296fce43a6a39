"""Asks with desktop notifications that have buttons (Desktop Notifications Specification 1.3).

Every program of the user can send signals on the session bus. So an answer counts only if it comes from the
connection that owns the name of the notification server, for a notification that this server made for us and
that still waits, and for a button that it was given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from html import escape

import anyio
from jeepney import DBusAddress, HeaderFields, MatchRule, Message, message_bus, new_method_call

from ..protocol.results import APPROVE, DENY, RequestInfo
from .bus import ANSWER_SECONDS, MAX_UNANSWERED, Bus, BusError, OnMessage, checked, connected, sender
from .text import TITLE, about, seconds_left

AT_ONCE = 4
"""Notifications at a time; further requests wait until one of them is gone."""

ROOM = 600
"""Characters in a notification. GNOME shows six lines of some sixty and a half before it cuts them off; the
last paragraphs, which say why and until when, matter least."""

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 15.0
"""Between attempts to reach the bus or the server, doubled each time."""

_SERVER = DBusAddress(
    "/org/freedesktop/Notifications", "org.freedesktop.Notifications", "org.freedesktop.Notifications"
)
_BUS_NAME = "org.freedesktop.DBus"

_ICON = "dialog-password"
_BUTTONS = {APPROVE: "Approve", DENY: "Deny"}
_CRITICAL = ("y", 2)
"""The urgency of what should stay until it is answered or closed. A request ends after minutes."""

_BRIEF_MILLISECONDS = 10_000

Say = Callable[[str], None]
"""Tells whoever reads the log."""


class _LostError(Exception):
    """The notification is gone with the server or the bus, and nobody answered it."""


class Notifications:
    """The place `notification`."""

    at_once = AT_ONCE

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()
        self._server: _Server | None = None
        self._came = anyio.Event()

    async def run(self) -> None:
        """Hold a connection to the session bus until cancelled; connects again when it ends."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            server = _Server()
            why = "it hung up"
            try:
                async with connected(server.on_signal) as bus:
                    await server.begin(bus)
                    self._server = server
                    self._came.set()
                    pause_seconds = FIRST_PAUSE_SECONDS
                    await server.close_late_ones()
            except BusError as error:
                why = str(error)
            finally:
                if self._server is not None:
                    self._server, self._came = None, anyio.Event()
                server.lose_all()
            self._say_once(f"no notifications while the session bus cannot be used: {why}")
            await anyio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def ask(self, request: RequestInfo, decisions: Sequence[str]) -> str | None:
        """Show a request with buttons for these decisions, again if the server restarts.

        Returns the decision, or None if the notification was closed.
        """
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            await self._came.wait()
            try:
                if self._server is not None:
                    return await self._show(self._server, request, decisions)
            except _LostError:
                pass
            except BusError as error:
                self._say_once(f"a notification could not be shown: {error}")
            await anyio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def tell(self, text: str) -> None:
        """Show for a moment what became of a decision; that is also in the log."""
        if self._server is not None:
            try:
                await self._server.notify("agentd", text, [], _BRIEF_MILLISECONDS, _ignore)
            except BusError:
                return

    async def _show(self, server: _Server, request: RequestInfo, decisions: Sequence[str]) -> str | None:
        capabilities = await server.capabilities()
        text = about(request, time.time(), room=ROOM)
        offered = [decision for decision in decisions if decision == DENY or text.can_be_approved]
        if not {"actions", "body"} <= capabilities:
            self._say_once(
                "this desktop's notifications have no buttons: they only say to use `agentctl approve`"
            )
            offered = []
        body = text.body
        if APPROVE not in offered:
            body = f"{body}\nTo decide: agentctl approve {request.id}"
        return await server.ask(body, offered, seconds_left(request))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


class _Question:
    """A notification that waits for an answer."""

    def __init__(self, decisions: Sequence[str]) -> None:
        self.decisions = decisions
        self.id: int | None = None
        self.decision: str | None = None
        self.is_lost = False
        self.is_over = False
        self.shown = anyio.Event()
        self.ended = anyio.Event()

    def end(self, decision: str | None = None, *, is_lost: bool = False) -> None:
        self.id = None
        self.decision, self.is_lost, self.is_over = decision, is_lost, True
        self.shown.set()
        self.ended.set()


class _Server:
    """The notification server, as one connection to the bus sees it.

    What arrives is dealt with at once and in its order, because an answer may come right behind the id of the
    notification that it is for.
    """

    def __init__(self) -> None:
        self._bus: Bus | None = None
        self._owner: str | None = None
        self._capabilities: tuple[str | None, frozenset[str]] = (None, frozenset())
        self._waiting: dict[int, _Question] = {}
        self._unshown: set[_Question] = set()
        self._late, self._too_late = anyio.create_memory_object_stream[int](MAX_UNANSWERED)

    async def begin(self, bus: Bus) -> None:
        """Follow who the server is, and what it says."""
        owner_changed = _signal(_BUS_NAME, _BUS_NAME, "NameOwnerChanged")
        owner_changed.add_arg_condition(0, _SERVER.bus_name)
        await bus.call(message_bus.AddMatch(owner_changed))
        for member in ("ActionInvoked", "NotificationClosed"):
            await bus.call(message_bus.AddMatch(_signal(_SERVER.bus_name, _SERVER.interface, member)))
        # What changes after the reply is in a signal that comes after it.
        await bus.request(message_bus.GetNameOwner(_SERVER.bus_name), self._on_owner)
        self._bus = bus

    async def close_late_ones(self) -> None:
        """Close the notifications that were shown after nobody waited for them any more, until cancelled."""
        async for id in self._too_late:
            await self._close(id)

    async def capabilities(self) -> frozenset[str]:
        """What the server can do; the bus starts one if it knows how.

        Raises:
            BusError: there is none, or it does not answer.
        """
        if self._owner is None or self._capabilities[0] != self._owner:
            assert self._bus is not None
            reply = await self._bus.call(new_method_call(_SERVER, "GetCapabilities"))
            match reply.body:
                case (list(found),):
                    self._capabilities = sender(reply), frozenset(map(str, found))
                case _:
                    raise BusError("the answer makes no sense")
        return self._capabilities[1]

    async def ask(self, body: str, decisions: Sequence[str], seconds: float) -> str | None:
        """Show a notification and wait for an answer. It is closed if the task is cancelled.

        Raises:
            BusError: it cannot be shown.
            _LostError: the server or the bus went away.
        """
        question = _Question(decisions)
        self._unshown.add(question)
        try:
            shown = partial(self._on_shown, question)
            await self.notify(TITLE, body, decisions, int(seconds * 1000), shown)
            with anyio.move_on_after(ANSWER_SECONDS):
                await question.shown.wait()
            if not question.shown.is_set():
                raise BusError("no answer")
            await question.ended.wait()
            if question.is_lost:
                raise _LostError
            return question.decision
        finally:
            question.is_over = True
            self._unshown.discard(question)
            if question.id is not None:
                del self._waiting[question.id]
                await self._close(question.id)

    async def notify(
        self, title: str, body: str, decisions: Sequence[str], milliseconds: int, on_reply: OnMessage
    ) -> None:
        """Show a notification. The reply has its id.

        Raises:
            BusError: it cannot be sent.
        """
        assert self._bus is not None
        # The title is never markup.
        shown = escape(body, quote=False) if "body-markup" in self._capabilities[1] else body
        buttons = [text for decision in decisions for text in (decision, _BUTTONS[decision])]
        arguments = ("agentd", 0, _ICON, title, shown, buttons, {"urgency": _CRITICAL}, milliseconds)
        await self._bus.request(new_method_call(_SERVER, "Notify", "susssasa{sv}i", arguments), on_reply)

    def on_signal(self, signal: Message) -> None:
        """Deal with a signal, which any program may have sent."""
        field = signal.header.fields.get
        whence = sender(signal), field(HeaderFields.interface), field(HeaderFields.member)
        if whence == (_BUS_NAME, _BUS_NAME, "NameOwnerChanged"):
            match signal.body:
                case (_SERVER.bus_name, str(), str(owner)):
                    self._set_owner(owner or None)
        elif self._owner is not None and whence[:2] == (self._owner, _SERVER.interface):
            match whence[2], signal.body:
                case "ActionInvoked", (int(id), str(action)):
                    question = self._waiting.get(id)
                    if question is not None and action in question.decisions:
                        self._end(id, action)
                case "NotificationClosed", (int(id), int()):
                    self._end(id, None)

    def lose_all(self) -> None:
        """The server went away, or the bus, and the notifications with it."""
        for question in (*self._waiting.values(), *self._unshown):
            question.end(is_lost=True)
        self._waiting.clear()
        self._unshown.clear()

    def _end(self, id: int, decision: str | None) -> None:
        question = self._waiting.pop(id, None)
        if question is not None:
            question.end(decision)

    def _on_owner(self, reply: Message) -> None:
        try:
            (owner,) = checked(reply).body
        except (BusError, ValueError):  # nobody, so far
            owner = None
        self._set_owner(owner)

    def _set_owner(self, owner: str | None) -> None:
        if owner != self._owner:
            self._owner = owner
            # Not those that are still to be shown, which may have started this server.
            for id in list(self._waiting):
                self._waiting.pop(id).end(is_lost=True)

    def _on_shown(self, question: _Question, reply: Message) -> None:
        self._unshown.discard(question)
        try:
            (id,) = checked(reply).body
        except (BusError, ValueError):
            question.end(is_lost=True)
            return
        if sender(reply) != self._owner or not isinstance(id, int):
            question.end(is_lost=True)
        elif question.is_over:
            with suppress(anyio.WouldBlock):
                self._late.send_nowait(id)
        else:
            self._end(id, None)  # no server gives the same id to two
            question.id = id
            self._waiting[id] = question
            question.shown.set()

    async def _close(self, id: int) -> None:
        assert self._bus is not None
        with suppress(BusError):  # then it is gone with the bus
            await self._bus.send(new_method_call(_SERVER, "CloseNotification", "u", (id,)))


def _signal(sender: str, interface: str, member: str) -> MatchRule:
    return MatchRule(type="signal", sender=sender, interface=interface, member=member)


def _ignore(reply: Message) -> None:
    pass
