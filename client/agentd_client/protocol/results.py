"""The agent's answers. Times are seconds since 1970 (UTC), as floats or ints.

The annotations say how each field is read from the wire. A token never shows in `repr`, because results end
up in logs and tracebacks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from ..light_typing import NamedTuple

__all__ = [
    "AuditEntry",
    "AuditPage",
    "CreatedToken",
    "Event",
    "Hello",
    "LockState",
    "PeerIdentity",
    "Protection",
    "SessionInfo",
    "SessionPage",
    "Status",
    "Verdict",
    "Verification",
]
"""What `agentd_client` exports."""


class Hello(NamedTuple):
    """The agent's version, the protocol's, and what this agent can do beyond the first methods."""

    server: str
    protocol: int
    capabilities: list[str]


class Counters(NamedTuple):
    """What the agent has done since it started."""

    connections: int
    connections_open: int
    connections_cut_off: int
    peers_refused: int
    requests: int
    refusals: int
    commits: int


class Status(NamedTuple):
    """The agent at a glance.

    agent_id, sessions, key_id, store_bytes: None while the agent is locked. locked_at, lock_reason: since
    when and why it is locked (one of `LOCK_REASONS`); None if it is not. protected: the key file has a
    passphrase. wrong_passphrases: since the agent started. memory_secret: no other process can read the
    memory of the keys, memfd_secret(2); None for an older agent, which does not say.
    """

    version: str
    agent_id: str | None
    pid: int
    started_at: float
    uptime_seconds: float
    sessions: int | None
    key_id: str | None
    socket_path: str
    store_path: str
    store_bytes: int | None
    memory_locked: bool
    counters: Counters
    locked: bool = False
    locked_at: float | None = None
    lock_reason: str | None = None
    protected: bool = False
    wrong_passphrases: int = 0
    memory_secret: bool | None = None


class CreatedToken(NamedTuple):
    """A new session and the token that proves it; `expires_at` is None for never."""

    token: str
    id: str
    expires_at: float | None

    def __repr__(self) -> str:
        return f"CreatedToken(token=<secret>, id={self.id!r}, expires_at={self.expires_at!r})"


class PeerIdentity(NamedTuple):
    """The process at the other end of a connection, as the kernel reported it.

    exe: the executable's path. unit: the systemd unit. Both are for display only, and None if unknown.
    """

    uid: int
    pid: int
    exe: str | None = None
    unit: str | None = None


class SessionInfo(NamedTuple):
    """One session's record.

    state: "active" or "expired". renewed_at: when the current lifetime began. max_expires_at: beyond which
    it cannot be renewed. last_used_at: the last known verification. audience, scopes: None for all.
    uses_left: None for unlimited. parent: the id of the session that this one ends with. bound_pid: the
    process that it ends with.
    """

    id: str
    label: str
    created_at: float
    expires_at: float | None
    opened_by: PeerIdentity | None
    state: str = "active"
    renewed_at: float = 0.0
    max_expires_at: float | None = None
    last_used_at: float | None = None
    audience: list[str] | None = None
    scopes: list[str] | None = None
    uses_left: int | None = None
    parent: str | None = None
    generation: int = 0
    bound_pid: int | None = None


ACTIVE, EXPIRED = "active", "expired"
"""The states of a listed session. A revoked one is not listed."""


class SessionPage(NamedTuple):
    """Some sessions, newest first; `next` is where to continue, None at the end.

    A page may be empty and not the last, because the agent examines a bounded number of sessions at a time.
    """

    sessions: list[SessionInfo]
    next: str | None


class Verification(NamedTuple):
    """Whether a token is valid; if not, `reason` is a stable code from `reasons`."""

    valid: bool
    reason: str | None
    session: SessionInfo | None


class CachedVerification(Verification):
    """A verification that the agent answers repeatedly, with its encoded form.

    Encoding is a third of the time that a verification takes.
    """

    encoded: bytes | None = None


class Verdict(NamedTuple):
    """Whether a token is valid, and for what; all that the verify socket reveals.

    audience, scopes: the session's if the token is valid, None for all. Otherwise both are None.
    """

    valid: bool
    reason: str | None
    audience: list[str] | None
    scopes: list[str] | None


class Revocation(NamedTuple):
    """Whether there was a session to end."""

    revoked: bool


class Revocations(NamedTuple):
    """How many sessions were ended, not counting those that ended with a parent."""

    ended: int


class KeyReset(NamedTuple):
    """The id of the new session key."""

    key_id: str


class LockState(NamedTuple):
    """Whether the agent is locked."""

    locked: bool


class Protection(NamedTuple):
    """Whether the key file has a passphrase."""

    protected: bool


LOCK_REASONS = ("asked", "suspend", "screen lock", "idle", "signal", "start")
"""Why an agent is locked: by request, because it started locked, or automatically."""


class Subscribed(NamedTuple):
    """Events come on this connection from now on."""

    subscribed: bool


class Event(NamedTuple):
    """Something happened to a session, to all of them, or to the agent.

    kind: one of `EVENT_KINDS`, or `MISSED`. at: when. session_id: None if it concerns none or all.
    reason: why something was refused, or why the agent was locked. peer_pid: the process that did it, if any.
    missed: how many events were lost before this one because the subscriber read too slowly.
    """

    kind: str
    at: float
    session_id: str | None
    label: str
    reason: str | None
    peer_pid: int | None
    missed: int = 0


CREATED, RENEWED, REVOKED, SESSION_EXPIRED = "created", "renewed", "revoked", "expired"
REFUSED, KEY_RESET, STOPPING = "refused", "keyReset", "stopping"
LOCKED, UNLOCKED = "locked", "unlocked"
PASSPHRASE_CHANGED, PASSPHRASE_REFUSED = "passphraseChanged", "passphraseRefused"
EVENT_KINDS = (
    *(CREATED, RENEWED, REVOKED, SESSION_EXPIRED, REFUSED, KEY_RESET, STOPPING),
    *(LOCKED, UNLOCKED, PASSPHRASE_CHANGED, PASSPHRASE_REFUSED),
)
"""The kinds of events and audit entries."""

MISSED = "missed"
"""The kind of an event that only reports how many were missed."""


class AuditEntry(NamedTuple):
    """One line of the audit log: what was done, when, to which session, and by which process.

    times, until: how often and until when, for refusals of one peer that were counted together.
    """

    at: float
    until: float
    kind: str
    session_id: str | None
    label: str
    reason: str | None
    peer_uid: int | None
    peer_pid: int | None
    peer_exe: str | None
    times: int


class AuditPage(NamedTuple):
    """Some entries, newest first; `next` is where to continue, None at the end."""

    entries: list[AuditEntry]
    next: str | None
