"""Sweeping: records that no longer prove anything are deleted, a few at a time.

Only space depends on it. A record under another key than the present one, or past its end, is refused
whether or not it has been swept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .records import SESSIONS_PATH, SessionRecord
from .rules import has_expired

if TYPE_CHECKING:
    from ..store import DB, View
    from .clock import Instant

STEP_RECORDS = 64
"""Records looked at in one go; a step takes well under a millisecond of the event loop."""

StorePath = tuple[bytes, ...]


class Step:
    """One step through the records: what it found to delete, and where the next one begins."""

    def __init__(self, db: DB, key_id: str, now: Instant, after: StorePath | None) -> None:
        self._doomed: list[StorePath] = []
        self.next: StorePath | None = None
        looked_at = 0
        for path, stored in db.iterate(SESSIONS_PATH, after=after, limit=STEP_RECORDS):
            looked_at += 1
            self.next = path
            if path[1] != key_id.encode() or has_expired(SessionRecord.decode(stored), now):
                self._doomed.append(path)
        if looked_at < STEP_RECORDS:
            self.next = None

    def __bool__(self) -> bool:
        return bool(self._doomed)

    def delete(self, view: View) -> int:
        """Delete what was found: records of a key that is gone, or expired, never come back to life."""
        return sum(view.delete(path) for path in self._doomed)
