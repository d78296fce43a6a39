"""What the person has the agent do. Each on a connection of its own, so that nothing waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from ..aio import AsyncClient
from ..cli.commands.lock import LOCK_SECONDS
from ..cli.commands.login import renewed
from ..cli.passphrase import UNLOCK_SECONDS
from ..protocol.results import APPROVE, DENY, CreatedToken, Decision
from .narrowing import Grant

if TYPE_CHECKING:
    from ..cli.options import Settings


class Actions:
    """The changes that the view can make, each only when the person asks for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def connect(self, seconds: float = 0.0) -> AsyncClient:
        """A client; its calls may take `seconds`, if that is longer than the usual time."""
        settings = self._settings
        return await AsyncClient.connect(
            settings.socket, timeout=settings.at_least(seconds), patience=settings.patience
        )

    async def approve(self, request_id: str, grant: Grant, passphrase: bytearray | None) -> Decision:
        """Grant a request. See `Client.decide_request`."""
        async with await self.connect(UNLOCK_SECONDS) as agent:
            return await agent.decide_request(
                request_id,
                APPROVE,
                scopes=grant.scopes,
                expiry=grant.expiry,
                max_uses=grant.max_uses,
                remember=grant.remember,
                passphrase=passphrase,
            )

    async def deny(self, request_id: str) -> None:
        """Deny a request, or forget a remembered approval."""
        async with await self.connect() as agent:
            await agent.decide_request(request_id, DENY)

    async def revoke(self, session_id: str) -> bool:
        """End a session and those below it; returns whether there was one to end."""
        async with await self.connect() as agent:
            return await agent.revoke_token(id=session_id)

    async def lock(self) -> None:
        """Lock the agent."""
        async with await self.connect(LOCK_SECONDS) as agent:
            await agent.lock()

    async def renew(self) -> CreatedToken:
        """Renew the session of the token file, as `agentctl renew` does."""
        return await run_sync(renewed, self._settings)
