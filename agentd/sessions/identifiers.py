"""Ids of sessions and of session keys. Pure: the random bytes and the time are arguments."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode

RANDOM_BYTES = 16


def session_id(random: bytes, wall_seconds: float) -> str:
    """A UUID of version 7 (RFC 9562, 5.7): ids sort by the time they were made.

    `random` gives 16 bytes, of which the version, the variant and the 48 bits of time take their part.
    """
    milliseconds = int(wall_seconds * 1000) & 0xFFFF_FFFF_FFFF
    value = milliseconds << 80 | int.from_bytes(random) & (1 << 80) - 1
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def key_id(random: bytes) -> str:
    """16 random bytes as 22 characters of base64url."""
    return urlsafe_b64encode(random).rstrip(b"=").decode("ascii")
