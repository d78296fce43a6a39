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

from trio.lowlevel import checkpoint

from agentd_client.errors import AgentdError
from agentd_client.protocol.limits import MAX_EXAMINED, MAX_PAGE_AUDIT
from agentd_client.protocol.results import REFUSED, AuditEntry, AuditPage, Event, PeerIdentity

from ..crypto import random_bytes
from ..lifecycle import NOWHERE, EventLoop
from .listing import CHUNK_RECORDS, Slices, checked_audit_cursor, checked_limit, checked_since
from .records import ACTIONS_PATH, AUDIT_TIME_BYTES, REJECTIONS_PATH, AuditRecord
from .rejected_tokens import COUNTED_SECONDS, AuditPath, RejectedTokens

if TYPE_CHECKING:
    from agentd_client.protocol.results import Verification

    from ..store import DB, KeyPath, View
    from .clock import Clock, Instant
    from .records import SessionRecord

MAX_ENTRIES = 4096
"""About 1 MB, and weeks of one person's sessions."""

TRIM_EVERY = 64
"""How many entries are written between checks of the log's size."""

MAX_TRIMMED = 512
"""Entries deleted at a time: more than one batch of the store can add."""

_REJECTIONS_SHARE = 4  # one rejection is kept for this many actions
_RANDOM_BYTES = 8
_STEP = 16  # deleted at once: a full store has room for a few changed pages only

Subscriber = Callable[[Event], None]
"""Called on the event loop's thread; it neither waits nor raises."""


class Subscribers:
    """The subscribers to events. They may outlive the manager that publishes.

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

    - An entry in an operation's transaction fails with the operation. So no session is opened that the log
      does not show.
    - Revoking and resetting the key must succeed even in a full store. The caller repeats them without the
      entry and calls `missed`, which logs it.
    - Rejections stay counted in memory until the next `flush`. A kill loses what was counted since the last.

    Args:
        db: the store.
        clock: where to read the time.
        logger: for what could not be written.
        subscribers: to events.
        max_entries: actions to keep, at least 1, `MAX_ENTRIES` if None; a quarter as many rejections.
    """

    def __init__(
        self,
        db: DB,
        clock: Clock,
        logger: logging.Logger,
        subscribers: Subscribers,
        *,
        max_entries: int | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self.subscribers = subscribers
        self._log = logger
        most = MAX_ENTRIES if max_entries is None else max_entries
        self._most = {ACTIONS_PATH: most, REJECTIONS_PATH: max(1, most // _REJECTIONS_SHARE)}
        self.rejected_tokens = RejectedTokens(db, clock, logger, partial(self._new_path, REJECTIONS_PATH))
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
    ) -> None:
        """Put an audit entry into the transaction it describes.

        Args:
            view: the transaction.
            kind: one of `EVENT_KINDS`.
            record: the session's; None if the entry is about all sessions, or about none.
            by: the peer; None if the agent did it, or a program that embeds it.
            reason: why.
            times: how often.
        """
        now = self._clock.read()
        session_id, label = (None, "") if record is None else (record.session_id, record.label)
        uid, pid, exe = (None, None, None) if by is None else by[:3]
        entry = AuditRecord(kind, now.wall, now.wall, session_id, label, reason, uid, pid, exe, times)
        view.put(self._new_path(ACTIONS_PATH, now), entry.encode())

    def missed(self, kind: str, by: PeerIdentity | None) -> None:
        """Log that an operation was carried out without its entry, because the store was full."""
        self._log.error(
            "missing from the audit log, because the store is full: %s by uid=%s pid=%s",
            kind,
            None if by is None else by.uid,
            None if by is None else by.pid,
        )

    def publish(
        self,
        kind: str,
        record: SessionRecord | None = None,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
    ) -> None:
        """Publish what is durable. Every now and then this also has the audit log trimmed."""
        self._trim_soon()
        if self.subscribers:
            session_id, label = (None, "") if record is None else (record.session_id, record.label)
            pid = None if by is None else by.pid
            self.subscribers.publish(Event(kind, self._clock.read().wall, session_id, label, reason, pid))

    def reject(self, answer: Verification, by: PeerIdentity | None) -> None:
        """Publish a rejected token, and count it for the audit log. Never waits."""
        assert answer.reason is not None
        now = self._clock.read()
        session = answer.session
        session_id, label = (None, "") if session is None else (session.id, session.label)
        self.rejected_tokens.add(answer.reason, now, by=by, session_id=session_id, label=label)
        if self.subscribers:
            pid = None if by is None else by.pid
            self.subscribers.publish(Event(REFUSED, now.wall, session_id, label, answer.reason, pid))

    @property
    def needs_trim(self) -> bool:
        """Whether to call `trim`; checks the log's size once in `TRIM_EVERY` entries."""
        if self._written < TRIM_EVERY:
            return False
        if any(self._excess(folder) > 0 for folder in self._most):
            return True
        self._written = 0
        return False

    def _trim_soon(self) -> None:
        """If it is time, have the oldest entries beyond the limits deleted, without waiting."""
        commits = self._db.commits
        if self._written < TRIM_EVERY or commits == self._trimmed_at:  # it would find the same entries again
            return
        self._written, self._trimmed_at = 0, commits
        with suppress(AgentdError):  # the store reports its own failure
            for folder in self._most:
                oldest = self._db.paths(folder, limit=min(max(0, self._excess(folder)), MAX_TRIMMED))
                for start in range(0, len(oldest), _STEP):
                    # Ahead of the queue, or the log would grow as long as the queue is long.
                    delete = partial(_delete_all, paths=oldest[start : start + _STEP])
                    self._db.submit(delete, is_next=True)

    async def trim(self) -> int:
        """Delete the oldest entries beyond the limits, in small steps; how many. One task at a time.

        Raises:
            StoreError: the store failed.
        """
        self._written = 0
        trimmed = 0
        for folder in self._most:
            while (excess := self._excess(folder)) > 0:
                oldest = self._db.paths(folder, limit=min(excess, _STEP))
                if not oldest:
                    break  # the count is wrong, which must not loop for ever
                trimmed += await self._db.write(partial(_delete_all, paths=oldest))
        return trimmed

    async def page(self, since: object = None, after: object = None, limit: object = None) -> AuditPage:
        """Some entries, newest first; counted rejections are listed by the time of the first.

        It examines a limited number of entries, in slices, and may return fewer than asked for and a cursor.

        Args:
            since: seconds since 1970; entries that ended before are left out. None for all.
            after: the `next` of the previous page; None to begin.
            limit: from 1 to `MAX_PAGE_AUDIT`, which is the default.

        Raises:
            InvalidParamsError: an argument is unusable; says which.
            StoreError: the store failed, or an entry is damaged.
        """
        most, earliest = checked_limit(limit, MAX_PAGE_AUDIT), checked_since(since)
        cursor = checked_audit_cursor(after, AUDIT_TIME_BYTES + _RANDOM_BYTES)
        await checkpoint()
        slices = Slices()
        entries: list[AuditEntry] = []
        last = b""
        folders = [self._newest_first(folder, cursor) for folder in self._most]
        newest_first = heapq.merge(*folders, key=lambda entry: entry[0], reverse=True)
        for examined, (key, record) in enumerate(newest_first):
            if len(entries) == most or examined >= MAX_EXAMINED:
                return AuditPage(entries, last.hex())
            # The key's time is never before the entry's `at`: all further entries ended before `since`.
            if earliest is not None and _seconds(key) < earliest - COUNTED_SECONDS:
                break
            last = key
            if earliest is None or record.until >= earliest:
                entries.append(AuditEntry._make(getattr(record, field) for field in AuditEntry._fields))
            await slices.pause_if_over()
        return AuditPage(entries, None)

    def _newest_first(
        self, folder: tuple[str, str], cursor: bytes | None
    ) -> Iterator[tuple[bytes, AuditRecord]]:
        while True:
            after = None if cursor is None else (*folder, cursor)
            found = self._db.iterate(folder, after=after, reverse=True, limit=CHUNK_RECORDS)
            for path, stored in found:
                cursor = path[-1]
                yield cursor, self.rejected_tokens.pending((*folder, cursor)) or AuditRecord.decode(stored)
            if len(found) < CHUNK_RECORDS:
                return

    def _new_path(self, folder: tuple[str, str], now: Instant) -> AuditPath:
        # Rounded up: never before the entry's own time.
        self._newest = max(self._newest + 1, int(now.wall * 1_000_000) + 1)
        self._written += 1
        return (*folder, self._newest.to_bytes(AUDIT_TIME_BYTES, "big") + random_bytes(_RANDOM_BYTES))

    def _excess(self, folder: tuple[str, str]) -> int:
        return self._db.count(folder) - self._most[folder]


def _seconds(key: bytes) -> float:
    return int.from_bytes(key[:AUDIT_TIME_BYTES], "big") / 1_000_000


def _delete_all(view: View, paths: Sequence[KeyPath]) -> int:
    return sum(view.delete(path) for path in paths)
