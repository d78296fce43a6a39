"""Ids of sessions and of session keys. Pure: the random bytes and the time are arguments."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

RANDOM_BYTES = 16
KEY_RANDOM_BYTES = 12
"""Of a key's id. That stands in the path of every session, so each byte of it is room in a full store."""

_MARK_BYTES = 6
_MARKED_CHARACTERS = (KEY_RANDOM_BYTES + _MARK_BYTES) * 4 // 3
"""Ids of keys that 0.1.0 made have 22 and no mark."""


def session_id(random: bytes, wall_seconds: float) -> str:
    """A UUID of version 7 (RFC 9562, 5.7): ids sort by the time they were made.

    Within a millisecond too, by its 4096th parts, which stand where the first random bits would (6.2, method
    3): so sessions that are opened in quick succession fill the pages of the store one after the other.

    Args:
        random: 16 bytes, of which 62 bits go into the id.
        wall_seconds: now.
    """
    parts = int(wall_seconds * 1000 * 4096)
    value = (parts >> 12 & 0xFFFF_FFFF_FFFF) << 80 | (parts & 0xFFF) << 64
    value |= 0x7 << 76 | 0x2 << 62 | int.from_bytes(random) & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def key_id(random: bytes, agent_id: str) -> str:
    """12 random bytes, and a mark by which the agent knows its own again, as 24 characters of base64url.

    The mark tells a token of another agent from one of a key that is gone; it proves nothing.
    """
    return urlsafe_b64encode(random + _mark(random, agent_id)).decode("ascii")


def is_of_another_agent(key_id: str, agent_id: str) -> bool:
    """Whether a key's id has another agent's mark; False where it has none and may be anybody's."""
    if len(key_id) != _MARKED_CHARACTERS:
        return False
    content = urlsafe_b64decode(key_id)
    return content[KEY_RANDOM_BYTES:] != _mark(content[:KEY_RANDOM_BYTES], agent_id)


def _mark(random: bytes, agent_id: str) -> bytes:
    return blake2b(random, key=agent_id.encode(), digest_size=_MARK_BYTES, person=b"agentd key id").digest()
