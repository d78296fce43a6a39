"""Sessions as a dependency of FastAPI's path operations: `require_session` (the extra `fastapi`).

::

    Reader = Annotated[Admission, Depends(require_session(scopes=["read"], audience="notes"))]

    @app.get("/notes")
    def notes(session: Reader) -> str: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from .asgi import POLICY_VIOLATION, admit
from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Admission", "require_session"]


class _RequireSession(SecurityBase):
    """The dependency. OpenAPI shows it as a bearer token."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.model = HTTPBearer(description="The token of a session: `agentctl token`")
        self.scheme_name = "session"

    async def __call__(self, connection: HTTPConnection) -> Admission:
        try:
            admission: Admission = await admit(self._guard, connection.scope)
        except Denied as denied:
            if connection.scope["type"] == "websocket":  # FastAPI would not answer with the other
                raise WebSocketException(POLICY_VIOLATION, denied.description) from None
            raise HTTPException(denied.status, denied.description, dict(denied.headers)) from None
        return admission


def require_session(*, guard: Guard | None = None, **options: Unpack[GuardOptions]) -> _RequireSession:
    """A dependency that lets in requests which belong to a session, and returns the `Admission`.

    Make it once and use it in many places: each has connections of its own.

    Args:
        guard: the guard; None makes one of the options.
        options: the arguments of `Guard`, such as `scopes` and `audience`.

    Raises, for other requests:
        HTTPException: 400, 401, 403 or 503, with the headers of RFC 6750.
        WebSocketException: for a WebSocket, which is not accepted; the server answers 403.
    """
    return _RequireSession(Guard(**options) if guard is None else guard)
