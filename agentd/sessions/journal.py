"""What happened, told to those who want to know: subscribers, the audit log, the log.

Subscribers and the log are told what is on the disk already. The audit log's entry goes into the very
transaction that it tells of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd_client.protocol.results import REFUSED, SESSION_EXPIRED, Event, Opener

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from agentd_client.protocol.results import Verification

    from ..store import View
    from .audit import AuditLog
    from .clock import Clock
    from .records import SessionRecord


class Journal:
    """The one place that tells; everything but `write` runs on the event loop's thread."""

    def __init__(self, audit: AuditLog, clock: Clock, logger: logging.Logger) -> None:
        self.audit = audit
        self._clock = clock
        self._log = logger
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Tell of every event from now on; returns the function that ends this."""
        self._subscribers.append(subscriber)

        def forget() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return forget

    def write(
        self,
        view: View,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: Opener | None = None,
        reason: str | None = None,
    ) -> None:
        """Put the audit log's entry into a transaction."""
        path, entry = self.audit.entry(
            kind,
            self._clock.read(),
            session_id=None if record is None else record.session_id,
            label="" if record is None else record.label,
            reason=reason,
            by=by,
        )
        view.put(path, entry)

    def tell(
        self,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: Opener | None = None,
        reason: str | None = None,
    ) -> None:
        """Tell subscribers of what is durable; now and then, have the audit log kept within its bounds."""
        self.audit.trim_soon()
        if not self._subscribers:
            return
        self._publish(
            Event(
                kind=kind,
                at=self._clock.read().wall,
                session_id=None if record is None else record.session_id,
                label="" if record is None else record.label,
                reason=reason,
                peer_pid=None if by is None else by.pid,
            )
        )

    def refused(self, answer: Verification, by: Opener | None) -> None:
        """Tell of a token that was not valid: subscribers each time, the audit log in numbers."""
        now = self._clock.read()
        session_id = None if answer.session is None else answer.session.id
        label = "" if answer.session is None else answer.session.label
        assert answer.reason is not None
        self.audit.refused(answer.reason, now, by=by, session_id=session_id, label=label)
        if self._subscribers:
            pid = None if by is None else by.pid
            self._publish(Event(REFUSED, now.wall, session_id, label, answer.reason, pid))

    def expired(self, record: SessionRecord) -> None:
        """Tell subscribers of a session that was seen expired."""
        self.tell(SESSION_EXPIRED, record)

    def _publish(self, event: Event) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                # What happened has happened; a subscriber's fault is neither its peer's nor the session's.
                self._log.exception("a subscriber failed")
