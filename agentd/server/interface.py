"""What the server asks of the agent. It knows these names and nothing of stores, keys or tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from agentd_client.protocol.results import (
    AuditPage,
    CreatedToken,
    Event,
    PeerIdentity,
    SessionPage,
    Status,
    Verification,
)

from ..process_identity import Process

ReadStatus = Callable[[], Status]
"""The agent at a glance; answered at once."""

Subscriber = Callable[[Event], None]
"""Told of what happens, on the event loop's thread; it neither waits nor raises."""

Unsubscribe = Callable[[], None]
"""Ends what `on_event` began."""


class Verifying(Protocol):
    """Judging tokens, which is all that the verify socket is for; see `Sessions`."""

    def verify_nowait(
        self, token: object, *, audience: object = None, scopes: object = None, by: PeerIdentity | None = None
    ) -> Verification | None:
        """Whether a token, of whatever type, is good; never waits. Raises where that cannot be known.

        None where the answer takes a write: then `verify_and_consume` has it, and nothing was done yet.
        """
        ...

    async def verify_and_consume(
        self, token: object, *, audience: object = None, scopes: object = None, by: PeerIdentity | None = None
    ) -> Verification:
        """The same, and a yes is one use less, on the disk before it is said."""
        ...


class Sessions(Verifying, Protocol):
    """The operations on sessions. They raise `AgentdError` for what a peer may be told.

    `by` and `opened_by` are the peer that asks. Parameters that are `object` come as the peer sent them, and
    the operation refuses what it cannot use with an error of its own.
    """

    def inspect(
        self, token: object = None, *, id: str | None = None, audience: object = None, scopes: object = None
    ) -> Verification:
        """All that is known of a token, or of a session by its id; changes nothing."""
        ...

    async def open_session(
        self,
        expiry: object = None,
        label: object = None,
        opened_by: PeerIdentity | None = None,
        *,
        audience: object = None,
        scopes: object = None,
        max_uses: object = None,
        max_lifetime: object = None,
        parent: str | None = None,
        bound: bool = False,
        process: Process | None = None,
    ) -> CreatedToken:
        """Open a session, once it is on the disk.

        `parent` is a token of the session above; with `bound` it ends with its opener,
        which is `process`.
        """
        ...

    async def renew_token(self, token: str, *, by: PeerIdentity | None = None) -> CreatedToken:
        """Begin a session's lifetime anew; the token of its next generation."""
        ...

    async def revoke_token(
        self, token: str | None = None, *, id: str | None = None, by: PeerIdentity | None = None
    ) -> bool:
        """End one session and those below it; whether there was one."""
        ...

    async def revoke_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
        by: PeerIdentity | None = None,
    ) -> int:
        """End every session that fits all that is given, and those below; how many fitted."""
        ...

    async def list_sessions(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        pid: int | None = None,
        parent: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> SessionPage:
        """Some of the sessions that fit, newest first; changes nothing."""
        ...

    async def reset_key(self, *, grace_seconds: object = None, by: PeerIdentity | None = None) -> str:
        """End every session, at once or when the grace is over; the id of the new session key."""
        ...

    async def list_audit(
        self, *, since: float | None = None, after: str | None = None, limit: int | None = None
    ) -> AuditPage:
        """Some entries of the audit log, newest first; changes nothing."""
        ...

    def on_event(self, subscriber: Subscriber) -> Unsubscribe:
        """Tell the subscriber of everything that happens from now on, until it is unsubscribed."""
        ...


class Locking(Protocol):
    """What locks and unlocks the agent. It raises `AgentdError` for what a peer may be told."""

    async def lock(self, *, by: PeerIdentity | None) -> None:
        """Wipe every key from memory; done when it returns. Of an agent that is locked: nothing."""
        ...

    async def unlock(
        self, passphrase: bytes, by: PeerIdentity, process: Process, waiting: trio.CancelScope
    ) -> None:
        """Bring the keys back. Of an agent that is unlocked: nothing.

        Attempts take turns by `process`; `waiting` is cancelled when nobody waits for this one any more.
        """
        ...

    async def change_passphrase(
        self,
        old: bytes | None,
        new: bytes | None,
        by: PeerIdentity,
        process: Process,
        waiting: trio.CancelScope,
    ) -> bool:
        """Give the key file another passphrase, or none; whether it has one now; waits as `unlock` does."""
        ...
