"""What the store holds about sessions: two kinds of record, and where each one stands.

The one door to msgpack for records. Pure: bytes in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import msgpack

from agentd_client.errors import StoreDamagedError

KEY_PATH = ("session-key",)
SESSIONS_PATH = ("sessions",)


def sessions_of_key(key_id: str) -> tuple[str, str]:
    """The folder of the sessions that one session key proves.

    The key's id is part of the path, so that one write of the key record ends every earlier session, and
    what it ended can be found and swept without being read.
    """
    return ("sessions", key_id)


def session_path(key_id: str, session_id: str) -> tuple[str, str, str]:
    """Where one session's record stands."""
    return ("sessions", key_id, session_id)


@dataclass(frozen=True, slots=True)
class _Record:
    def encode(self) -> bytes:
        """The record as it is stored."""
        # Not dataclasses.asdict, which copies every value deeply: ten microseconds of the writing thread.
        encoded: bytes = msgpack.packb({field.name: getattr(self, field.name) for field in fields(self)})
        return encoded

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """The record of stored bytes; `StoreDamagedError` where they are of a form unknown here."""
        try:
            found: dict[str, Any] = msgpack.unpackb(stored)
            return cls(**found)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise StoreDamagedError(f"a {cls.__name__} of a form that this version does not know") from error


@dataclass(frozen=True, slots=True)
class KeyRecord(_Record):
    """The session key: its random id, the key itself sealed by the key ring, and when it was made."""

    key_id: str
    wrapped: bytes
    made: float


@dataclass(frozen=True, slots=True)
class SessionRecord(_Record):
    """One session. The record is the truth: a token whose record is gone proves nothing.

    made, expires: wall clock, seconds since 1970; `expires` is None for never.
    boot_id, boot_expires: the same end on the clock of the boot that the session was opened in.
    opened_uid, opened_pid: the peer, as the kernel reported it; None where there was none.
    """

    session_id: str
    label: str
    made: float
    expires: float | None
    boot_id: str
    boot_expires: float | None
    opened_uid: int | None
    opened_pid: int | None
    generation: int = 0
