"""What happened: the audit log, which is part of the store, and the events that subscribers get.

An audit entry is written in the transaction it describes. Events are published once that is durable.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import DENIED, FORGOTTEN, REFUSED, USED, Event, PeerIdentity

from ..crypto import random_bytes
from ..lifecycle import NOWHERE, EventLoop
from .counting import STEP_ENTRIES, FirstUses, RecordedUses, RejectedTokens, identity_of, put_all
from .records import (
    ACTIONS_PATH,
    AUDIT_RANDOM_BYTES,
    AUDIT_TIME_BYTES,
    REJECTIONS_PATH,
    REQUESTS_PATH,
    USES_PATH,
    AuditRecord,
)

if TYPE_CHECKING:
    from agentd_client.protocol.results import Verification

    from ..store import DB, KeyPath, View
    from .clock import Clock, Instant
    from .counting import AuditPath, By, CountedEntries
    from .records import SessionRecord

MAX_ENTRIES = 4096
"""About 1 MB, and weeks of one person's sessions."""

USES_SHARE = 4
"""How many uses are kept, in relation to that: a day of ten sessions that are in use all the time."""

USES: dict[str, type[RecordedUses] | None] = {"none": None, "first": FirstUses, "all": RecordedUses}
"""What may be recorded of uses, by the name that the setting `audit_uses` has for it."""

CHUNK_RECORDS = 16
"""Records that a scan reads from the store at once."""

TRIM_EVERY = 64
"""How many entries are written between checks of the log's size."""

MAX_TRIMMED = 512
"""Entries deleted at a time: more than one batch of the store can add."""

_FOLDERS = {REFUSED: (REJECTIONS_PATH,), USED: (USES_PATH,)}
_OTHER_FOLDERS = (ACTIONS_PATH, REQUESTS_PATH)
"""The parts of the log that have entries of a kind."""

_DECISIONS = {DENIED, FORGOTTEN}
"""What a person does. Askers cause the other kinds that have to do with requests."""

Subscriber = Callable[[Event], None]
"""Called on the event loop's thread; it neither waits nor raises."""


class Subscribers:
    """The subscribers to events, which may outlive the manager that publishes.

    They belong to the event loop of the manager that was started last, as long as that loop runs.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._subscribers: list[Subscriber] = []
        self._loop = NOWHERE
        self._log = logger or logging.getLogger("agentd.sessions")

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Publish every event from now on to this subscriber; returns a function that unsubscribes."""
        if not self._loop.has_ended:
            self._loop.require("the list of subscribers")
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def belong_here(self) -> None:
        """Belong to the event loop of the calling task."""
        self._loop = EventLoop.here()

    def publish(self, event: Event) -> None:
        """Call every subscriber."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                # The operation has succeeded: an error here is neither the peer's nor the session's fault.
                self._log.exception("a subscriber failed")


class Journal:
    """Writes, trims and lists the audit log, and publishes events.

    An entry's key is the time in microseconds, made strictly increasing, and random bytes. So entries are
    written without a read, and the log keeps its order even if the wall clock is set back.

    If an entry cannot be written:

    - The operation fails with it. So no session is opened that the log does not show.
    - Revoking and resetting the key must succeed even in a full store. The caller repeats them without the
      entry and calls `missed`, which logs it.
    - Rejections and uses stay counted in memory until the next `flush`. A kill loses what was counted since
      the last.

    It keeps `max_entries` actions, a quarter as many rejections and requests each, and four times as many
    uses. None of them can push out another.

    uses: where to count uses; None if they are not recorded.
    """

    def __init__(
        self,
        db: DB,
        clock: Clock,
        logger: logging.Logger,
        subscribers: Subscribers,
        max_entries: int | None = None,
        audit_uses: str = "none",
    ) -> None:
        self._db = db
        self._clock = clock
        self.subscribers = subscribers
        self._log = logger
        most = MAX_ENTRIES if max_entries is None else max_entries
        fewer = max(1, most // 4)
        self._most = {
            ACTIONS_PATH: most,
            REJECTIONS_PATH: fewer,
            REQUESTS_PATH: fewer,
            USES_PATH: most * USES_SHARE,
        }
        context = db, clock, logger
        self.rejected_tokens = RejectedTokens(*context, partial(self._new_path, REJECTIONS_PATH))
        if audit_uses not in USES:
            raise ValueError(f"audit_uses is one of {', '.join(USES)}")
        recorded = USES[audit_uses]
        self.uses = None if recorded is None else recorded(*context, partial(self._new_path, USES_PATH))
        self._newest = 0
        self._trimmed_at = -1  # the number of commits at the last trim
        self._written = TRIM_EVERY  # an earlier process may have left too many

    def start(self) -> None:
        """Read where the log ends, so that its order holds across a restart with the clock set back."""
        with suppress(AgentdError):  # writing will fail, and report it
            for folder in self._most:
                for path, _ in self._db.iterate(folder, reverse=True, limit=1):
                    self._newest = max(self._newest, int.from_bytes(path[-1][:AUDIT_TIME_BYTES], "big"))

    def write(
        self,
        view: View,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
        times: int = 1,
        request_id: str | None = None,
        asked_by: PeerIdentity | None = None,
    ) -> None:
        """Put an audit entry, one of `EVENT_KINDS`, into the transaction it describes.

        `record` is None if it is about all sessions or about none, `by` if the agent or its embedder did it.
        `asked_by` is the process whose request a person decided about.
        """
        now = self._clock.read()
        session_id, label = (None, "") if record is None else (record.session_id, record.label)
        uid, pid, exe, unit = (None, None, None, None) if by is None else by
        entry = AuditRecord(
            *(kind, now.wall, now.wall, session_id, label, reason, uid, pid, exe, times),
            *(unit, request_id, asked_by),
        )
        view.put(self._new_path(ACTIONS_PATH, now), entry.encode())

    def report_request(
        self,
        kind: str,
        request_id: str,
        label: str,
        *,
        by: PeerIdentity | None = None,
        asked_by: PeerIdentity | None = None,
        reason: str | None = None,
    ) -> None:
        """Publish what happened to a request, and have it written to the audit log; a failed write is logged.

        What askers cause has a part of the log of its own, so that it cannot push out what was done.
        """
        now = self._clock.read()
        uid, pid, exe, unit = (None, None, None, None) if by is None else by
        entry = AuditRecord(
            *(kind, now.wall, now.wall, None, label, reason, uid, pid, exe, 1),
            *(unit, request_id, None if asked_by == by else asked_by),
        )
        path = self._new_path(ACTIONS_PATH if kind in _DECISIONS else REQUESTS_PATH, now)
        try:
            self._db.submit(partial(put_all, values=[(path, entry.encode())]))
        except AgentdError as error:
            self._log.error("missing from the audit log: %s of request %s (%s)", kind, request_id, error)
        self._trim_soon()
        if self.subscribers:
            self.subscribers.publish(Event(kind, now.wall, None, label, reason, pid, request_id=request_id))

    def missed(self, kind: str, by: PeerIdentity | None) -> None:
        """Log that an operation was carried out without its entry, because the store was full."""
        uid, pid = (None, None) if by is None else by[:2]
        message = "missing from the audit log, because the store is full: %s by uid=%s pid=%s"
        self._log.error(message, kind, uid, pid)

    def publish(
        self,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Publish what is durable. Every now and then this also has the audit log trimmed."""
        self._trim_soon()
        if self.subscribers:
            session_id, label = (None, "") if record is None else (record.session_id, record.label)
            pid = None if by is None else by.pid
            now = self._clock.read().wall
            self.subscribers.publish(Event(kind, now, session_id, label, reason, pid, request_id=request_id))

    def reject(self, answer: Verification, by: By) -> None:
        """Publish a rejected token, and count it for the audit log. Never waits."""
        assert answer.reason is not None
        now = self._clock.read()
        session = answer.session
        session_id, label = (None, "") if session is None else (session.id, session.label)
        self.rejected_tokens.add(answer.reason, now, by=by, session_id=session_id, label=label)
        if self.subscribers:
            identity = identity_of(by)
            pid = None if identity is None else identity.pid
            self.subscribers.publish(Event(REFUSED, now.wall, session_id, label, answer.reason, pid))

    async def flush(self) -> None:
        """Write what is counted in memory; what cannot be written stays there."""
        for counting in self._counting:
            await counting.flush()

    def _trim_soon(self) -> None:
        """If it is time, have the oldest entries beyond the limits deleted, without waiting."""
        commits = self._db.commits
        if self._written < TRIM_EVERY or commits == self._trimmed_at:  # it would find the same entries again
            return
        self._written, self._trimmed_at = 0, commits
        with suppress(AgentdError):  # the store reports its own failure
            for folder in self._most:
                oldest = self._db.paths(folder, limit=min(max(0, self._excess(folder)), MAX_TRIMMED))
                for start in range(0, len(oldest), STEP_ENTRIES):
                    # Ahead of the queue, or the log would grow as long as the queue is long.
                    delete = partial(_delete_all, paths=oldest[start : start + STEP_ENTRIES])
                    self._db.submit(delete, is_next=True)

    async def trim(self) -> None:
        """Delete the oldest entries beyond the limits, in small steps. One task at a time."""
        self._written = 0
        for folder in self._most:
            while (excess := self._excess(folder)) > 0:
                oldest = self._db.paths(folder, limit=min(excess, STEP_ENTRIES))
                if not oldest:
                    break  # the count is wrong, which must not loop for ever
                await self._db.write(partial(_delete_all, paths=oldest))

    def newest_first(
        self, after: bytes | None, kind: str | None = None
    ) -> Iterator[tuple[bytes, AuditRecord]]:
        """Every entry and its key, from the one after that key on, those in memory included.

        With a `kind`, only those parts of the log that have entries of it.
        """
        # They all begin at the same moment, so what is written meanwhile comes twice, never not at all.
        sources = [counting.unwritten(after) for counting in self._counting if kind in (None, counting.kind)]
        folders = self._most if kind is None else _FOLDERS.get(kind, _OTHER_FOLDERS)
        sources += [self._stored_newest_first(folder, after) for folder in folders]
        before = None
        for key, record in heapq.merge(*sources, key=lambda entry: entry[0], reverse=True):
            if key != before:
                yield key, record
            before = key

    def _stored_newest_first(
        self, folder: tuple[str, str], cursor: bytes | None
    ) -> Iterator[tuple[bytes, AuditRecord]]:
        while True:
            after = None if cursor is None else (*folder, cursor)
            found = self._db.iterate(folder, after=after, reverse=True, limit=CHUNK_RECORDS)
            for path, stored in found:
                cursor = path[-1]
                yield cursor, self._in_memory((*folder, cursor)) or AuditRecord.decode(stored)
            if len(found) < CHUNK_RECORDS:
                return

    def _in_memory(self, path: AuditPath) -> AuditRecord | None:
        for counting in self._counting:
            record = counting.in_memory(path)
            if record is not None:
                return record
        return None

    @property
    def _counting(self) -> list[CountedEntries]:
        return [self.rejected_tokens] if self.uses is None else [self.rejected_tokens, self.uses]

    def _new_path(self, folder: tuple[str, str], now: Instant) -> AuditPath:
        # Rounded up: never before the entry's own time.
        self._newest = max(self._newest + 1, int(now.wall * 1_000_000) + 1)
        self._written += 1
        return (*folder, self._newest.to_bytes(AUDIT_TIME_BYTES, "big") + random_bytes(AUDIT_RANDOM_BYTES))

    def _excess(self, folder: tuple[str, str]) -> int:
        return self._db.count(folder) - self._most[folder]


def _delete_all(view: View, paths: Sequence[KeyPath]) -> None:
    for path in paths:
        view.delete(path)
