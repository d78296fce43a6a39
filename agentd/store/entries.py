"""Entries as they are stored: the encoding of key paths, ranges of stored keys, and sealed values.

A stored key is one byte for the kind of record, then each part of the path, escaped and terminated by 0x00.
0x00 is escaped as 01 01 and 0x01 as 01 02, so a part never holds a bare 0x00. It follows that

- the encoding is injective: different paths have different bytes;
- stored keys sort as tuples of parts do (escaping keeps 0x00 < 0x01 < 0x02, and the end of a part sorts
  before anything that continues it);
- a prefix is safe: the entries below a path are exactly those that begin with its bytes, and ("a",) never
  matches ("ab",).

A value is sealed with a fixed domain and its stored key as associated data, so one that was moved, swapped or
forged does not open. Not detected: an earlier value of the same path, or a whole earlier store, put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple, Protocol

from agentd_client.errors import InvalidPathError

from ..crypto import SealError
from .errors import damaged

KeyPath = str | Sequence[str | bytes]
"""The parts of a path; a lone `str` is a path of one part. Text stands for its UTF-8 bytes."""

EntryPath = tuple[bytes, ...]
"""A path as the store returns it."""

Entry = tuple[EntryPath, bytes]
"""A path and its value."""

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

_DOMAIN = b"agentd store 1\0"
_COUNT_BYTES = 8

# --- keys ---


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
    """The prefix of the stored keys of a path and of everything below it; `()` is the root."""
    return _encode(_hashable(path))


def _hashable(path: KeyPath) -> KeyPath:
    if isinstance(path, str):
        return path
    try:
        parts = tuple(path)
        hash(parts)
    except TypeError:
        kind = type(path).__name__
        raise InvalidPathError(f"a path is text or a sequence of text and bytes, not {kind}") from None
    return parts


# A cached encoding costs a tenth, and every verification encodes two paths.
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
    key = DATA + b"".join(map(_encode_part, parts, count(1)))
    if len(key) > MAX_KEY_BYTES:
        raise InvalidPathError(f"a path takes at most {MAX_KEY_BYTES} bytes once encoded, not {len(key)}")
    return key


def _encode_part(part: object, number: int) -> bytes:
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


def decode_key(key: bytes) -> EntryPath:
    """The parts of the stored key of an entry or a count."""
    return tuple(part.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1") for part in key[1:].split(b"\0")[:-1])


def count_key(parent: KeyPath) -> bytes:
    """The stored key of the number of entries exactly one part below a path."""
    return COUNT + encode_prefix(parent)[1:]


def parent_count_key(key: bytes) -> bytes:
    """The stored key of the count that an entry belongs to: that of its parent path."""
    # A bare 0x00 is only at the end of a part, so the one before the last ends the parent.
    # If there is none, the slice is empty: the parent is the root.
    return COUNT + key[1 : key.rfind(b"\0", 0, -1) + 1]


def readable(key: bytes) -> str:
    """A stored key for people: parts joined by slashes, in hexadecimal if they are not printable text."""
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
    """Stored keys; `low` is inclusive, `high` exclusive."""

    low: bytes
    high: bytes

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.low <= key < self.high

    def up_to(self, key: bytes, *, reverse: bool) -> KeyRange:
        """The part that a reader in that direction has seen when it stops at `key`."""
        return KeyRange(key, self.high) if reverse else KeyRange(self.low, _next(key))


def key_range(prefix: KeyPath, after: KeyPath | None = None, *, reverse: bool = False) -> KeyRange:
    """A prefix itself and everything below it, strictly past `after` in the direction of reading."""
    low = encode_prefix(prefix)
    # The last byte is 0x00 or the kind's letter, so adding one never overflows.
    high = low[:-1] + bytes([low[-1] + 1])
    if after is None:
        return KeyRange(low, high)
    key = encode_path(after)
    return KeyRange(low, min(high, key)) if reverse else KeyRange(max(low, _next(key)), high)


def _next(key: bytes) -> bytes:
    return key + b"\0"


def check_limit(limit: int | None) -> None:
    """Raise ValueError unless a limit is a count or None."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ValueError(f"a limit is a whole number from 0, or None: {limit!r}")


# --- values ---


class ReadOnlyKeys(Protocol):
    """What reading the store takes: `agentd.keys.ReadOnlyKeys`, or a key ring. Callable from any thread."""

    @property
    def agent_id(self) -> str:
        """Public; the same for the life of a root key."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `KeyRing.seal` made; raises `SealError` for anything else."""
        ...


class KeyRing(ReadOnlyKeys, Protocol):
    """What the store uses of `agentd.keys.KeyRing`; callable from any thread."""

    def seal(self, value: bytes, context: bytes) -> bytes:
        """Seal under a fresh nonce: no two results are alike."""
        ...


def seal(key_ring: KeyRing, key: bytes, value: bytes) -> bytes:
    """The bytes to store under `key`."""
    return key_ring.seal(value, _DOMAIN + key)


def unseal(keys: ReadOnlyKeys, key: bytes, sealed: bytes) -> bytes:
    """The value stored under `key`; raises `StoreDamagedError`, which names the path but no value."""
    try:
        return keys.open(sealed, _DOMAIN + key)
    except SealError:
        raise damaged(
            f"the store is damaged at {readable(key)}: its value was not sealed there by this agent"
        ) from None


def seal_count(key_ring: KeyRing, key: bytes, number: int) -> bytes | None:
    """The record of a count; 0 has none."""
    return seal(key_ring, key, number.to_bytes(_COUNT_BYTES, "big")) if number else None


def unseal_count(keys: ReadOnlyKeys, key: bytes, sealed: bytes | None) -> int:
    """The number in the record of a count; 0 if there is none."""
    return 0 if sealed is None else int.from_bytes(unseal(keys, key, sealed), "big")
