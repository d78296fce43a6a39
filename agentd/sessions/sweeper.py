"""Sweeping: records that no longer prove anything are deleted, a few at a time.

Only space depends on it. A record under another key than the present one, or past its end, is refused
whether or not it has been swept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from .records import KEY_PATH, SESSIONS_PATH, SessionRecord
from .rules import has_expired

if TYPE_CHECKING:
    from ..store import DB, View
    from .clock import Clock
    from .key_holder import KeyHolder
    from .verifier import SessionPath, Verifier

STEP_RECORDS = 64
"""Records looked at in one go; a step takes well under a millisecond of the event loop."""

_SCATTERED_RECORDS = 16
"""Records deleted in one go wherever they lie: each may change pages of its own, and a full store has room
for some changed pages only."""

StorePath = tuple[bytes, ...]


class Sweeper:
    """Deletes what has ended."""

    def __init__(self, db: DB, keys: KeyHolder, verifier: Verifier, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._verifier = verifier
        self._clock = clock

    async def sweep(self) -> int:
        """Go through every record once, in small steps; returns how many were deleted."""
        swept = await self.delete_seen_expired()
        after: StorePath | None = None
        while True:
            ended, after = self._look(after)
            if ended:
                swept += await self._delete(ended)
            if after is None:
                return swept
            await trio.lowlevel.checkpoint()

    async def delete_seen_expired(self) -> int:
        """Delete what was seen expired, so that it stays so beyond this process's memory."""
        seen = sorted(self._verifier.seen_expired)
        swept = 0
        for start in range(0, len(seen), _SCATTERED_RECORDS):
            paths = seen[start : start + _SCATTERED_RECORDS]
            swept += await self._delete(paths)
            self._verifier.seen_expired.difference_update(paths)
        return swept

    def _look(self, after: StorePath | None) -> tuple[list[StorePath], StorePath | None]:
        """What has ended among the next records, and where to go on; None at the end."""
        now = self._clock.read()
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        key_id = b"" if key is None else key.id.encode()
        found = self._db.iterate(SESSIONS_PATH, after=after, limit=STEP_RECORDS)
        ended = [
            path
            for path, stored in found
            if path[1] != key_id or has_expired(SessionRecord.decode(stored), now)
        ]
        return ended, found[-1][0] if len(found) == STEP_RECORDS else None

    async def _delete(self, paths: Sequence[StorePath | SessionPath]) -> int:
        # Looked at a moment ago and still to go: neither a key that was replaced nor an end comes back.
        def delete(view: View) -> int:
            return sum(view.delete(path) for path in paths)

        return await self._db.write(delete)
