"""When a record was written, as far as its path alone tells: for who has no key to open it with. Pure."""

from __future__ import annotations

import uuid

from .records import SESSIONS_PATH

_AUDIT = "audit"
_ACTS = (_AUDIT, "acts")
_TIME_BYTES = 8  # of an audit entry's name: microseconds, then random bytes (`audit.py`)
_MILLISECOND_SHIFT = 80  # of a UUID of version 7 (`identifiers.py`)
_VERSION = 7

TIMESTAMPED_FOLDERS = (SESSIONS_PATH, _ACTS)
"""Below these paths the names of records begin with a time, so that the last of them is the newest.

Sessions are below the id of their key first: the last is the newest of one key only. Every session that was
opened is in the audit log too.
"""


def timestamp_in_path(path: tuple[bytes, ...]) -> float | None:
    """Seconds since 1970 that a path below `TIMESTAMPED_FOLDERS` names; None where it names none."""
    name = path[-1]
    if path[0] == _AUDIT.encode():
        return int.from_bytes(name[:_TIME_BYTES], "big") / 1_000_000
    try:
        found = uuid.UUID(name.decode("ascii"))
    except ValueError:
        return None
    return (found.int >> _MILLISECOND_SHIFT) / 1000 if found.version == _VERSION else None
