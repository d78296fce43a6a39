"""Sessions in Django: a middleware and an authentication backend (the extra `django`).

In the project's settings::

    MIDDLEWARE = [..., "agentd_client.ext.django.SessionTokenMiddleware"]
    AGENTD = {"scopes": ["read"], "audience": "notes", "exempt": ["/health"]}

Then every request needs a session, which is `request.agentd_session`, an `Admission`.

`AGENTD` holds the arguments of `Guard`, and two more: `exempt` are paths that need no session, below the
project's own root; `username` is the user of `SessionTokenBackend`, who otherwise has the login name of the
agent's user.
"""

from __future__ import annotations

import os
import pwd
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib import auth
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpResponse
from django.utils.functional import SimpleLazyObject

from ..protocol.methods import token_text
from .guard import Admission, Denied, Guard
from .wsgi import admit, presented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from django.http import HttpRequest

__all__ = ["SessionTokenBackend", "SessionTokenMiddleware", "SessionUser", "project_guard"]


class SessionTokenMiddleware:
    """Lets in the requests that belong to a session; views never see the others.

    It sets `request.agentd_session`, and `request.user`: Django's user if `SessionTokenBackend` is among the
    `AUTHENTICATION_BACKENDS`, else a `SessionUser`. Django's `AuthenticationMiddleware` sets `request.user`
    as well: of the two, the one that stands later in `MIDDLEWARE` counts. `CsrfViewMiddleware` lets requests
    pass whose token came in a header or the query: browsers send neither by themselves.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._guard = project_guard()
        self._exempt = frozenset(_setting("exempt", ()))
        self._is_async: bool = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        """Serve one request."""
        if self._is_async:
            return self._answer_async(request)
        if request.path_info not in self._exempt:
            try:
                self._let_in(request, admit(self._guard, request.META))
            except Denied as denied:
                return _response(denied)
        return self._get_response(request)

    async def _answer_async(self, request: HttpRequest) -> HttpResponse:
        if request.path_info not in self._exempt:
            try:
                self._let_in(request, await self._guard.admit_async(*presented(request.META)))
            except Denied as denied:
                return _response(denied)
        return await self._get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """The answer if a view raised `Denied`."""
        return _response(error) if isinstance(error, Denied) else None

    def _let_in(self, request: HttpRequest, admission: Admission) -> None:
        request.agentd_session = admission
        request.user = SimpleLazyObject(partial(user_of, admission))
        request.auser = partial(sync_to_async(user_of), admission)
        if not came_by_cookie(self._guard, request.META):
            request._dont_enforce_csrf_checks = True


class SessionTokenBackend:
    """An authentication backend: ``authenticate(request, session_token=…)`` is the Django user of a session.

    All sessions of an agent belong to one user: `AGENTD["username"]`, who must exist. Permissions are those
    of the other backends, such as Django's `ModelBackend`. Nobody stays logged in by Django's session cookie,
    which would outlive the session: every request needs its token.
    """

    def authenticate(self, request: HttpRequest | None, session_token: object = None) -> Any:
        """The user; None if the token is not valid, or if there is no such user, or no active one.

        Raises:
            Denied: 503, the agent cannot know. `SessionTokenMiddleware` answers it.
        """
        token = token_text(session_token)
        if token is None:
            return None
        try:
            project_guard().admit_token(token)
        except Denied as denied:
            if denied.status == 503:
                raise
            return None
        return self.owner()

    async def aauthenticate(self, request: HttpRequest | None, session_token: object = None) -> Any:
        """As `authenticate`."""
        return await sync_to_async(self.authenticate)(request, session_token)

    def get_user(self, user_id: object) -> None:
        """None: nobody is logged in without a token."""

    async def aget_user(self, user_id: object) -> None:
        """As `get_user`."""

    def owner(self) -> Any:
        """The user to whom the sessions belong; None if there is no such user, or no active one."""
        model = auth.get_user_model()
        try:
            user = model._default_manager.get_by_natural_key(_setting("username", None) or _login_name())
        except model.DoesNotExist:
            return None
        return user if user.is_active else None


class SessionUser:
    """What `request.user` is without `SessionTokenBackend`: the session, whose scopes are its permissions."""

    id = pk = None
    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.username = admission.label or admission.session_id or ""

    def __str__(self) -> str:
        return self.username

    def get_username(self) -> str:
        """The session's label, or its id if it has none."""
        return self.username

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Whether the session has a scope of this name."""
        return perm in self.admission.scopes

    def has_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """Whether the session has all of these scopes."""
        return self.admission.scopes.covers(perm_list)

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        """As `has_perm`."""
        return self.has_perm(perm)

    async def ahas_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """As `has_perms`."""
        return self.has_perms(perm_list)


@cache
def project_guard() -> Guard:
    """The guard of the project, by its setting `AGENTD`."""
    options = {name: value for name, value in _settings().items() if name not in ("exempt", "username")}
    try:
        return Guard(**options)
    except TypeError as error:
        raise ImproperlyConfigured(f"AGENTD: {error}") from None


def user_of(admission: Admission) -> Any:
    """The user for `request.user`."""
    if not apps.is_installed("django.contrib.auth"):
        return SessionUser(admission)
    from django.contrib.auth.models import AnonymousUser  # fails if the application is not installed

    for backend in auth.get_backends():
        if isinstance(backend, SessionTokenBackend):
            return backend.owner() or AnonymousUser()
    return SessionUser(admission)


def came_by_cookie(guard: Guard, environ: Mapping[str, Any]) -> bool:
    """Whether the token of an admitted request came in a cookie, which browsers send unasked."""
    authorization, _, query = presented(environ)
    try:
        guard.credentials.token(authorization, (), query)
    except Denied:
        return True
    return False


def _response(denied: Denied) -> HttpResponse:
    return HttpResponse(denied.body, status=denied.status, headers=dict(denied.headers))


def _settings() -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(settings, "AGENTD", {})
    return found


def _setting(name: str, default: Any) -> Any:
    return _settings().get(name, default)


def _login_name() -> str:
    uid = _setting("agent_uid", None)
    try:
        return pwd.getpwuid(os.getuid() if uid is None else uid).pw_name
    except KeyError:
        raise ImproperlyConfigured("AGENTD needs a username: the agent's user has no login name") from None


def _forget_guard(*, setting: str, **_: object) -> None:
    if setting == "AGENTD":  # a test overrides it
        project_guard.cache_clear()


setting_changed.connect(_forget_guard)
