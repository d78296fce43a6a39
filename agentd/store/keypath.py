"""Key paths: what an entry is called, the bytes that LMDB sorts it by, and stretches of those.

A stored key is one byte for the kind of record, then each part of the path: escaped, and ended by 0x00.
0x00 is written as 01 01 and 0x01 as 01 02, so a part never holds a bare 0x00. From this follow

- injectivity: two paths have the same bytes only where they are the same path;
- order: stored keys sort as the tuples of parts do (the escape keeps 0x00 < 0x01 < 0x02, and the end
  of a part sorts before anything that continues it);
- prefix safety: what lies below a path is exactly what begins with its bytes, ("a",) never matches ("ab",).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from agentd_client.errors import InvalidPathError

KeyPath = str | Sequence[str | bytes]
"""A path's parts; a lone `str` is a path of one part. Text counts as its UTF-8 bytes."""

MAX_PARTS = 8
"""Deep enough for every record, shallow enough to show in one line of an error."""

MAX_KEY_BYTES = 511
"""LMDB's MDB_MAXKEYSIZE in its default build, the kind byte included."""

_CACHED_PATHS = 4096  # about 1 MB when full

DATA = b"d"
COUNT = b"c"
HEADER = b"h"
STOP = b"s"  # sealed like a record, kept in a file of its own

_SINGLE = {HEADER: "the header record", STOP: "the mark of the last stop"}


def encode_path(path: KeyPath) -> bytes:
    """The stored key of an entry.

    Raises:
        InvalidPathError: no parts, more than eight, an empty one, one that is neither text nor bytes or
            that UTF-8 cannot hold, or more than 511 bytes once encoded.
    """
    try:
        return _encode_entry(path)
    except TypeError:
        return _encode_entry(_hashable(path))


def encode_prefix(path: KeyPath) -> bytes:
    """What the stored keys of a path and of everything below it begin with; `()` is above everything."""
    try:
        return _encode(path)
    except TypeError:
        return _encode(_hashable(path))


def _hashable(path: Any) -> tuple[str | bytes, ...]:
    try:
        parts = tuple(path)
        hash(parts)
    except TypeError:
        kind = type(path).__name__
        raise InvalidPathError(f"a path is text or a sequence of text and bytes, not {kind}") from None
    return parts


# Found in the cache, an encoding costs a tenth; every check of a token encodes two paths.
@lru_cache(_CACHED_PATHS)
def _encode_entry(path: KeyPath) -> bytes:
    key = _encode(path)
    if key == DATA:
        raise InvalidPathError("a path has at least one part")
    return key


def _encode(path: KeyPath) -> bytes:
    parts = (path,) if isinstance(path, str) else path
    if len(parts) > MAX_PARTS:
        raise InvalidPathError(f"a path has at most {MAX_PARTS} parts, not {len(parts)}")
    key = DATA + b"".join(_encode_part(number, part) for number, part in enumerate(parts, 1))
    if len(key) > MAX_KEY_BYTES:
        raise InvalidPathError(f"a path takes at most {MAX_KEY_BYTES} bytes once encoded, not {len(key)}")
    return key


def _encode_part(number: int, part: object) -> bytes:
    if isinstance(part, str):
        try:
            raw = part.encode()
        except UnicodeEncodeError:
            raise InvalidPathError(f"part {number} of a path is text that UTF-8 cannot hold") from None
    elif isinstance(part, bytes):
        raw = part
    else:
        raise InvalidPathError(f"part {number} of a path is {type(part).__name__}, neither text nor bytes")
    if not raw:
        raise InvalidPathError(f"part {number} of a path is empty")
    return raw.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1") + b"\0"


def decode_key(key: bytes) -> tuple[bytes, ...]:
    """The parts of a stored key of the data or the count kind."""
    return tuple(part.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1") for part in key[1:].split(b"\0")[:-1])


def count_key(prefix: bytes) -> bytes:
    """Where the number of entries exactly one part below an encoded prefix is kept."""
    return COUNT + prefix[1:]


def parent_count_key(key: bytes) -> bytes:
    """Where an entry is counted: its path without the last part."""
    # A bare 0x00 stands only at the end of a part, so the one before the last ends the parent.
    # Where there is none, the slice is empty: the parent is the root.
    return COUNT + key[1 : key.rfind(b"\0", 0, -1) + 1]


def readable(key: bytes) -> str:
    """A stored key for people: parts joined by slashes, those that are not printable text in hexadecimal."""
    if key in _SINGLE:
        return _SINGLE[key]
    path = "/".join(_readable_part(part) for part in decode_key(key))
    return f"the count of {path or 'the whole store'}" if key[:1] == COUNT else path


def _readable_part(part: bytes) -> str:
    try:
        text = part.decode()
    except UnicodeDecodeError:
        return f"0x{part.hex()}"
    return text if text.isprintable() else f"0x{part.hex()}"


class KeyRange(NamedTuple):
    """The stored keys from `low` (included) to `high` (excluded)."""

    low: bytes
    high: bytes

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.low <= key < self.high

    def up_to(self, key: bytes, *, reverse: bool) -> KeyRange:
        """The part that a reader has seen who came in that direction and stopped at `key`."""
        return KeyRange(key, self.high) if reverse else KeyRange(self.low, _next(key))


def key_range(prefix: KeyPath, after: KeyPath | None = None, *, reverse: bool = False) -> KeyRange:
    """A prefix itself and everything below it, strictly past `after` in the direction of reading.

    Raises:
        InvalidPathError: either path is not one.
    """
    low = encode_prefix(prefix)
    # The last byte is 0x00, or the kind's letter: adding one never overflows.
    high = low[:-1] + bytes([low[-1] + 1])
    if after is None:
        return KeyRange(low, high)
    key = encode_path(after)
    return KeyRange(low, min(high, key)) if reverse else KeyRange(max(low, _next(key)), high)


def _next(key: bytes) -> bytes:
    return key + b"\0"


def check_limit(limit: int | None) -> None:
    """Refuse a limit that is no count with ValueError."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ValueError(f"a limit is a whole number from 0, or None: {limit!r}")
