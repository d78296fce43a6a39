"""What the agent answers, as values. Times are seconds since 1970 (UTC), as floats or ints.

A token never shows in `repr`: results end up in logs and tracebacks.
"""

from __future__ import annotations

from typing import NamedTuple


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
    """The agent at a glance; asking changes nothing."""

    version: str
    agent_id: str
    pid: int
    started_at: float
    uptime_seconds: float
    sessions: int
    key_id: str
    socket_path: str
    store_path: str
    store_bytes: int
    memory_locked: bool
    counters: Counters


class CreatedToken(NamedTuple):
    """A new session and the token that proves it; `expires_at` is None for never."""

    token: str
    id: str
    expires_at: float | None

    def __repr__(self) -> str:
        return f"CreatedToken(token=<secret>, id={self.id!r}, expires_at={self.expires_at!r})"


class Opener(NamedTuple):
    """Who opened a session, as the kernel reported it when the connection was made."""

    uid: int
    pid: int


class SessionInfo(NamedTuple):
    """One session's record."""

    id: str
    label: str
    created_at: float
    expires_at: float | None
    opened_by: Opener | None


class Verification(NamedTuple):
    """Whether a token is valid; if not, `reason` is a stable code of `Reason`."""

    valid: bool
    reason: str | None
    session: SessionInfo | None


class Revocation(NamedTuple):
    """Whether there was a session to end."""

    revoked: bool


class KeyReset(NamedTuple):
    """The id of the new session key."""

    key_id: str
