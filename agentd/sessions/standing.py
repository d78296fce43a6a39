"""Whether a session's record counts: its key does, and every session that it ends with is there.

So ending a session is deleting one record, however many stand below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .records import KEY_PATH, KeyRecord, SessionPath, SessionRecord, session_path
from .rules import counts_as_earlier

if TYPE_CHECKING:
    from ..store import KeyPath
    from .clock import Instant


class Readable(Protocol):
    """What finding a record needs: the store itself, or a transaction."""

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None where there is none."""
        ...


class Standing(NamedTuple):
    """A record that counts, that of the session right above it, and whether their key is the present one."""

    record: SessionRecord
    parent: SessionRecord | None
    is_under_present_key: bool


def standing(view: Readable, path: SessionPath, now: Instant) -> Standing | None:
    """The session at a path, None where it does not count any more. Its own time is not looked at."""
    key = present_key(view)
    if key is None or not (path[1] == key.key_id or counts_as_earlier(key, path[1], now)):
        return None
    record = record_at(view, path)
    if record is None:
        return None
    above = [record_at(view, session_path(path[1], ancestor)) for ancestor in record.ancestors]
    if None in above:
        return None
    return Standing(record, above[-1] if above else None, path[1] == key.key_id)


def present_key(view: Readable) -> KeyRecord | None:
    """The key's record; None where there is none."""
    stored = view.get(KEY_PATH)
    return None if stored is None else KeyRecord.decode(stored)


def record_at(view: Readable, path: SessionPath) -> SessionRecord | None:
    """The record at a path; None where there is none."""
    stored = view.get(path)
    return None if stored is None else SessionRecord.decode(stored)


def keys_that_count(view: Readable, now: Instant) -> list[str]:
    """The ids of the keys whose sessions count, the present one first."""
    key = present_key(view)
    if key is None:
        return []
    return [key.key_id, *([key.earlier_key_id] if counts_as_earlier(key, key.earlier_key_id, now) else [])]
