"""Sweeping: records that no longer prove anything are deleted, a few at a time.

Only space depends on it. A record under another key than the present one, or past its end, is refused
whether or not it has been swept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from agentd_client.protocol.results import SESSION_EXPIRED

from .records import KEY_PATH, SESSIONS_PATH, SessionPath, SessionRecord, bound_path, session_path
from .rules import counts_as_earlier, has_expired
from .slices import Slices
from .standing import Readable, keys_that_count, present_key

if TYPE_CHECKING:
    from ..store import DB, Entry, View
    from .clock import Clock
    from .journal import Journal
    from .key_holder import KeyHolder
    from .verifier import Verifier

STEP_RECORDS = 64
"""Records that are looked at, in slices, before those of them that have ended are deleted in one go."""

_SCATTERED_RECORDS = 16
"""Records deleted in one go wherever they lie: each may change pages of its own, and a full store has room
for some changed pages only."""

_REST_SECONDS = 1.0
_REST_SHARE = 10
"""A store that is full of sessions in use is gone through for nothing; not more than a tenth of the time."""

StorePath = tuple[bytes, ...]


class Sweeper:
    """Deletes what has ended.

    Looking and deleting are two steps, and a reset or a new session may come between them: what is
    deleted is judged again in the transaction that deletes it.
    """

    def __init__(self, db: DB, keys: KeyHolder, verifier: Verifier, journal: Journal, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._verifier = verifier
        self._journal = journal
        self._clock = clock
        self._room_wanted = trio.Event()
        self._rest_seconds = 0.0

    def want_room(self) -> None:
        """A session was refused for want of room, which what has ended may be taking."""
        self._room_wanted.set()

    async def until_due(self, interval_seconds: float) -> None:
        """Wait for the interval to pass, or for somebody to want room once the last sweep is rested from."""
        with trio.move_on_after(interval_seconds):
            await trio.sleep(self._rest_seconds)
            await self._room_wanted.wait()
        self._room_wanted = trio.Event()

    async def sweep(self) -> int:
        """Go through every record once, in small steps; returns how many were deleted."""
        begun = trio.current_time()
        try:
            return await self._sweep()
        finally:
            self._rest_seconds = max(_REST_SECONDS, _REST_SHARE * (trio.current_time() - begun))

    async def _sweep(self) -> int:
        await self._end_grace()
        swept = await self.delete_seen_expired()
        after: StorePath | None = None
        while True:
            await trio.lowlevel.checkpoint()
            found = self._db.iterate(SESSIONS_PATH, after=after, limit=STEP_RECORDS)
            ended = await self._those_that_ended(found)
            if ended:
                deleted, expired = await self._db.write(partial(self._delete, paths=ended))
                swept += deleted
                for record in expired:
                    self._journal.tell(SESSION_EXPIRED, record)
            if len(found) < STEP_RECORDS:
                return swept
            after = found[-1][0]

    async def _those_that_ended(self, found: Iterable[Entry]) -> list[SessionPath]:
        slices = Slices()
        key_ids = keys_that_count(self._db, self._clock.read())
        ended: list[SessionPath] = []
        for at, stored in found:
            path = _session_path(at)
            if self._has_ended(self._db, key_ids, path, stored):
                ended.append(path)
            await slices.pause_if_over()
        return ended

    async def delete_seen_expired(self) -> int:
        """Delete what was seen expired, so that it stays so beyond this process's memory."""
        seen = sorted(self._verifier.seen_expired)
        swept = 0
        for start in range(0, len(seen), _SCATTERED_RECORDS):
            paths = seen[start : start + _SCATTERED_RECORDS]
            # Expired once is expired: whatever the clock says now, these are not judged again.
            swept += await self._db.write(partial(_delete_all, paths=paths))
            self._verifier.seen_expired.difference_update(paths)
        return swept

    async def _end_grace(self) -> None:
        key = present_key(self._db)
        if key is None or not key.earlier_key_id:
            return
        if not counts_as_earlier(key, key.earlier_key_id, self._clock.read()):
            await self._db.write(self._keys.end_grace, reserved=True)
            self._keys.current(self._db.sealed(KEY_PATH)[0])  # wipes it

    def _delete(self, view: View, paths: Sequence[SessionPath]) -> tuple[int, list[SessionRecord]]:
        """Delete what has ended indeed; how many, and those among them whose own time was over."""
        now = self._clock.read()
        key_ids = keys_that_count(view, now)
        ended, expired = [], []
        for path in paths:
            stored = view.get(path)
            if stored is not None and self._has_ended(view, key_ids, path, stored):
                ended.append(path)
                # What a reset ended is deleted unread.
                if path[1] in key_ids and has_expired(record := SessionRecord.decode(stored), now):
                    expired.append(record)
        return _delete_all(view, ended), expired

    def _has_ended(self, view: Readable, key_ids: list[str], path: SessionPath, stored: bytes) -> bool:
        if path[1] not in key_ids:
            return True
        record = SessionRecord.decode(stored)
        if has_expired(record, self._clock.read()):
            return True
        return any(view.get(session_path(path[1], ancestor)) is None for ancestor in record.ancestors)


def _session_path(path: StorePath) -> SessionPath:
    return session_path(path[1].decode(), path[2].decode())


def _delete_all(view: View, paths: Sequence[SessionPath]) -> int:
    for path in paths:
        view.delete(bound_path(path))
    return sum(view.delete(path) for path in paths)
