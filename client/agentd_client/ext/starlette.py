"""Sessions as Starlette's users: `SessionBackend` for its `AuthenticationMiddleware` (the extra `starlette`).

::

    backend = SessionBackend(audience="notes")
    app.add_middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)

Then ``@requires("read")`` asks for the session's scopes, and ``request.user`` is a `SessionUser`. Requests
without credentials go on as Starlette's unauthenticated user; `asgi.SessionMiddleware` lets none of them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.responses import Response

from .asgi import admit
from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from typing import Unpack

    from starlette.requests import HTTPConnection

__all__ = ["SessionBackend", "SessionError", "SessionUser", "on_error"]


class SessionUser(BaseUser):
    """The session that a request belongs to. `admission` is all that is known of it."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    @property
    def is_authenticated(self) -> bool:
        """True: there is a session."""
        return True

    @property
    def display_name(self) -> str:
        """The session's label, or its id if it has none."""
        return self.admission.label or self.identity

    @property
    def identity(self) -> str:
        """The session's id; empty at the verify socket, which does not name it."""
        return self.admission.session_id or ""


class SessionError(AuthenticationError):
    """A request that is not let in; `denied` has the answer."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.description)
        self.denied = denied


class SessionBackend(AuthenticationBackend):
    """Authenticates requests by the token of a session.

    Args:
        guard: the guard; None makes one of the options.
        options: the arguments of `Guard`.
    """

    def __init__(self, *, guard: Guard | None = None, **options: Unpack[GuardOptions]) -> None:
        self._guard = Guard(**options) if guard is None else guard

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SessionUser] | None:
        """The session's scopes and the session; None for a request without credentials.

        The scopes of a session that has all of them answer ``in`` with True for every name.

        Raises:
            SessionError: the credentials do not let it in, or the agent cannot know.
        """
        try:
            admission = await admit(self._guard, conn.scope)
        except Denied as denied:
            if denied.error is None:
                return None
            raise SessionError(denied) from None
        credentials = AuthCredentials()
        credentials.scopes = cast("list[str]", admission.scopes)  # a list would not have every scope
        return credentials, SessionUser(admission)


def on_error(_: HTTPConnection, error: AuthenticationError) -> Response:
    """The answer to a `SessionError`, for `AuthenticationMiddleware`; without it every error is a 400."""
    denied = error.denied if isinstance(error, SessionError) else Denied(400, "invalid_request", str(error))
    return Response(denied.body, denied.status, dict(denied.headers))
