"""Rejected tokens in the audit log: counted by peer and reason, so that they cannot push out its history."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import REFUSED

from .records import AuditRecord

if TYPE_CHECKING:
    import logging

    from agentd_client.protocol.results import PeerIdentity

    from ..store import DB, View
    from .clock import Clock, Instant

COUNTED_SECONDS = 600.0
"""Rejections of one peer for one reason share an entry for this long."""

MAX_NEW = 64
"""Entries begun within `COUNTED_SECONDS`, because a program can connect from ever new processes. Rejections
beyond that are counted in one entry that names no process."""

MAX_PENDING = 256
"""Entries in memory, of a few hundred bytes each: those still counting, and those that were not written."""

_STEP = 16  # written at once: a full store has room for a few changed pages only

AuditPath = tuple[str, str, bytes]
_Peer = tuple[int | None, int | None, str]
_ANYONE = None


class _Entry:
    __slots__ = ("began", "path", "peer", "record", "saved_times")

    def __init__(self, peer: _Peer | None, path: AuditPath, record: AuditRecord, began: float) -> None:
        self.peer = peer
        self.path = path
        self.record = record
        self.began = began  # on the boot clock
        self.saved_times = 0  # the `times` known to be in the store

    def covers(self, now: Instant) -> bool:
        # By both clocks, so that `at` and `until` of an entry are never further apart.
        return (
            0 <= now.boot - self.began < COUNTED_SECONDS and 0 <= now.wall - self.record.at < COUNTED_SECONDS
        )


class RejectedTokens:
    """Counts rejected tokens. An entry is written when it begins; its count is written by `flush`.

    Args:
        db: the store.
        clock: where to read the time.
        logger: for what could not be written.
        new_path: the path of a new entry.
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
        if entry is None and not self._may_begin(now):
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

    def _may_begin(self, now: Instant) -> bool:
        return len(self._begun) < MAX_NEW or not 0 <= now.boot - self._begun[0] < COUNTED_SECONDS

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
        value = (entry.path, entry.record.encode())
        try:
            self._db.submit(partial(_put_all, values=[value]))
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


def _put_all(view: View, values: Sequence[tuple[AuditPath, bytes]]) -> None:
    for path, value in values:
        view.put(path, value)
