"""Sessions in MCP servers: `SessionTokenVerifier` for the MCP SDK (the extra `mcp`).

::

    verifier = SessionTokenVerifier(scopes=["read"], audience="notes")
    server = MCPServer("notes", token_verifier=verifier, auth=verifier.settings)
    app = server.streamable_http_app()
    app.add_middleware(DeniedMiddleware)

In a tool, ``get_access_token()`` of the SDK is the session.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl, Field

from ..protocol.methods import token_text
from .asgi import answer
from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from typing import Unpack

    from .asgi import ASGIApplication, Receive, Scope, Send

__all__ = ["DeniedMiddleware", "SessionAccessToken", "SessionTokenVerifier"]

_NO_ISSUER = AnyHttpUrl("http://agentd.invalid")


class SessionAccessToken(AccessToken):
    """The SDK's access token, for a session.

    client_id: the session's id; at the verify socket, which does not name it, a digest of the token.
    scopes: the session's; those that the server requires, if the session has every scope.
    label: the session's; empty if it is unknown.
    """

    token: str = Field(repr=False)
    label: str = ""


class SessionTokenVerifier(TokenVerifier):
    """Verifies the tokens of sessions. The SDK takes them from `Authorization` and from nowhere else.

    Args:
        guard: the guard; None makes one of the options.
        options: the arguments of `Guard`, such as `scopes` and `audience`.
    """

    def __init__(self, *, guard: Guard | None = None, **options: Unpack[GuardOptions]) -> None:
        self._guard = Guard(**options) if guard is None else guard

    @property
    def settings(self) -> AuthSettings:
        """What the server's `auth` is: the scopes required here, and no authorization server to go to."""
        return AuthSettings(
            issuer_url=_NO_ISSUER, resource_server_url=None, required_scopes=list(self._guard.scopes)
        )

    async def verify_token(self, token: str) -> SessionAccessToken | None:
        """The session; None for a token that is not valid, which the SDK answers with 401.

        Raises:
            Denied: 403 if the session lacks a scope, 503 if the agent cannot know: for `DeniedMiddleware`.
        """
        if token_text(token) is None:
            return None
        try:
            admission = await self._guard.admit_token_async(token)
        except Denied as denied:
            if denied.status == 401:
                return None
            raise
        return self._access_token(token, admission)

    def _access_token(self, token: str, admission: Admission) -> SessionAccessToken:
        # The SDK compares whole seconds: rounded up, the agent's decision is the stricter one.
        expires_at = admission.expires_at
        return SessionAccessToken(
            token=token,
            client_id=admission.session_id or hashlib.sha256(token.encode()).hexdigest(),
            scopes=list(self._guard.scopes if admission.scopes.is_unlimited else admission.scopes),
            expires_at=None if expires_at is None else math.ceil(expires_at),
            label=admission.label,
        )


class DeniedMiddleware:
    """Answers the requests that the verifier denies; without it the SDK answers 500 instead of 403 and 503.

    Args:
        app: the application; `Starlette.add_middleware` passes it.
    """

    def __init__(self, app: ASGIApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as the ASGI specification has it."""
        try:
            await self._app(scope, receive, send)
        except Denied as denied:
            await answer(denied, scope, receive, send)
