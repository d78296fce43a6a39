"""What the store holds about sessions: the kinds of record, and where each one stands.

The one door to msgpack for records. Pure: bytes in, values out.
"""

from __future__ import annotations

from typing import Self

import msgspec

from agentd_client.errors import StoreDamagedError

KEY_PATH = ("session-key",)
SESSIONS_PATH = ("sessions",)
BOUND_PATH = ("bound",)

_encode = msgspec.msgpack.Encoder().encode


SessionPath = tuple[str, str, str]
"""Where a session's record stands: it names the key and the session."""


def sessions_of_key(key_id: str) -> tuple[str, str]:
    """The folder of the sessions that one session key proves.

    The key's id is part of the path, so that one write of the key record ends every earlier session, and
    what it ended can be found and swept without being read.
    """
    return ("sessions", key_id)


def session_path(key_id: str, session_id: str) -> SessionPath:
    """Where one session's record stands."""
    return ("sessions", key_id, session_id)


def bound_path(path: SessionPath) -> tuple[str, str, str]:
    """Where it is noted that a session ends with a process, so that a start finds those few at once."""
    return ("bound", *path[1:])


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A kind of record, stored as a MessagePack map of what differs from the defaults, by field name."""

    def encode(self) -> bytes:
        """The record as it is stored."""
        return _encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """The record of stored bytes; `StoreDamagedError` where they are of a form unknown here."""
        try:
            return msgspec.msgpack.decode(stored, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreDamagedError(f"a {cls.__name__} of a form that this version does not know") from error


class KeyRecord(_Record, frozen=True):
    """The session key: its random id, the key itself sealed by the key ring, and when it was made.

    earlier_...: the key before, where it was replaced with grace: its tokens verify until `earlier_until`
    (wall clock) and, in the boot named, until `earlier_boot_until`.
    """

    key_id: str
    wrapped: bytes
    made: float
    earlier_key_id: str = ""
    earlier_wrapped: bytes = b""
    earlier_until: float = 0.0
    earlier_boot_id: str = ""
    earlier_boot_until: float = 0.0


class SessionRecord(_Record, frozen=True):
    """One session. The record is the truth: a token whose record is gone proves nothing.

    made, expires, max_expires: wall clock, seconds since 1970; None is never. Renewing goes up to the last.
    boot_...: the same ends on the clock of the boot `boot_id`, in which they were last reckoned.
    lasts: seconds, from each renewal. renewed: when the last one was.
    opened_...: the peer, as the kernel reported it; None where there was none.
    audience, scopes: None is all. uses_left: None is without limit.
    ancestors: the ids of the sessions that this one ends with, the topmost first.
    generation: of the newest token; superseded: when it was first seen, so that the one before is on its way
    out, on the wall clock and on that of the boot `superseded_boot_id`. overlaps: the same three for the one
    two before, the one three before, and so on, as long as they are good.
    bound_...: the process that it ends with, told apart from later ones of the same pid by its start.
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
    opened_exe: str | None = None
    opened_unit: str | None = None
    lasts: float | None = None
    renewed: float | None = None
    max_expires: float | None = None
    boot_max_expires: float | None = None
    last_used: float | None = None
    audience: list[str] | None = None
    scopes: list[str] | None = None
    uses_left: int | None = None
    ancestors: list[str] = []
    superseded: float | None = None
    superseded_boot_id: str = ""
    superseded_boot: float = 0.0
    overlaps: list[tuple[float, str, float]] = []
    bound_pid: int | None = None
    bound_started: int = 0
    bound_boot_id: str = ""


class AuditRecord(_Record, frozen=True):
    """One line of the audit log: what was done to which session, and by which process. Never a token.

    at, until: wall clock, seconds since 1970; the first and the last time that it tells of.
    session_id, label: whose; None and empty where it is about none, or about several.
    peer_uid, peer_pid, peer_exe: who did it; None where that is not known, or where several did.
    times: how often, from `at` to `until`. Without a default, so that counting on leaves
        the record's length as it is, and a full store takes it.
    """

    kind: str
    at: float
    until: float
    session_id: str | None
    label: str
    reason: str | None
    peer_uid: int | None
    peer_pid: int | None
    peer_exe: str | None
    times: int
