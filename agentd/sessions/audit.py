"""The audit log: who did what to which session. Sealed, as all values of the store are, and bounded."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from trio.lowlevel import checkpoint

from agentd_client.errors import AgentdError, InvalidParamsError
from agentd_client.protocol.limits import MAX_LOOKED_AT, MAX_PAGE_AUDIT
from agentd_client.protocol.results import AuditEntry, AuditPage

from ..crypto import random_bytes
from .records import AuditRecord
from .refusals import COUNTED_SECONDS, AuditPath, Refusals
from .slices import CHUNK_RECORDS, Slices

if TYPE_CHECKING:
    import logging

    from agentd_client.protocol.results import PeerIdentity

    from ..store import DB, KeyPath, View
    from .clock import Clock, Instant

MAX_ENTRIES = 4096
"""About 1 MB, and weeks of one person's sessions."""

TRIM_EVERY = 64
"""Entries after which it is worth asking whether there are too many."""

MAX_TRIMMED = 512
"""Entries deleted at a time: more than a batch of the store can bring."""

ACTS, REFUSALS = ("audit", "acts"), ("audit", "refusals")
"""Each has a bound of its own: no number of refusals pushes out what was done."""

_REFUSALS_SHARE = 4  # for every so many acts one refusal is kept
_TIME_BYTES = _RANDOM_BYTES = 8
_MAX_SECONDS = 2**63  # neither infinite nor beyond what a float holds
_STEP = 16  # deleted in one go: a full store has room for some changed pages only


class AuditLog:
    """What was done, in the order in which it was done, and what was refused.

    An entry's key is the time in microseconds, made strictly increasing, and random bytes: entries are
    written without a read, and the log's order is that of the writing, however the wall clock is set.

    When an entry cannot be written:

    - What is written in the transaction of an operation stands or falls with it. So there is no session
      that the log does not tell of: in a full store none is opened.
    - Ending a session and resetting the key must succeed in a full store too. There the caller does it once
      more without the entry, and `missed` says so in the agent's own log and counts it.
    - Refusals stay counted in memory and are tried again at the next `flush`. What was counted since the last
      one is lost where the agent is killed.

    Args:
        db: the store.
        clock: where to read the time.
        logger: where to say what could not be written.
        max_entries: acts that are kept, at least 1, `MAX_ENTRIES` where None; a quarter as many refusals are
            kept beside them.
    """

    def __init__(
        self, db: DB, clock: Clock, logger: logging.Logger, *, max_entries: int | None = None
    ) -> None:
        self._db = db
        self._log = logger
        most = MAX_ENTRIES if max_entries is None else max_entries
        self._most = {ACTS: most, REFUSALS: max(1, most // _REFUSALS_SHARE)}
        self._refusals = Refusals(db, clock, logger, partial(self._new_path, REFUSALS))
        self._newest = 0
        self._trimmed_at = -1  # the commits then
        self._made = TRIM_EVERY  # whatever an earlier process left behind is looked at first
        self.entries_missed = 0
        """Entries that were left out so that an operation could succeed."""

    def start(self) -> None:
        """Read where the log ends, on the thread that reads; from then on any thread may make entries."""
        self._newest = max(self._newest, self._newest_stored())

    def entry(
        self,
        kind: str,
        now: Instant,
        *,
        session_id: str | None = None,
        label: str = "",
        reason: str | None = None,
        by: PeerIdentity | None = None,
        times: int = 1,
    ) -> tuple[AuditPath, bytes]:
        """An entry's path and its stored bytes, to be put in the transaction of what it tells of.

        Args:
            kind: one of `EVENT_KINDS`.
            now: when.
            session_id: which session; None where it is about all of them.
            label: that session's.
            reason: why.
            by: the peer that did it; None where the agent did, or a program that has it embedded.
            times: how often.
        """
        uid, pid, exe = (None, None, None) if by is None else by[:3]
        record = AuditRecord(kind, now.wall, now.wall, session_id, label, reason, uid, pid, exe, times)
        return self._new_path(ACTS, now), record.encode()

    def missed(self, kind: str, *, session_id: str | None = None, by: PeerIdentity | None = None) -> None:
        """An operation was carried out without its entry, because the store did not take it."""
        self.entries_missed += 1
        self._log.error(
            "not in the audit log, which cannot be written: %s session=%s uid=%s pid=%s",
            kind,
            session_id or "all",
            None if by is None else by.uid,
            None if by is None else by.pid,
        )

    def refused(
        self,
        reason: str,
        now: Instant,
        *,
        by: PeerIdentity | None,
        session_id: str | None = None,
        label: str = "",
    ) -> None:
        """Count a refusal, one entry for each peer and reason; raises nothing and never waits.

        Where they differ among the refusals of an entry, the session and its label are left out.
        """
        self._refusals.add(reason, now, by=by, session_id=session_id, label=label)

    async def flush(self) -> None:
        """Write the refusals counted since the last time; to be called now and then, and before a stop."""
        await self._refusals.flush()

    @property
    def needs_trim(self) -> bool:
        """Whether it is time for `trim`; costs nothing but once in `TRIM_EVERY` entries."""
        if self._made < TRIM_EVERY:
            return False
        if any(self._excess(folder) > 0 for folder in self._most):
            return True
        self._made = 0
        return False

    def trim_soon(self) -> None:
        """If it is time, have the oldest entries beyond the bounds deleted; nobody waits for it."""
        commits = self._db.commits
        if self._made < TRIM_EVERY or commits == self._trimmed_at:  # the same entries would be found again
            return
        self._made, self._trimmed_at = 0, commits
        with suppress(AgentdError):  # a store that refuses has said so itself
            for folder in self._most:
                oldest = self._db.paths(folder, limit=min(max(0, self._excess(folder)), MAX_TRIMMED))
                for start in range(0, len(oldest), _STEP):
                    # Before what waits, or the log would grow for as long as the queue is long.
                    delete = partial(_delete_all, paths=oldest[start : start + _STEP])
                    self._db.submit(delete, is_next=True)

    async def trim(self) -> int:
        """Delete the oldest entries beyond the bounds, in small steps; how many. For one task at a time.

        Raises:
            StoreError: the store failed.
        """
        self._made = 0
        trimmed = 0
        for folder in self._most:
            while (excess := self._excess(folder)) > 0:
                oldest = self._db.paths(folder, limit=min(excess, _STEP))
                if not oldest:
                    break  # the count is wrong, which must not keep it here for ever
                trimmed += await self._db.write(partial(_delete_all, paths=oldest))
        return trimmed

    async def page(self, since: object = None, after: object = None, limit: object = None) -> AuditPage:
        """Some entries, newest first; counted refusals stand where the first of them was.

        It looks at a bounded number of entries, in slices, and may end with fewer than asked for, with a
        place to go on.

        Args:
            since: seconds since 1970; entries that tell of nothing from then on are left out. None for all.
            after: the `next` of the page before; None to begin.
            limit: at most so many, from 1 to `MAX_PAGE_AUDIT`, which it is where None.

        Raises:
            InvalidParamsError: one of them is not that; says which.
            StoreError: the store failed, or an entry is damaged.
        """
        most, cursor, earliest = _checked_limit(limit), _checked_cursor(after), _checked_since(since)
        await checkpoint()
        slices = Slices()
        entries: list[AuditEntry] = []
        last = b""
        folders = [self._newest_first(folder, cursor) for folder in self._most]
        newest_first = heapq.merge(*folders, key=lambda entry: entry[0], reverse=True)
        for looked_at, (key, record) in enumerate(newest_first):
            if len(entries) == most or looked_at >= MAX_LOOKED_AT:
                return AuditPage(entries, last.hex())
            # The key's time is never before the entry's `at`: nothing from here on lasts until then.
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
                # What was counted since the last writing is told already.
                yield cursor, self._refusals.counted((*folder, cursor)) or AuditRecord.decode(stored)
            if len(found) < CHUNK_RECORDS:
                return

    def _new_path(self, folder: tuple[str, str], now: Instant) -> AuditPath:
        # Rounded up: never before the entry's own time.
        self._newest = max(self._newest + 1, int(now.wall * 1_000_000) + 1)
        self._made += 1
        return (*folder, self._newest.to_bytes(_TIME_BYTES, "big") + random_bytes(_RANDOM_BYTES))

    def _newest_stored(self) -> int:
        # Once in a process, so that the order holds across a restart where the clock was set back.
        newest = 0
        with suppress(AgentdError):  # writing is what fails then, and says so
            for folder in (ACTS, REFUSALS):
                for path, _ in self._db.iterate(folder, reverse=True, limit=1):
                    newest = max(newest, int.from_bytes(path[-1][:_TIME_BYTES], "big"))
        return newest

    def _excess(self, folder: tuple[str, str]) -> int:
        return self._db.count(folder) - self._most[folder]


def _seconds(key: bytes) -> float:
    return int.from_bytes(key[:_TIME_BYTES], "big") / 1_000_000


def _checked_limit(limit: object) -> int:
    if limit is None:
        return MAX_PAGE_AUDIT
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE_AUDIT:
        raise InvalidParamsError(f"limit is a whole number from 1 to {MAX_PAGE_AUDIT}")
    return limit


def _checked_cursor(after: object) -> bytes | None:
    if after is None:
        return None
    with suppress(ValueError):
        key = bytes.fromhex(after) if isinstance(after, str) else b""
        if len(key) == _TIME_BYTES + _RANDOM_BYTES:
            return key
    raise InvalidParamsError("after is the `next` that an earlier page answered")


def _checked_since(since: object) -> float | None:
    if since is None:
        return None
    if isinstance(since, int | float) and not isinstance(since, bool) and abs(since) < _MAX_SECONDS:
        return since
    raise InvalidParamsError("since is a number of seconds since 1970")


def _delete_all(view: View, paths: Sequence[KeyPath]) -> int:
    return sum(view.delete(path) for path in paths)
