"""Sweeping: records that no longer prove anything are deleted, a few at a time.

Only space depends on it. A record under another key than the present one, or past its end, is refused
whether or not it has been swept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from .records import KEY_PATH, SESSIONS_PATH, KeyRecord, SessionRecord
from .rules import has_expired

if TYPE_CHECKING:
    from ..store import DB, KeyPath, View
    from .clock import Clock
    from .verifier import Readable, Verifier

STEP_RECORDS = 64
"""Records looked at in one go; a step takes well under a millisecond of the event loop."""

_SCATTERED_RECORDS = 16
"""Records deleted in one go wherever they lie: each may change pages of its own, and a full store has room
for some changed pages only."""

StorePath = tuple[bytes, ...]


class Sweeper:
    """Deletes what has ended.

    Looking and deleting are two steps, and a reset or a new session may come between them: what is
    deleted is judged again in the transaction that deletes it.
    """

    def __init__(self, db: DB, verifier: Verifier, clock: Clock) -> None:
        self._db = db
        self._verifier = verifier
        self._clock = clock

    async def sweep(self) -> int:
        """Go through every record once, in small steps; returns how many were deleted."""
        swept = await self.delete_seen_expired()
        after: StorePath | None = None
        while True:
            await trio.lowlevel.checkpoint()
            found = self._db.iterate(SESSIONS_PATH, after=after, limit=STEP_RECORDS)
            key_id = _present_key(self._db)
            ended = [path for path, stored in found if self._has_ended(key_id, path, stored)]
            if ended:
                swept += await self._db.write(partial(self._delete, paths=ended))
            if len(found) < STEP_RECORDS:
                return swept
            after = found[-1][0]

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

    def _delete(self, view: View, paths: Sequence[StorePath]) -> int:
        key_id = _present_key(view)
        stored = [(path, view.get(path)) for path in paths]
        ended = [path for path, found in stored if found is not None and self._has_ended(key_id, path, found)]
        return _delete_all(view, ended)

    def _has_ended(self, key_id: bytes, path: StorePath, stored: bytes) -> bool:
        return path[1] != key_id or has_expired(SessionRecord.decode(stored), self._clock.read())


def _present_key(view: Readable) -> bytes:
    stored = view.get(KEY_PATH)
    return b"" if stored is None else KeyRecord.decode(stored).key_id.encode()


def _delete_all(view: View, paths: Sequence[KeyPath]) -> int:
    return sum(view.delete(path) for path in paths)
