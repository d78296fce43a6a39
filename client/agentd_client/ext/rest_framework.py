"""Sessions in Django REST framework: `SessionTokenAuthentication` (the extra `rest_framework`).

In the project's settings::

    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["agentd_client.ext.rest_framework.SessionTokenAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    }
    AGENTD = {"scopes": ["read"], "audience": "notes"}

`django` describes the setting `AGENTD`. In a view, ``request.auth`` is the session, an `Admission`, and
``request.user`` is as `django.SessionTokenMiddleware` has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException

from .django import came_by_cookie, project_guard, user_of
from .guard import Admission, Denied
from .wsgi import admit

if TYPE_CHECKING:
    from rest_framework.request import Request

__all__ = ["SessionDenied", "SessionTokenAuthentication"]


class SessionDenied(APIException):  # type: ignore[misc]
    """A request that is not let in; REST framework answers it with the status and headers of `denied`."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.description, denied.error)
        self.status_code = denied.status
        self.auth_header = dict(denied.headers).get("WWW-Authenticate")
        self.wait = denied.retry_seconds
        self.denied = denied


class SessionTokenAuthentication(BaseAuthentication):  # type: ignore[misc]
    """Authenticates requests by the token of a session."""

    def authenticate(self, request: Request) -> tuple[Any, Admission] | None:
        """The user and the session; None for a request without credentials.

        Raises:
            SessionDenied: the credentials do not let it in, or the agent cannot know.
            PermissionDenied: the token came in a cookie and the request fails Django's CSRF check.
        """
        guard = project_guard()
        try:
            # The middleware may have asked the agent already.
            admission = getattr(request, "agentd_session", None) or admit(guard, request.META)
        except Denied as denied:
            if denied.error is None:
                return None
            raise SessionDenied(denied) from None
        if came_by_cookie(guard, request.META):
            SessionAuthentication().enforce_csrf(request)  # REST framework's views are exempt from it
        return user_of(admission), admission

    def authenticate_header(self, _: Request) -> str:
        """The challenge to a request without credentials."""
        challenge = Denied(401, None, "", realm=project_guard().credentials.realm)
        return dict(challenge.headers)["WWW-Authenticate"]
