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
    "Decision",
    "Event",
    "GrantedToken",
    "Hello",
    "LockState",
    "PeerIdentity",
    "Protection",
    "RequestInfo",
    "RequestPage",
    "RequestedToken",
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
    memory of the keys, memfd_secret(2); None for an older agent, which does not say. opening: how sessions
    without a parent are opened at the owner's socket, one of `OPENINGS`. requests: how many wait for a
    person.
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
    opening: str = "free"
    requests: int = 0


FREE, ASK, PASSPHRASE = "free", "ask", "passphrase"
OPENINGS = (FREE, ASK, PASSPHRASE)
"""Who opens sessions that have no parent: any program of the owner; whoever a person approves; whoever a
person approves who knows the passphrase of the key file."""


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


class RequestedToken(NamedTuple):
    """A request for a session, and the token once it is granted.

    id: of the request. until: when it expires unless it is decided before. token: None while it waits for a
    person, and so are the fields below. session_id, expires_at: the session's; None for never. audience,
    scopes, max_uses: what was granted, which may be less than what was asked for; None for all, and for
    unlimited.
    """

    id: str
    until: float
    token: str | None = None
    session_id: str | None = None
    expires_at: float | None = None
    audience: list[str] | None = None
    scopes: list[str] | None = None
    max_uses: int | None = None

    def __repr__(self) -> str:
        shown = None if self.token is None else "<secret>"
        return f"RequestedToken(id={self.id!r}, token={shown}, session_id={self.session_id!r})"


class GrantedToken(NamedTuple):
    """The token of a session that was asked for, and what was granted; None for all, never and unlimited.

    It is what the clients return, and not an answer of the agent.
    """

    token: str
    id: str
    expires_at: float | None
    audience: list[str] | None = None
    scopes: list[str] | None = None
    max_uses: int | None = None

    def __repr__(self) -> str:
        return (
            f"GrantedToken(token=<secret>, id={self.id!r}, expires_at={self.expires_at!r}, "
            f"audience={self.audience!r}, scopes={self.scopes!r}, max_uses={self.max_uses!r})"
        )


WAITING, REMEMBERED = "waiting", "remembered"
"""The states of a listed request. A remembered one was approved, and grants what it names without asking."""

OWNERS_SOCKET, ASK_SOCKET = "owner", "ask"
"""The sockets over which a request can come."""


class RequestInfo(NamedTuple):
    """A request that waits for a person, or one whose approval is remembered.

    state: `WAITING` or `REMEMBERED`. asked_at, until: when it was made, and when it ends by itself. asker:
    the process, as the kernel reports it. sandbox: how it is confined, in words, as far as the agent can see.
    socket: `OWNERS_SOCKET` or `ASK_SOCKET`. program: what an approval that is remembered covers, in words.
    label, reason: the asker's own words. audience, scopes: None for all. expiry: whole seconds, None for
    never. max_uses: None for unlimited. bound: the session ends with the process. calls: how many of its
    calls wait.
    """

    id: str
    state: str
    asked_at: float
    until: float
    asker: PeerIdentity
    sandbox: list[str]
    socket: str
    program: str
    label: str
    reason: str
    audience: list[str] | None
    scopes: list[str] | None
    expiry: int | None
    max_uses: int | None
    bound: bool
    calls: int = 0


class RequestPage(NamedTuple):
    """Some requests, the oldest first; `next` is where to continue, None at the end."""

    requests: list[RequestInfo]
    next: str | None


APPROVE, DENY = "approve", "deny"
"""The decisions."""


class Decision(NamedTuple):
    """What a decision did.

    session_id, expires_at: of the session that was opened, if it was an approval; expires_at None for never.
    remembered_until: until when the same request of the same program is granted without asking; None if it is
    not.
    """

    id: str
    session_id: str | None = None
    expires_at: float | None = None
    remembered_until: float | None = None


class Withdrawal(NamedTuple):
    """Whether there was a request to withdraw."""

    withdrawn: bool


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
    missed: how many events were lost before this one because the subscriber read too slowly. request_id: the
    request for a session that it concerns, if any.
    """

    kind: str
    at: float
    session_id: str | None
    label: str
    reason: str | None
    peer_pid: int | None
    missed: int = 0
    request_id: str | None = None


CREATED, RENEWED, REVOKED, SESSION_EXPIRED = "created", "renewed", "revoked", "expired"
REFUSED, KEY_RESET, STOPPING = "refused", "keyReset", "stopping"
USED = "used"
LOCKED, UNLOCKED = "locked", "unlocked"
PASSPHRASE_CHANGED, PASSPHRASE_REFUSED = "passphraseChanged", "passphraseRefused"
REQUESTED, APPROVED, DENIED = "requested", "approved", "denied"
REQUEST_EXPIRED, WITHDRAWN, FORGOTTEN = "requestExpired", "withdrawn", "forgotten"
EVENT_KINDS = (
    *(CREATED, RENEWED, REVOKED, SESSION_EXPIRED, REFUSED, KEY_RESET, STOPPING),
    *(LOCKED, UNLOCKED, PASSPHRASE_CHANGED, PASSPHRASE_REFUSED),
    *(REQUESTED, APPROVED, DENIED, REQUEST_EXPIRED, WITHDRAWN, FORGOTTEN),
    USED,
)
"""The kinds of events and audit entries. A request that ends without a decision has expired or is withdrawn;
a remembered approval that ends is forgotten. Uses and refused passphrases are only in the audit log."""

MISSED = "missed"
"""The kind of an event that only reports how many were missed."""


class AuditEntry(NamedTuple):
    """One line of the audit log: what was done, when, to which session, and by which process.

    times, until: how often and until when, for refusals and uses of one peer that were counted together.
    peer_unit: the process's systemd unit. request_id: the request for a session, if it is about one.
    asked_by: of a decision, the process that had asked.
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
    peer_unit: str | None = None
    request_id: str | None = None
    asked_by: PeerIdentity | None = None


class AuditPage(NamedTuple):
    """Some entries, newest first; `next` is where to continue, None at the end."""

    entries: list[AuditEntry]
    next: str | None
