"""A guard in front of any WSGI application: `SessionMiddleware`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Unpack
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ENVIRON_KEY = "agentd.session"
"""Where the application finds the `Admission` of a request, in its environment."""


class SessionMiddleware:
    """Lets in requests that belong to a session; the application never sees the others.

    Args:
        app: the application.
        guard: the guard; None makes one of the options.
        exempt: paths that need no session, such as a health check; below the application's own root.
        options: the arguments of `Guard`.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        guard: Guard | None = None,
        exempt: Collection[str] = (),
        **options: Unpack[GuardOptions],
    ) -> None:
        self._app = app
        self._guard = Guard(**options) if guard is None else guard
        self._exempt = frozenset(exempt)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as PEP 3333 has it."""
        # By what applications route. Some servers let a header of the request choose SCRIPT_NAME.
        if environ.get("PATH_INFO", "") not in self._exempt:
            try:
                environ[ENVIRON_KEY] = admit(self._guard, environ)
            except Denied as denied:
                status = f"{denied.status} {HTTPStatus(denied.status).phrase}"
                start_response(status, [*denied.headers, ("Content-Length", str(len(denied.body)))])
                return [denied.body]
        return self._app(environ, start_response)


def admit(guard: Guard, environ: Mapping[str, Any], *, scopes: Sequence[str] = ()) -> Admission:
    """The `Admission` of a request by its environment, for these scopes as well; raises `Denied`.

    Servers join headers that come twice with a comma, which no token has: they end in a 400.
    """
    return guard.admit(*presented(environ), scopes=scopes)


def presented(environ: Mapping[str, Any]) -> tuple[list[str], list[str], str]:
    """The headers `Authorization` and `Cookie` of a request, and its query."""
    header, cookie = environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_COOKIE")
    return (
        [] if header is None else [header],
        [] if cookie is None else [cookie],
        environ.get("QUERY_STRING", ""),
    )
