"""Refusals for the audit log: counted by peer and reason, so that nobody can push history out with them."""

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
"""What one peer was refused for one reason is one entry for so long, and another one afterwards."""

MAX_NEW = 64
"""Entries begun within `COUNTED_SECONDS`: a program can connect from ever new processes. What is refused
beyond them is counted in one entry that names no process."""

MAX_COUNTED = 256
"""Entries in memory, of a few hundred bytes each: present ones, and those that a full store does not take."""

_STEP = 16  # written in one go: a full store has room for some changed pages only

AuditPath = tuple[str, str, bytes]
_Peer = tuple[int | None, int | None, str]
_OTHERS = None


class _Counted:
    __slots__ = ("began", "path", "peer", "record", "saved_times")

    def __init__(self, peer: _Peer | None, path: AuditPath, record: AuditRecord, began: float) -> None:
        self.peer = peer
        self.path = path
        self.record = record
        self.began = began  # on the boot clock
        self.saved_times = 0  # the `times` that is known to be in the store

    def covers(self, now: Instant) -> bool:
        # By both clocks: from one entry's `at` to its `until` it is never longer than that.
        return (
            0 <= now.boot - self.began < COUNTED_SECONDS and 0 <= now.wall - self.record.at < COUNTED_SECONDS
        )


class Refusals:
    """Counts refusals, and brings them to the store: the first of an entry at once, the rest by `flush`.

    Args:
        db: the store.
        clock: where to read the time.
        logger: where to say what could not be written.
        new_path: where a new entry stands.
    """

    def __init__(
        self, db: DB, clock: Clock, logger: logging.Logger, new_path: Callable[[Instant], AuditPath]
    ) -> None:
        self._db = db
        self._clock = clock
        self._log = logger
        self._new_path = new_path
        self._counted: dict[AuditPath, _Counted] = {}  # the oldest first
        self._latest: dict[_Peer | None, _Counted] = {}
        self._begun: deque[float] = deque(maxlen=MAX_NEW)
        self._is_failing = False

    def add(
        self, reason: str, now: Instant, *, by: PeerIdentity | None, session_id: str | None, label: str
    ) -> None:
        """Count a refusal. Raises nothing and never waits."""
        uid, pid, exe = (None, None, None) if by is None else (by.uid, by.pid, by.exe)
        refusal = AuditRecord(REFUSED, now.wall, now.wall, session_id, label, reason, uid, pid, exe, 1)
        peer: _Peer | None = (uid, pid, reason)
        counted = self._present(peer, now)
        if counted is None and not self._may_begin(now):
            peer, refusal = _OTHERS, replace(refusal, peer_pid=None, peer_exe=None)
            counted = self._present(peer, now)
        if counted is None:
            self._begin(peer, refusal, now)
        else:
            counted.record = _together(counted.record, refusal)

    def counted(self, path: AuditPath) -> AuditRecord | None:
        """The entry at that path as far as it is counted; None where that is in the store."""
        found = self._counted.get(path)
        return None if found is None else found.record

    async def flush(self) -> None:
        """Write what was counted since; what cannot be written stays counted, for the next time."""
        try:
            unsaved = [counted for counted in self._counted.values() if not self._is_saved(counted)]
            for start in range(0, len(unsaved), _STEP):
                step = unsaved[start : start + _STEP]
                records = [counted.record for counted in step]  # meanwhile some may be counted on
                entries = [(counted.path, counted.record.encode()) for counted in step]
                await self._db.write(partial(_put_all, entries=entries))
                for counted, record in zip(step, records, strict=True):
                    counted.saved_times = record.times
        except AgentdError as error:
            self._is_failing = True
            self._log.warning("refusals stay out of the audit log until it can be written: %s", error)
            return
        self._is_failing = False
        now = self._clock.read()
        for counted in list(self._counted.values()):
            if counted.saved_times == counted.record.times and not counted.covers(now):
                self._drop(counted)

    def _present(self, peer: _Peer | None, now: Instant) -> _Counted | None:
        counted = self._latest.get(peer)
        return counted if counted is not None and counted.covers(now) else None

    def _may_begin(self, now: Instant) -> bool:
        return len(self._begun) < MAX_NEW or not 0 <= now.boot - self._begun[0] < COUNTED_SECONDS

    def _begin(self, peer: _Peer | None, refusal: AuditRecord, now: Instant) -> None:
        if len(self._counted) >= MAX_COUNTED:
            self._give_up(next(iter(self._counted.values())))
        counted = _Counted(peer, self._new_path(now), refusal, now.boot)
        self._counted[counted.path] = self._latest[peer] = counted
        if peer is not _OTHERS:
            self._begun.append(now.boot)
        self._submit(counted)  # whether it arrives is seen by the next flush

    def _submit(self, counted: _Counted) -> bool:
        if self._is_failing:  # or each attempt would be an error in the log
            return False
        entry = (counted.path, counted.record.encode())
        try:
            self._db.submit(partial(_put_all, entries=[entry]))
        except AgentdError:
            return False
        return True

    def _give_up(self, counted: _Counted) -> None:
        self._drop(counted)
        record = counted.record
        if counted.saved_times != record.times and not self._submit(counted):
            self._log.warning(
                "not in the audit log: uid=%s pid=%s was refused %d times (%s)",
                record.peer_uid,
                record.peer_pid,
                record.times - counted.saved_times,
                record.reason,
            )

    def _drop(self, counted: _Counted) -> None:
        del self._counted[counted.path]
        if self._latest.get(counted.peer) is counted:
            del self._latest[counted.peer]

    def _is_saved(self, counted: _Counted) -> bool:
        times = counted.record.times
        if times == 1 and counted.saved_times == 0 and self._db.sealed(counted.path)[0] is not None:
            counted.saved_times = 1
        return counted.saved_times == times


def _together(first: AuditRecord, later: AuditRecord) -> AuditRecord:
    # What differs is left out: the entry must not say of all what is true of the first.
    return replace(
        first,
        until=max(first.until, later.until),
        session_id=first.session_id if first.session_id == later.session_id else None,
        label=first.label if first.label == later.label else "",
        reason=first.reason if first.reason == later.reason else None,
        peer_uid=first.peer_uid if first.peer_uid == later.peer_uid else None,
        times=first.times + 1,
    )


def _put_all(view: View, entries: Sequence[tuple[AuditPath, bytes]]) -> None:
    for path, stored in entries:
        view.put(path, stored)
