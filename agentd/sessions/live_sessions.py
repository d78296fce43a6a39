"""Which sessions are live: a session is live if its key is accepted, and its record and all ancestors exist.

So ending a session is deleting one record, however many descendants it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .records import KEY_PATH, KeyRecord, SessionPath, SessionRecord, session_path
from .rules import is_in_grace

if TYPE_CHECKING:
    from ..store import KeyPath
    from .clock import Instant


class Readable(Protocol):
    """What can be read from: the store itself, or a transaction."""

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None if there is none."""
        ...


class LiveSession(NamedTuple):
    """A live session's record, its parent's, and whether their key is the current one."""

    record: SessionRecord
    parent: SessionRecord | None
    is_under_current_key: bool


def find_live_session(view: Readable, path: SessionPath, now: Instant) -> LiveSession | None:
    """The session at a path, None if it is not live. Its expiry is not checked."""
    key = read_key_record(view)
    if key is None or not (path[1] == key.key_id or is_in_grace(key, path[1], now)):
        return None
    record = read_session(view, path)
    if record is None:
        return None
    ancestors = [read_session(view, session_path(path[1], ancestor)) for ancestor in record.ancestors]
    if None in ancestors:
        return None
    return LiveSession(record, ancestors[-1] if ancestors else None, path[1] == key.key_id)


def find_path(view: Readable, session_id: str, now: Instant) -> SessionPath | None:
    """The path of the session with that id under an accepted key; None if there is none."""
    for key_id in accepted_key_ids(view, now):
        path = session_path(key_id, session_id)
        if view.get(path) is not None:
            return path
    return None


def read_key_record(view: Readable) -> KeyRecord | None:
    """The session key's record; None if there is none."""
    stored = view.get(KEY_PATH)
    return None if stored is None else KeyRecord.decode(stored)


def read_session(view: Readable, path: SessionPath) -> SessionRecord | None:
    """The record at a path; None if there is none."""
    stored = view.get(path)
    return None if stored is None else SessionRecord.decode(stored)


def accepted_key_ids(view: Readable, now: Instant) -> list[str]:
    """The ids of the keys whose tokens verify, the current one first."""
    key = read_key_record(view)
    if key is None:
        return []
    return [key.key_id, *([key.earlier_key_id] if is_in_grace(key, key.earlier_key_id, now) else [])]
