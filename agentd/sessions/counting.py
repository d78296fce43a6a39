"""Audit entries that count: rejections and uses, of which one process may have thousands in a second.

What happens again soon is counted in the entry of the first time, in memory, and written by `flush`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import REFUSED, USED, PeerIdentity

from .records import AuditRecord

if TYPE_CHECKING:
    import logging

    from agentd_client.protocol.results import SessionInfo, Verification

    from ..store import DB, View
    from .clock import Clock, Instant

STEP_ENTRIES = 16
"""Written or deleted at once: a full store has room for a few changed pages only."""

MAX_FIRST_USES = 4096
"""First uses that are remembered, of half a kilobyte each. The use after the oldest was forgotten is recorded
as a first one again."""

AuditPath = tuple[str, str, bytes]
_ANYONE = None


class LazyPeer(Protocol):
    """A peer as its server knows it, for which little is read before it is wanted.

    identity: without executable and unit. described: with them, which takes as long as several verifications
    the first time. process: what tells it from later processes with the same pid.
    """

    @property
    def identity(self) -> PeerIdentity: ...  # noqa: D102 - above

    @property
    def described(self) -> PeerIdentity: ...  # noqa: D102

    @property
    def process(self) -> Hashable: ...  # noqa: D102


By = PeerIdentity | LazyPeer | None
"""Who did something; None if it was the embedder."""


def identity_of(by: By) -> PeerIdentity | None:
    """Who it was, as far as that is known at once."""
    return by if by is None or isinstance(by, PeerIdentity) else by.identity


def _who(by: By) -> Hashable:
    # Never the pid alone if there is more: it may be another process's by now.
    if by is None:
        return None
    if isinstance(by, PeerIdentity):
        return by.uid, by.pid
    return by.identity.uid, by.process


class Bounds(NamedTuple):
    """How much is counted together, and how much of it is kept.

    seconds: how long an entry counts. new: how many begin within that time; what happens beyond that is
    counted in one entry that names no process. pending: how many are in memory, of some hundred bytes each:
    those that count, and those that are not written.
    """

    seconds: float
    new: int
    pending: int


class _Entry(Struct, eq=False):
    key: Hashable
    path: AuditPath
    first: AuditRecord  # without what differs between those that it counts
    began: float  # on the boot clock
    until: float
    times: int = 1
    saved_times: int = 0  # the `times` known to be in the store

    @property
    def record(self) -> AuditRecord:
        return replace(self.first, until=self.until, times=self.times)

    def covers(self, now: Instant, seconds: float) -> bool:
        # By both clocks, so that `at` and `until` of an entry are never further apart.
        return 0 <= now.boot - self.began < seconds and 0 <= now.wall - self.first.at < seconds

    def count(self, now: Instant) -> None:
        self.times += 1
        if now.wall > self.until:  # it may have been set back
            self.until = now.wall


class CountedEntries:
    """Counts by key, in an audit entry for each. Subclasses say what.

    kind: of the entries. what: is counted, in words. bounds: of one entry and of all. at_once: an entry is
    written when it begins, too, not only by `flush`.
    """

    kind: str
    what: str
    bounds: Bounds
    at_once = False

    def __init__(
        self, db: DB, clock: Clock, logger: logging.Logger, new_path: Callable[[Instant], AuditPath]
    ) -> None:
        self._db = db
        self._clock = clock
        self._log = logger
        self._new_path = new_path
        self._entries: dict[AuditPath, _Entry] = {}  # the oldest first
        self._latest: dict[Hashable, _Entry] = {}
        self._begun: deque[float] = deque(maxlen=self.bounds.new)
        self._is_failing = False

    def in_memory(self, path: AuditPath) -> AuditRecord | None:
        """The entry at that path if it is in memory, where its count is up to date."""
        entry = self._entries.get(path)
        return None if entry is None else entry.record

    def unwritten(self, after: bytes | None) -> Iterator[tuple[bytes, AuditRecord]]:
        """The entries that are not known to be in the store, and their keys, newest first, after that key."""
        for entry in [entry for entry in reversed(self._entries.values()) if entry.saved_times == 0]:
            key = entry.path[-1]
            if after is None or key < after:
                yield key, entry.record

    async def flush(self) -> None:
        """Write the entries; what cannot be written stays in memory until the next call."""
        try:
            unsaved = [entry for entry in self._entries.values() if not self._is_saved(entry)]
            for start in range(0, len(unsaved), STEP_ENTRIES):
                step = unsaved[start : start + STEP_ENTRIES]
                records = [entry.record for entry in step]  # some may count on during the write
                values = [(entry.path, record.encode()) for entry, record in zip(step, records, strict=True)]
                await self._db.write(partial(put_all, values=values))
                for entry, record in zip(step, records, strict=True):
                    entry.saved_times = record.times
        except AgentdError as error:
            self._is_failing = True
            self._log.warning(
                "%s are missing from the audit log until it can be written: %s", self.what, error
            )
            return
        self._is_failing = False
        now = self._clock.read()
        for entry in list(self._entries.values()):
            if entry.saved_times == entry.times and not entry.covers(now, self.bounds.seconds):
                self._drop(entry)

    def _count_again(self, key: Hashable, now: Instant) -> bool:
        """Count in the entry of this key, which says it all already; False if there is none."""
        entry = self._counting(key, now)
        if entry is None:
            return False
        entry.count(now)
        return True

    def _count(self, key: Hashable, record: AuditRecord, now: Instant, by: By) -> bool:
        """Count in the entry of this key, or of all that there is no room for; whether it has one of its own.

        An entry says only what is true of all that it counts.
        """
        entry, bounds = self._counting(key, now), self.bounds
        is_crowded = len(self._begun) >= bounds.new and 0 <= now.boot - self._begun[0] < bounds.seconds
        if entry is None and is_crowded:
            key, by, record = _ANYONE, None, replace(record, peer_pid=None, peer_exe=None, peer_unit=None)
            entry = self._counting(key, now)
        if entry is not None:
            entry.count(now)
            entry.first = _common(entry.first, record)
        elif by is None or isinstance(by, PeerIdentity):
            self._begin(key, record, now)
        else:
            described = by.described
            self._begin(key, replace(record, peer_exe=described.exe, peer_unit=described.unit), now)
        return key is not _ANYONE

    def _counting(self, key: Hashable, now: Instant) -> _Entry | None:
        entry = self._latest.get(key)
        return entry if entry is not None and entry.covers(now, self.bounds.seconds) else None

    def _begin(self, key: Hashable, record: AuditRecord, now: Instant) -> None:
        if len(self._entries) >= self.bounds.pending:
            self._evict(next(iter(self._entries.values())))
        entry = _Entry(key, self._new_path(now), record, now.boot, now.wall)
        self._entries[entry.path] = self._latest[key] = entry
        if key is not _ANYONE:
            self._begun.append(now.boot)
        if self.at_once:
            self._submit(entry)  # the next flush checks whether it was written

    def _submit(self, entry: _Entry) -> bool:
        if self._is_failing:  # every attempt would log another error
            return False
        try:
            self._db.submit(partial(put_all, values=[(entry.path, entry.record.encode())]))
        except AgentdError:
            return False
        return True

    def _evict(self, entry: _Entry) -> None:
        self._drop(entry)
        record = entry.first
        if entry.saved_times != entry.times and not self._submit(entry):
            self._log.warning(
                "missing from the audit log: %d %s by uid=%s pid=%s (%s)",
                entry.times - entry.saved_times,
                self.what,
                record.peer_uid,
                record.peer_pid,
                record.reason or record.session_id,
            )

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.path]
        if self._latest.get(entry.key) is entry:
            del self._latest[entry.key]

    def _is_saved(self, entry: _Entry) -> bool:
        is_new = entry.times == 1 and entry.saved_times == 0
        if is_new and self.at_once and self._db.sealed(entry.path)[0] is not None:
            entry.saved_times = 1
        return entry.saved_times == entry.times


class RejectedTokens(CountedEntries):
    """Rejected tokens, by peer and reason."""

    kind = REFUSED
    what = "rejected tokens"
    bounds = Bounds(seconds=600.0, new=64, pending=256)  # a program can connect from ever new processes
    at_once = True

    def add(
        self, reason: str, now: Instant, *, by: By, session_id: str | None = None, label: str = ""
    ) -> None:
        """Count a rejection. An entry names a session only if all its rejections are of that session."""
        record = _record(REFUSED, now, by, session_id=session_id, label=label, reason=reason)
        self._count((reason, _who(by)), record, now, by)


class RecordedUses(CountedEntries):
    """Uses of sessions, by session and asker.

    More of them at a time than of rejections, because a use takes a valid token.
    """

    kind = USED
    what = "uses"
    bounds = Bounds(seconds=60.0, new=256, pending=1024)

    def add(self, answer: Verification, by: By) -> None:
        """Count a verification whose answer was "valid"."""
        now, session = self._clock.read(), answer.session
        assert session is not None
        key = session.id, _who(by)
        if not self._count_again(key, now):
            self._count(key, _record_of_use(session, now, by), now, by)


class FirstUses(RecordedUses):
    """The first use of each session by each asker, as far as they are remembered."""

    def __init__(self, *of_counting: Any) -> None:
        super().__init__(*of_counting)
        self._known: dict[Hashable, None] = {}  # the oldest first

    def add(self, answer: Verification, by: By) -> None:
        """Count it if it is the first."""
        session = answer.session
        assert session is not None
        key = session.id, _who(by)
        if key in self._known:
            return
        now = self._clock.read()
        if self._count(key, _record_of_use(session, now, by), now, by):
            if len(self._known) >= MAX_FIRST_USES:
                del self._known[next(iter(self._known))]
            self._known[key] = None


LONGEST_SECONDS = max(RejectedTokens.bounds.seconds, RecordedUses.bounds.seconds)
"""The most between `at` and `until` of an entry."""


def _record(
    kind: str, now: Instant, by: By, *, session_id: str | None, label: str, reason: str | None = None
) -> AuditRecord:
    identity = identity_of(by)
    uid, pid, exe, unit = (None, None, None, None) if identity is None else identity
    return AuditRecord(kind, now.wall, now.wall, session_id, label, reason, uid, pid, exe, 1, unit)


def _record_of_use(session: SessionInfo, now: Instant, by: By) -> AuditRecord:
    return _record(USED, now, by, session_id=session.id, label=session.label)


def _common(first: AuditRecord, later: AuditRecord) -> AuditRecord:
    # Values that differ are left out: the entry must not say of all what is true of the first.
    return replace(
        first,
        session_id=first.session_id if first.session_id == later.session_id else None,
        label=first.label if first.label == later.label else "",
        reason=first.reason if first.reason == later.reason else None,
        peer_uid=first.peer_uid if first.peer_uid == later.peer_uid else None,
    )


def put_all(view: View, values: Sequence[tuple[AuditPath, bytes]]) -> None:
    """Put each value at its path."""
    for path, value in values:
        view.put(path, value)
