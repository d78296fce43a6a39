"""What happened: the audit log, which is part of the store, and the events that subscribers get.

An audit entry is written in the transaction it describes. Events are published once that is durable.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import DENIED, FORGOTTEN, REFUSED, Event, PeerIdentity

from ..crypto import random_bytes
from ..lifecycle import NOWHERE, EventLoop
from .records import (
    ACTIONS_PATH,
    AUDIT_RANDOM_BYTES,
    AUDIT_TIME_BYTES,
    REJECTIONS_PATH,
    REQUESTS_PATH,
    AuditRecord,
)

if TYPE_CHECKING:
    from agentd_client.protocol.results import Verification

    from ..store import DB, KeyPath, View
    from .clock import Clock, Instant
    from .records import SessionRecord

MAX_ENTRIES = 4096
"""About 1 MB, and weeks of one person's sessions."""

CHUNK_RECORDS = 16
"""Records that a scan reads from the store at once."""

TRIM_EVERY = 64
"""How many entries are written between checks of the log's size."""

MAX_TRIMMED = 512
"""Entries deleted at a time: more than one batch of the store can add."""

COUNTED_SECONDS = 600.0
"""Rejections of one peer for one reason share an entry for this long."""

MAX_NEW = 64
"""Entries begun within `COUNTED_SECONDS`, because a program can connect from ever new processes. Rejections
beyond that are counted in one entry that names no process."""

MAX_PENDING = 256
"""Entries in memory, of a few hundred bytes each: those still counting, and those that were not written."""

_STEP = 16  # written or deleted at once: a full store has room for a few changed pages only

_DECISIONS = {DENIED, FORGOTTEN}
"""What a person does. Askers cause the other kinds that have to do with requests."""

AuditPath = tuple[str, str, bytes]
_Peer = tuple[int | None, int | None, str]
_ANYONE = None

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
    - Rejections stay counted in memory until the next `flush`. A kill loses what was counted since the last.

    It keeps `max_entries` actions, and a quarter as many rejections and requests each.
    """

    def __init__(
        self,
        db: DB,
        clock: Clock,
        logger: logging.Logger,
        subscribers: Subscribers,
        max_entries: int | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self.subscribers = subscribers
        self._log = logger
        most = MAX_ENTRIES if max_entries is None else max_entries
        fewer = max(1, most // 4)
        self._most = {ACTIONS_PATH: most, REJECTIONS_PATH: fewer, REQUESTS_PATH: fewer}
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
            self._db.submit(partial(_put_all, values=[(path, entry.encode())]))
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

    async def trim(self) -> None:
        """Delete the oldest entries beyond the limits, in small steps. One task at a time."""
        self._written = 0
        for folder in self._most:
            while (excess := self._excess(folder)) > 0:
                oldest = self._db.paths(folder, limit=min(excess, _STEP))
                if not oldest:
                    break  # the count is wrong, which must not loop for ever
                await self._db.write(partial(_delete_all, paths=oldest))

    def newest_first(self, after: bytes | None) -> Iterator[tuple[bytes, AuditRecord]]:
        """Every entry and its key, from the one after that key on; counts in memory are up to date."""
        folders = [self._newest_first(folder, after) for folder in self._most]
        return heapq.merge(*folders, key=lambda entry: entry[0], reverse=True)

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
        return (*folder, self._newest.to_bytes(AUDIT_TIME_BYTES, "big") + random_bytes(AUDIT_RANDOM_BYTES))

    def _excess(self, folder: tuple[str, str]) -> int:
        return self._db.count(folder) - self._most[folder]


class _Entry(Struct, eq=False):
    peer: _Peer | None
    path: AuditPath
    record: AuditRecord
    began: float  # on the boot clock
    saved_times: int = 0  # the `times` known to be in the store

    def covers(self, now: Instant) -> bool:
        # By both clocks, so that `at` and `until` of an entry are never further apart.
        return (
            0 <= now.boot - self.began < COUNTED_SECONDS and 0 <= now.wall - self.record.at < COUNTED_SECONDS
        )


class RejectedTokens:
    """Counts rejected tokens by peer and reason, so that they cannot push the audit log's history out.

    An entry is written when it begins; its count is written by `flush`.
    """

    def __init__(
        self, db: DB, clock: Clock, logger: logging.Logger, new_path: Callable[[Instant], AuditPath]
    ) -> None:
        self._db = db
        self._clock = clock
        self._log = logger
        self._new_path = new_path
        self._entries: dict[AuditPath, _Entry] = {}  # the oldest first
        self._latest: dict[_Peer | None, _Entry] = {}
        self._begun: deque[float] = deque(maxlen=MAX_NEW)
        self._is_failing = False

    def add(
        self,
        reason: str,
        now: Instant,
        *,
        by: PeerIdentity | None,
        session_id: str | None = None,
        label: str = "",
    ) -> None:
        """Count a rejection. An entry names a session only if all its rejections are of that session."""
        uid, pid, exe = (None, None, None) if by is None else (by.uid, by.pid, by.exe)
        rejection = AuditRecord(REFUSED, now.wall, now.wall, session_id, label, reason, uid, pid, exe, 1)
        peer: _Peer | None = (uid, pid, reason)
        entry = self._counting(peer, now)
        is_crowded = len(self._begun) >= MAX_NEW and 0 <= now.boot - self._begun[0] < COUNTED_SECONDS
        if entry is None and is_crowded:
            peer, rejection = _ANYONE, replace(rejection, peer_pid=None, peer_exe=None)
            entry = self._counting(peer, now)
        if entry is None:
            self._begin(peer, rejection, now)
        else:
            entry.record = _merged(entry.record, rejection)

    def pending(self, path: AuditPath) -> AuditRecord | None:
        """The entry at that path if it is in memory, where its count is up to date."""
        entry = self._entries.get(path)
        return None if entry is None else entry.record

    async def flush(self) -> None:
        """Write the counts; what cannot be written stays in memory until the next call."""
        try:
            unsaved = [entry for entry in self._entries.values() if not self._is_saved(entry)]
            for start in range(0, len(unsaved), _STEP):
                step = unsaved[start : start + _STEP]
                records = [entry.record for entry in step]  # some may count on during the write
                values = [(entry.path, entry.record.encode()) for entry in step]
                await self._db.write(partial(_put_all, values=values))
                for entry, record in zip(step, records, strict=True):
                    entry.saved_times = record.times
        except AgentdError as error:
            self._is_failing = True
            self._log.warning(
                "rejected tokens are missing from the audit log until it can be written: %s", error
            )
            return
        self._is_failing = False
        now = self._clock.read()
        for entry in list(self._entries.values()):
            if entry.saved_times == entry.record.times and not entry.covers(now):
                self._drop(entry)

    def _counting(self, peer: _Peer | None, now: Instant) -> _Entry | None:
        entry = self._latest.get(peer)
        return entry if entry is not None and entry.covers(now) else None

    def _begin(self, peer: _Peer | None, rejection: AuditRecord, now: Instant) -> None:
        if len(self._entries) >= MAX_PENDING:
            self._evict(next(iter(self._entries.values())))
        entry = _Entry(peer, self._new_path(now), rejection, now.boot)
        self._entries[entry.path] = self._latest[peer] = entry
        if peer is not _ANYONE:
            self._begun.append(now.boot)
        self._submit(entry)  # the next flush checks whether it was written

    def _submit(self, entry: _Entry) -> bool:
        if self._is_failing:  # every attempt would log another error
            return False
        try:
            self._db.submit(partial(_put_all, values=[(entry.path, entry.record.encode())]))
        except AgentdError:
            return False
        return True

    def _evict(self, entry: _Entry) -> None:
        self._drop(entry)
        record = entry.record
        if entry.saved_times != record.times and not self._submit(entry):
            self._log.warning(
                "missing from the audit log: %d tokens of uid=%s pid=%s rejected (%s)",
                record.times - entry.saved_times,
                record.peer_uid,
                record.peer_pid,
                record.reason,
            )

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.path]
        if self._latest.get(entry.peer) is entry:
            del self._latest[entry.peer]

    def _is_saved(self, entry: _Entry) -> bool:
        times = entry.record.times
        if times == 1 and entry.saved_times == 0 and self._db.sealed(entry.path)[0] is not None:
            entry.saved_times = 1
        return entry.saved_times == times


def _merged(first: AuditRecord, later: AuditRecord) -> AuditRecord:
    # Values that differ are left out: the entry must not say of all what is true of the first.
    return replace(
        first,
        until=max(first.until, later.until),
        session_id=first.session_id if first.session_id == later.session_id else None,
        label=first.label if first.label == later.label else "",
        reason=first.reason if first.reason == later.reason else None,
        peer_uid=first.peer_uid if first.peer_uid == later.peer_uid else None,
        times=first.times + 1,
    )


def _delete_all(view: View, paths: Sequence[KeyPath]) -> None:
    for path in paths:
        view.delete(path)


def _put_all(view: View, values: Sequence[tuple[AuditPath, bytes]]) -> None:
    for path, value in values:
        view.put(path, value)
