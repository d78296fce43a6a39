"""Stretches of stored keys: what a prefix, a place to go on from and a direction come to. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .keypath import KeyPath, encode_path, encode_prefix


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
