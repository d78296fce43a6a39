"""Sessions in Flask: `SessionGuard`, a Flask extension (the extra `flask`).

::

    guard = SessionGuard(app, audience="notes")        # every view needs a session

    @app.get("/notes")
    @guard.requires("write")                           # this one a scope as well
    def write(): return guard.session.label

    @app.get("/health")
    @guard.exempt
    def health(): return "ok"
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask import Response, current_app, g, request

from .guard import Admission, Denied, Guard, GuardOptions
from .wsgi import admit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from flask import Flask

__all__ = ["SessionGuard"]

P = ParamSpec("P")
T = TypeVar("T")
View = TypeVar("View", bound="Callable[..., Any]")


class SessionGuard:
    """Lets in the requests that belong to a session, to all views but the exempt ones.

    Args:
        app: the application; None if `init_app` gets it later.
        guard: the guard; None makes one of the options.
        options: the arguments of `Guard`.
    """

    def __init__(
        self, app: Flask | None = None, *, guard: Guard | None = None, **options: Unpack[GuardOptions]
    ) -> None:
        self._guard = Guard(**options) if guard is None else guard
        self._exempt: set[object] = set()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Guard this application."""
        app.extensions["agentd"] = self
        app.before_request(self._check)

    @property
    def session(self) -> Admission:
        """The session of the present request; an AttributeError in a view that is exempt."""
        return cast("Admission", g.agentd_session)

    def exempt(self, view: View) -> View:
        """A decorator for a view that needs no session."""
        self._exempt.add(view)
        return view

    def requires(self, *scopes: str) -> Callable[[Callable[P, T]], Callable[P, T | Response]]:
        """A decorator for a view that needs these scopes as well."""

        def decorate(view: Callable[P, T]) -> Callable[P, T | Response]:
            @wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> T | Response:
                denied = self._denied(scopes)
                return view(*args, **kwargs) if denied is None else _answer(denied)

            return guarded

        return decorate

    def _check(self) -> Response | None:
        view = current_app.view_functions.get(request.endpoint or "")
        if view in self._exempt:
            return None
        denied = self._denied(())
        return None if denied is None else _answer(denied)

    def _denied(self, scopes: tuple[str, ...]) -> Denied | None:
        try:
            g.agentd_session = admit(self._guard, request.environ, scopes=scopes)
        except Denied as denied:
            return denied
        return None


def _answer(denied: Denied) -> Response:
    return Response(denied.body, denied.status, denied.headers)
