"""What the store holds about sessions: ids, paths, the kinds of record, and which sessions are live.

The only module that encodes records. Pure: bytes, times and random bytes come in as arguments.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import msgspec

from agentd_client.errors import StoreDamagedError
from agentd_client.protocol.results import PeerIdentity, SessionInfo

from .rules import is_in_grace

if TYPE_CHECKING:
    from ..store import KeyPath
    from .clock import Instant

RANDOM_BYTES = 16
KEY_RANDOM_BYTES = 12
"""Random bytes in a key's id. It is part of every session's path, so each byte takes room in the store."""

_MARK_BYTES = 6
_MARKED_CHARACTERS = (KEY_RANDOM_BYTES + _MARK_BYTES) * 4 // 3
"""Length of a key id with a mark. Those made by 0.1.0 have 22 characters and no mark."""

KEY_PATH = ("session-key",)
SESSIONS_PATH = ("sessions",)
BOUND_PATH = ("bound",)
ACTIONS_PATH, REJECTIONS_PATH = ("audit", "acts"), ("audit", "refusals")
REQUESTS_PATH, USES_PATH = ("audit", "requests"), ("audit", "uses")
"""The parts of the audit log. Each has its own limit, so rejections, requests and uses cannot push out what
was done, or each other."""

TIMESTAMPED_FOLDERS = (SESSIONS_PATH, ACTIONS_PATH)
"""Names in these folders begin with a time, so the last one is the newest.

Sessions are grouped by key id first, so the last session is the newest of one key only. The audit log has an
entry for every session that was opened.
"""

AUDIT_TIME_BYTES, AUDIT_RANDOM_BYTES = 8, 8
"""An audit entry's name: microseconds since 1970, then random bytes."""
_MILLISECOND_SHIFT = 80  # in a UUID of version 7
_VERSION = 7

SessionPath = tuple[str, str, str]
"""The path of a session's record. It contains the key's id and the session's."""

_encode = msgspec.msgpack.Encoder().encode


def session_id(random: bytes, wall_seconds: float) -> str:
    """A UUID of version 7 (RFC 9562, 5.7), so ids sort by creation time.

    4096ths of a millisecond take the place of the first random bits (6.2, method 3), so sessions opened in
    quick succession fill the store's pages in order.

    Args:
        random: 16 bytes, of which 62 bits are used.
        wall_seconds: now.
    """
    parts = int(wall_seconds * 1000 * 4096)
    value = (parts >> 12 & 0xFFFF_FFFF_FFFF) << 80 | (parts & 0xFFF) << 64
    value |= 0x7 << 76 | 0x2 << 62 | int.from_bytes(random) & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def key_id(random: bytes, agent_id: str) -> str:
    """12 random bytes and a mark that identifies the agent, as 24 characters of base64url.

    The mark tells a token of another agent from one whose key is gone. It proves nothing.
    """
    return urlsafe_b64encode(random + _mark(random, agent_id)).decode("ascii")


def is_of_another_agent(key_id: str, agent_id: str) -> bool:
    """Whether a key's id has another agent's mark; False if it has none."""
    if len(key_id) != _MARKED_CHARACTERS:
        return False
    content = urlsafe_b64decode(key_id)
    return content[KEY_RANDOM_BYTES:] != _mark(content[:KEY_RANDOM_BYTES], agent_id)


def _mark(random: bytes, agent_id: str) -> bytes:
    return blake2b(random, key=agent_id.encode(), digest_size=_MARK_BYTES, person=b"agentd key id").digest()


def sessions_of_key(key_id: str) -> tuple[str, str]:
    """The folder of one session key's sessions.

    Because the key's id is part of the path, replacing the key record ends every earlier session in one
    write, and the sweeper finds the ended sessions without reading them.
    """
    return ("sessions", key_id)


def session_path(key_id: str, session_id: str) -> SessionPath:
    """The path of one session's record."""
    return ("sessions", key_id, session_id)


def bound_path(path: SessionPath) -> tuple[str, str, str]:
    """The path of the marker for a process-bound session, so that a start finds those few at once."""
    return ("bound", *path[1:])


def seconds_of_entry(name: bytes) -> float:
    """The time in an audit entry's name, seconds since 1970."""
    return int.from_bytes(name[:AUDIT_TIME_BYTES], "big") / 1_000_000


def timestamp_in_path(path: tuple[bytes, ...]) -> float | None:
    """The time in a stored path under `TIMESTAMPED_FOLDERS`, seconds since 1970; None if it has none.

    It works without a key to open the store.
    """
    import uuid  # only the doctor needs it, not the agent's start

    name = path[-1]
    if path[0] == ACTIONS_PATH[0].encode():
        return seconds_of_entry(name)
    try:
        found = uuid.UUID(name.decode("ascii"))
    except ValueError:
        return None
    return (found.int >> _MILLISECOND_SHIFT) / 1000 if found.version == _VERSION else None


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A kind of record, stored as a MessagePack map of the fields that differ from their defaults.

    `rename` keeps the names under which fields are stored on disk.
    """

    def encode(self) -> bytes:
        """The record as it is stored."""
        return _encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """The record in stored bytes; `StoreDamagedError` if this version does not know their form."""
        try:
            return msgspec.msgpack.decode(stored, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreDamagedError(f"a {cls.__name__} of a form that this version does not know") from error


class KeyRecord(_Record, frozen=True, rename={"created_at": "made"}):
    """The session key: its random id, the key itself sealed by the key ring, and when it was created.

    earlier_...: the previous key, if it was replaced with grace. Its tokens verify until `earlier_until`
    (wall clock) and, in the boot `earlier_boot_id`, until `earlier_boot_until`.
    """

    key_id: str
    wrapped: bytes
    created_at: float
    earlier_key_id: str = ""
    earlier_wrapped: bytes = b""
    earlier_until: float = 0.0
    earlier_boot_id: str = ""
    earlier_boot_until: float = 0.0


class SessionRecord(
    _Record,
    frozen=True,
    rename={
        "created_at": "made",
        "expires_at": "expires",
        "max_expires_at": "max_expires",
        "ttl": "lasts",
        "renewed_at": "renewed",
        "last_used_at": "last_used",
        "superseded_at": "superseded",
    },
):
    """One session. The record is the truth: a token whose record is gone proves nothing.

    ..._at: wall clock, seconds since 1970; None is never. Renewing stops at `max_expires_at`.
    boot_...: the same ends on the boot clock of `boot_id`, the boot in which they were last computed.
    ttl: seconds, from each renewal. renewed_at: the last renewal.
    opened_...: the peer, as the kernel reported it; None if there was none.
    audience, scopes: None is all. uses_left: None is unlimited.
    ancestors: the ids of the sessions that this one ends with, the topmost first.
    generation: of the newest token. superseded_at: when that token was first used, which starts the overlap
    of the previous one; also on the clock of the boot `superseded_boot_id`. overlaps: the same three values
    for older generations, the latest first, as long as they are valid.
    bound_...: the process that it ends with; the start time tells it from later ones with the same pid.
    """

    session_id: str
    label: str
    created_at: float
    expires_at: float | None
    boot_id: str
    boot_expires: float | None
    opened_uid: int | None
    opened_pid: int | None
    generation: int = 0
    opened_exe: str | None = None
    opened_unit: str | None = None
    ttl: float | None = None
    renewed_at: float | None = None
    max_expires_at: float | None = None
    boot_max_expires: float | None = None
    last_used_at: float | None = None
    audience: list[str] | None = None
    scopes: list[str] | None = None
    uses_left: int | None = None
    ancestors: list[str] = []
    superseded_at: float | None = None
    superseded_boot_id: str = ""
    superseded_boot: float = 0.0
    overlaps: list[tuple[float, str, float]] = []
    bound_pid: int | None = None
    bound_started: int = 0
    bound_boot_id: str = ""


class AuditRecord(_Record, frozen=True):
    """One line of the audit log: what was done to which session, and by which process. Never a token.

    at, until: wall clock, seconds since 1970; the first and the last occurrence.
    session_id, label: None and empty if the entry is about no session, or about several.
    peer_uid, peer_pid, peer_exe: who did it; None if unknown, or if several did.
    peer_unit, request_id, asked_by: the process's systemd unit, the request that the entry is about, and who
        had made it if a person decided about it.
    times: how often, from `at` to `until`. It has no default, so counting up leaves the record's length as
        it is and a full store can take it.
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
    peer_unit: str | None = None
    request_id: str | None = None
    asked_by: PeerIdentity | None = None


def session_info(
    record: SessionRecord, last_used_at: float | None = None, ends_at: float | None = None
) -> SessionInfo:
    """A record as callers see it. `ends_at`: when it ends at the latest, because its key was replaced."""
    expires_at = record.expires_at
    if ends_at is not None:
        expires_at = ends_at if expires_at is None else min(expires_at, ends_at)
    opened_by = None
    if record.opened_uid is not None and record.opened_pid is not None:
        opened_by = PeerIdentity(record.opened_uid, record.opened_pid, record.opened_exe, record.opened_unit)
    return SessionInfo(
        id=record.session_id,
        label=record.label,
        created_at=record.created_at,
        expires_at=expires_at,
        opened_by=opened_by,
        renewed_at=record.created_at if record.renewed_at is None else record.renewed_at,
        max_expires_at=record.max_expires_at,
        last_used_at=record.last_used_at if last_used_at is None else last_used_at,
        audience=record.audience,
        scopes=record.scopes,
        uses_left=record.uses_left,
        parent=record.ancestors[-1] if record.ancestors else None,
        generation=record.generation,
        bound_pid=record.bound_pid,
    )


# --- live sessions ---
#
# A session is live if its key is accepted, and its record and all ancestors exist. So ending a session is
# deleting one record, however many descendants it has.


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
