"""Who wants to hear of what happens."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agentd_client.protocol.results import Event

from ..lifecycle import NOWHERE, EventLoop

Subscriber = Callable[[Event], None]
"""Told on the event loop's thread; it neither waits nor raises."""


class Subscribers:
    """Subscribers, and the one way to tell them something. They may outlive the manager that tells.

    They belong to the event loop of the manager that was started last, as long as that loop goes on.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._subscribers: list[Subscriber] = []
        self._loop = NOWHERE
        self._log = logger or logging.getLogger("agentd.sessions")

    def __bool__(self) -> bool:
        """Whether anybody wants to hear anything."""
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Tell of every event from now on; returns the function that ends this."""
        if not self._loop.has_ended:
            self._loop.require("the list of subscribers")
        self._subscribers.append(subscriber)

        def forget() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return forget

    def belong_here(self) -> None:
        """Be told on the event loop of the calling task."""
        self._loop = EventLoop.here()

    def publish(self, event: Event) -> None:
        """Tell everybody of an event."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                # What happened has happened; a subscriber's fault is neither its peer's nor the session's.
                self._log.exception("a subscriber failed")
