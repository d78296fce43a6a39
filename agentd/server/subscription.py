"""The events that wait for one subscriber: a bounded number of them, and a count of those that were lost."""

from __future__ import annotations

from collections import deque

from agentd_client.protocol.codec import Encoder
from agentd_client.protocol.limits import MAX_EVENTS_WAITING
from agentd_client.protocol.methods import EVENT
from agentd_client.protocol.results import MISSED, Event
from agentd_client.protocol.wire import to_wire


class Subscription:
    """Holds events in their order until they are taken, encoded.

    Events are kept as they came: subscribers share them, and what waits costs no more than a reference.
    """

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._waiting: deque[Event] = deque()
        self._missed = 0
        self._missed_at = 0.0

    def __bool__(self) -> bool:
        """Whether an event waits."""
        return bool(self._waiting)

    def add(self, event: Event) -> None:
        """Keep an event, or count it as missed where `MAX_EVENTS_WAITING` wait."""
        if len(self._waiting) >= MAX_EVENTS_WAITING:
            self._missed += 1
            self._missed_at = event.at
        else:
            self.add_last(event)

    def add_last(self, event: Event) -> None:
        """Keep an event after which none comes, however many wait: it also tells what was missed before."""
        self._waiting.append(event._replace(missed=self._missed) if self._missed else event)
        self._missed = 0

    def take(self) -> bytes:
        """The next event as a notification; there has to be one.

        After the last one that waits comes how many were lost since: another event may be long in coming.
        """
        event = self._waiting.popleft()
        if self._missed and not self._waiting:
            self.add_last(Event(MISSED, self._missed_at, None, "", None, None))
        return self._encoder.notification(EVENT, to_wire(event))
