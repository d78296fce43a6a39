"""What happened, told to those who want to know: subscribers, the audit log, the log.

Subscribers and the log are told what is on the disk already. The audit log's entry goes into the very
transaction that it tells of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd_client.protocol.results import REFUSED, SESSION_EXPIRED, Event, PeerIdentity

if TYPE_CHECKING:
    from agentd_client.protocol.results import Verification

    from ..store import View
    from .audit import AuditLog
    from .clock import Clock
    from .records import SessionRecord
    from .subscribers import Subscribers


class Journal:
    """The one place that tells; everything but `write` runs on the event loop's thread."""

    def __init__(self, audit: AuditLog, clock: Clock, subscribers: Subscribers) -> None:
        self.audit = audit
        self.subscribers = subscribers
        self._clock = clock

    def write(
        self,
        view: View,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
        times: int = 1,
    ) -> None:
        """Put the audit log's entry into a transaction."""
        path, entry = self.audit.entry(
            kind,
            self._clock.read(),
            session_id=None if record is None else record.session_id,
            label="" if record is None else record.label,
            reason=reason,
            by=by,
            times=times,
        )
        view.put(path, entry)

    def tell(
        self,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
    ) -> None:
        """Tell subscribers of what is durable; now and then, have the audit log kept within its bounds."""
        self.audit.trim_soon()
        if not self.subscribers:
            return
        self.subscribers.publish(
            Event(
                kind=kind,
                at=self._clock.read().wall,
                session_id=None if record is None else record.session_id,
                label="" if record is None else record.label,
                reason=reason,
                peer_pid=None if by is None else by.pid,
            )
        )

    def refused(self, answer: Verification, by: PeerIdentity | None) -> None:
        """Tell of a token that was not valid: subscribers each time, the audit log in numbers."""
        now = self._clock.read()
        session_id = None if answer.session is None else answer.session.id
        label = "" if answer.session is None else answer.session.label
        assert answer.reason is not None
        self.audit.refused(answer.reason, now, by=by, session_id=session_id, label=label)
        if self.subscribers:
            pid = None if by is None else by.pid
            self.subscribers.publish(Event(REFUSED, now.wall, session_id, label, answer.reason, pid))

    def expired(self, record: SessionRecord) -> None:
        """Tell subscribers of a session that was seen expired."""
        self.tell(SESSION_EXPIRED, record)
