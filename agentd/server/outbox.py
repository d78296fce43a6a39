"""The sending half of a connection. Replies are mandatory, events best-effort."""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
from collections import deque
from collections.abc import Callable

import trio
from trio.lowlevel import ParkingLot, wait_writable

from agentd_client.protocol.codec import Encoder
from agentd_client.protocol.limits import MAX_EVENTS_WAITING, REPLY_SECONDS
from agentd_client.protocol.methods import EVENT, to_wire
from agentd_client.protocol.results import MISSED, Event

from .log import PeerLog, Reason
from .peer import Peer, Subscriber, Unsubscribe

LAST_EVENTS_SECONDS = 1.0
"""For a subscriber to read the events that are queued when its connection ends."""

_activity = itertools.count()
"""The order of what happened on all connections. Cheaper than a clock, and no two have the same number."""


class Subscription:
    """The events queued for one subscriber, a bounded number of them, and a count of those lost.

    Events are encoded when they are sent: subscribers share them, and a queued one costs a reference.
    """

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._waiting: deque[Event] = deque()
        self._missed = 0
        self._missed_at = 0.0

    def __bool__(self) -> bool:
        """Whether an event is queued."""
        return bool(self._waiting)

    def add(self, event: Event) -> None:
        """Queue an event, or count it as missed if `MAX_EVENTS_WAITING` are queued."""
        if len(self._waiting) >= MAX_EVENTS_WAITING:
            self._missed += 1
            self._missed_at = event.at
        else:
            self.add_last(event)

    def add_last(self, event: Event) -> None:
        """Queue the last event, however many are queued. It also says how many were missed before it."""
        self._waiting.append(event._replace(missed=self._missed) if self._missed else event)
        self._missed = 0

    def take(self) -> bytes:
        """The next event as a notification; there must be one.

        How many were lost since follows the last queued one: another event may not come for a long time.
        """
        event = self._waiting.popleft()
        if self._missed and not self._waiting:
            self.add_last(Event(MISSED, self._missed_at, None, "", None, None))
        return self._encoder.notification(EVENT, to_wire(event))


class Outbox:
    """Sends on a connected, non-blocking socket that its connection owns and closes.

    Replies that the kernel does not take at once have a deadline. Events have none: they wait in the
    `Subscription`, which is bounded, and at most one is sent before a reply.

    lost: the peer reads no more. owes_replies: replies wait for the peer. last_active: when the peer was last
    sent replies or had read all of them, as a number that orders all connections. needs_task: something waits
    to be sent, or will; call `start`.
    """

    def __init__(self, sock: socket.socket, peer: Peer, log: PeerLog, held: ParkingLot) -> None:
        """`held` is woken when the peer has read its replies, and when it is lost."""
        self._sock = sock
        self._peer = peer
        self._log = log
        self._held = held
        self.lost = False
        self.owes_replies = False
        self.needs_task = False
        self.last_active = next(_activity)
        # What the kernel did not take yet. One task sends it, and then events; `_taking` is its deadline.
        self._backlog = bytearray()
        self._taking = trio.CancelScope()
        self._is_writing = False
        self._tasks: trio.Nursery | None = None
        self._subscription: Subscription | None = None
        self._unsubscribe: Unsubscribe | None = None
        self._last_event: Event | None = None
        self._events_until = math.inf

    def start(self, tasks: trio.Nursery) -> None:
        """Send what has to wait from this nursery, which stays open until after `end_events`."""
        self._tasks = tasks
        if self._is_writing:
            tasks.start_soon(self._write)

    def send(self, data: bytes) -> None:
        """Send whole replies now, or as soon as the peer reads them."""
        if self.lost or not data:
            return
        self.last_active = next(_activity)
        sent = 0
        if not self._backlog:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self._lose()
                return
        if sent < len(data):
            self._backlog += data[sent:]
            if not self.owes_replies:
                self.owes_replies = True
                self._taking.deadline = trio.current_time() + REPLY_SECONDS
            self._start_writing()

    def subscribe(self, source: Callable[[Subscriber], Unsubscribe]) -> None:
        """Send every event of `source` from now on. Once subscribed, a no-op.

        Another task sends events, so none precedes the replies that the current task sends without waiting.
        """
        if self._subscription is not None or self.lost:
            return
        self._subscription = Subscription()
        self.needs_task = True
        if self._last_event is None:
            self._unsubscribe = source(self._add_event)
        else:
            self._add_last_event(self._subscription, self._last_event)

    def announce_end(self, event: Event) -> None:
        """Make this a subscriber's last event, also if it subscribes later."""
        if self._last_event is not None or self._events_until < math.inf:
            return
        self._last_event = event
        if self._subscription is not None:
            self._add_last_event(self._subscription, event)

    def end_events(self) -> None:
        """Take no more events, and give the peer a moment to read those that are queued."""
        self._stop_events()
        self._events_until = trio.current_time() + LAST_EVENTS_SECONDS
        if self._is_writing and not self.owes_replies:
            self._taking.deadline = self._events_until

    def _add_event(self, event: Event) -> None:
        if self._subscription is not None:
            self._subscription.add(event)
            self._start_writing()

    def _add_last_event(self, subscription: Subscription, event: Event) -> None:
        self._stop_events()
        subscription.add_last(event)
        self._start_writing()

    def _stop_events(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def _start_writing(self) -> None:
        if not self._is_writing:
            self._is_writing = self.needs_task = True
            if self._tasks is not None:
                self._tasks.start_soon(self._write)

    async def _write(self) -> None:
        """Send what is queued. Replies have one deadline, which reading drop by drop does not renew."""
        with self._taking:
            while self._backlog or self._subscription:
                if not self._backlog and self._subscription:
                    self._backlog += self._subscription.take()
                await wait_writable(self._sock)
                try:
                    sent = self._sock.send(self._backlog)
                except BlockingIOError:
                    continue
                except OSError:
                    self._lose()
                    break
                del self._backlog[:sent]
                if not self._backlog:
                    self.owes_replies = False
                    self._taking.deadline = self._events_until
                    self.last_active = next(_activity)
                    self._held.unpark_all()
        if self._taking.cancelled_caught and self.owes_replies:
            self._log.write(Reason.NOT_TAKING, self._peer)
            self._lose()
        elif self._taking.cancelled_caught:
            # Only events. The rest of one stays in the backlog, because a reply may still follow it.
            self._subscription = None
        self._is_writing = False
        self._taking = trio.CancelScope(deadline=self._events_until)  # each serves once

    def _lose(self) -> None:
        """The peer reads no more: wake the reader, which ends. Work that has begun is still carried out."""
        self.lost = True
        self.owes_replies = False
        self._backlog.clear()
        self._subscription = None
        self._stop_events()
        with contextlib.suppress(OSError):  # ENOTCONN
            self._sock.shutdown(socket.SHUT_RDWR)
        self._held.unpark_all()
