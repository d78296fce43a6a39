"""Events from the agent, on a connection of their own.

`Feed` is what the blocking and the async iterator share, as steps (see `repeating`); `Events` is the
blocking one.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections import deque

from ..errors import ProtocolError
from ..protocol import methods
from ..protocol.codec import Notification, RefusedRequest, Request, Response
from ..protocol.exchange import Exchange
from ..protocol.methods import error_from_wire
from .connection import Connection
from .pool import Pool
from .repeating import Attempts, carry_out, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TypeVar

    from ..protocol.codec import Message
    from ..protocol.exchange import Answer
    from ..protocol.methods import Call
    from ..protocol.results import Event
    from .connection import Steps

    T = TypeVar("T")


class EventExchange(Exchange):
    """A conversation in which events may come at any time: before the answer, together with it, and after it.

    Messages are kept as they came and read one by one, so that events before a malformed one are delivered.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unread: deque[Message] = deque()

    @property
    def is_whole(self) -> bool:
        """Whether the last message is complete."""
        return not self._decoder.has_partial_message

    def receive(self, data: bytes, call: Call[T]) -> Answer[T] | None:
        """As `Exchange.receive`; keeps the events."""
        messages = self._decoder.receive(data)
        for number, message in enumerate(messages):
            answer = self._answer(message, call)
            if answer is not None:
                self._unread.extend(messages[number + 1 :])
                return answer
            self._unread.append(message)
        if self._decoder.failure is not None:
            raise self._decoder.failure
        return None

    def keep(self, data: bytes) -> None:
        """Take received bytes, after the answer."""
        self._unread.extend(self._decoder.receive(data))

    def next_event(self) -> Event | None:
        """The next received event, or None; skips other notifications and late answers.

        Raises:
            ProtocolError: the peer sent something that no agent sends; close the connection.
        """
        while self._unread:
            match self._unread.popleft():
                case Notification(methods.EVENT, params):
                    return methods.read_event(params)
                case Response(0, error, _) if error is not None:  # the agent's last message
                    raise ProtocolError(f"the agent closed the connection: {error_from_wire(error).sentence}")
                case Request() | RefusedRequest():
                    raise ProtocolError("expected an event, got a request")
        if self._decoder.failure is not None:
            raise self._decoder.failure
        return None


class Feed:
    """A connection on which the agent sends events, used by the process that made it."""

    def __init__(self, connection: Connection, exchange: EventExchange) -> None:
        self._connection = connection
        self._exchange = exchange
        self._pid = os.getpid()
        self._closed = False

    def is_closed(self) -> bool:
        """Whether there will be no more events; in a forked child from the beginning."""
        return self._closed or os.getpid() != self._pid

    def next_event(self) -> Steps[Event | None]:
        """The next event; None if the feed is closed, here or by the agent. Giving up loses no event.

        Raises:
            ProtocolError: something else than an event came; the feed is closed.
        """
        try:
            while not self.is_closed():
                event = self._exchange.next_event()
                if event is not None:
                    return event
                try:
                    data = yield from self._connection.listen()
                except OSError:  # the agent was killed, which also ends the connection
                    data = b""
                if data:
                    self._exchange.keep(data)
                elif self.is_closed() or self._exchange.is_whole:
                    self.close()
                else:
                    raise ProtocolError("the connection ended in the middle of a message")
        except ProtocolError:
            self.close()
            raise
        return None

    def close(self) -> None:
        """End the events and wake whoever waits for one. The descriptor stays open until `release`."""
        if not self.is_closed():
            self._closed = True
            self._connection.hang_up()

    def release(self) -> None:
        """Close the descriptor, once nobody waits on it."""
        self._connection.close()


class _Source(Pool):
    """The pool from which `carry_out` gets the connection of a feed, and in which it leaves it."""

    def __init__(self, path: str, agent_uid: int | None) -> None:
        super().__init__(path, agent_uid)
        self.exchange = EventExchange()
        self.kept: Connection | None = None

    def take(self) -> Connection:
        self.exchange = EventExchange()
        return Connection.open(self._path, self.exchange, agent_uid=self._agent_uid)

    def give_back(self, connection: Connection) -> None:
        self.kept = connection

    def drop(self, connection: Connection) -> None:
        connection.close()


def open_feed(path: str, attempts: Attempts, agent_uid: int | None = None) -> Steps[Feed]:
    """Connect to the agent and subscribe; raises as every call does."""
    source = _Source(path, agent_uid)
    agreed = False
    try:
        agreed = yield from carry_out(source, methods.SUBSCRIBE.call(), attempts)
        if source.kept is None or not agreed:
            raise ProtocolError(f"what listens at {path} did not agree to send events")
        return Feed(source.kept, source.exchange)
    finally:
        if source.kept is not None and not agreed:
            source.kept.close()


class Events:
    """What happens at the agent, in its order; made by `Client.subscribe`.

    An iterator, and a context manager that closes it. It ends after `close`, or when the agent closes the
    connection, usually after an event of the kind "stopping". Ctrl-C interrupts the wait and loses no event:
    iteration can continue. `Event.missed` says how many events were lost on the way.

    It is thread-safe; each event goes to one thread. A forked child gets none.

    Iterating raises `ProtocolError` if something else than an event came, and closes it.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._turn = allocate_lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            with self._turn:
                event = run(self._feed.next_event())
        finally:
            self._release_if_closed()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End the events, also for a thread that waits for one."""
        self._feed.close()
        self._release_if_closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _release_if_closed(self) -> None:
        # Not while another thread waits on the descriptor, whose number could be reused: that thread comes
        # here afterwards.
        if self._feed.is_closed() and self._turn.acquire(blocking=False):
            try:
                self._feed.release()
            finally:
                self._turn.release()
