"""What the server asks of the agent. It knows these names and nothing of stores, keys or tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agentd_client.protocol.results import CreatedToken, Opener, Status, Verification

ReadStatus = Callable[[], Status]
"""The agent at a glance; answered at once."""


class Sessions(Protocol):
    """The operations on sessions. They raise `AgentdError` for what a peer may be told."""

    def judge(self, token: object) -> Verification:
        """Whether a token, of whatever type, is valid; never waits. Raises where that cannot be known."""
        ...

    async def open_session(
        self, expiry: object = None, label: object = None, opened_by: Opener | None = None
    ) -> CreatedToken:
        """Open a session, once it is on the disk; checks `expiry` and `label` itself."""
        ...

    async def revoke_token(self, token: object = None, *, id: object = None) -> bool:
        """End one session; whether there was one."""
        ...

    async def reset_key(self) -> str:
        """End every session; the id of the new session key."""
        ...
