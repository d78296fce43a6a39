"""Sessions in Jupyter Server, in place of its own token: `SessionIdentityProvider` (the extra `jupyter`).

In ``jupyter_server_config.py``::

    c.ServerApp.identity_provider_class = "agentd_client.ext.jupyter.SessionIdentityProvider"
    c.SessionIdentityProvider.audience = "jupyter"
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketHandler
from traitlets import Bool, Float, Int, List, Type, Unicode, default

from .guard import TIMEOUT_SECONDS, Admission, Denied, Guard

if TYPE_CHECKING:
    from tornado.iostream import IOStream
    from tornado.web import RequestHandler

__all__ = ["SessionIdentityProvider"]

AskAgain = Callable[[], Awaitable[Admission]]

_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
_TRY_AGAIN_LATER = 1013  # IANA's registry of close codes


class SessionIdentityProvider(IdentityProvider):
    """Lets in the requests that belong to a session. Jupyter's own token is not used.

    Programs send the session's token with each request, in `Authorization`, as ``Bearer`` or in Jupyter's
    form ``token``. Such requests need no XSRF token, as with Jupyter's own. People log in on Jupyter's page
    with the token. The browser then has a cookie that names the session and is signed by Jupyter, not the
    token: the agent is asked about that session at each request, and again while a WebSocket is open.
    """

    scopes = List(Unicode(), config=True, help="What every session must be good for.")
    audience = Unicode(
        None,
        allow_none=True,
        config=True,
        help="What this server is called. A session for another audience is refused.",
    )
    explicit_scopes = Bool(
        False,
        config=True,
        help="Refuse sessions that name no scopes. Such a session has every scope.",
    )
    query = Unicode(
        None,
        allow_none=True,
        config=True,
        help="The name of a query parameter that may hold the token. It is `token` in Jupyter's own URLs.",
    )
    realm = Unicode("agentd", config=True, help="What the challenge of a 401 calls this server.")
    cache = Bool(False, config=True, help="Keep a yes to a token while the agent's events say that it holds.")
    socket_path = Unicode(
        None,
        allow_none=True,
        config=True,
        help="The agent's socket. At the verify socket nobody can log in with a browser.",
    )
    agent_uid = Int(
        None, allow_none=True, config=True, help="The user whose agent is trusted, if it is another user's."
    )
    websocket_seconds = Float(
        5.0,
        config=True,
        help="How often the agent is asked about the session of an open WebSocket, which ends with it.",
    )
    timeout = Float(
        TIMEOUT_SECONDS, config=True, help="Seconds to wait for the agent; then the answer is 503."
    )

    token = ""
    login_handler_class = Type(
        default_value="agentd_client.ext.jupyter.SessionLoginHandler", klass=web.RequestHandler, config=True
    )

    @default("cookie_options")
    def _cookie_options_default(self) -> dict[str, Any]:
        # It ends with the browser, and is not sent with what other sites post.
        return {"expires_days": None, "samesite": "Lax"}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.guard = Guard(
            scopes=self.scopes,
            audience=self.audience,
            explicit_scopes=self.explicit_scopes,
            query=self.query,
            realm=self.realm,
            cache=self.cache,
            socket_path=self.socket_path,
            agent_uid=self.agent_uid,
            timeout=self.timeout,
        )

    async def get_user(self, handler: RequestHandler) -> User | None:
        """The session of a request; None for a page without one, which Jupyter answers with its login page.

        Calls of the API and WebSockets without a session are answered with 401, not with Jupyter's 403. So is
        a token that is not valid, and with 503 everything that the agent cannot know.
        """
        known: User | None = getattr(handler, "_jupyter_current_user", None)
        if known is not None:
            return known
        try:
            admission, ask_again = await self._authenticate(handler)
        except Denied as denied:
            is_page = not isinstance(handler, APIHandler | WebSocketHandler)
            if _is_public(handler) or (is_page and denied.error is None):
                return None
            raise _finished(handler, denied) from None
        if isinstance(handler, WebSocketHandler):
            self._close_when_denied(handler, ask_again)
        return _user(admission)

    async def _authenticate(self, handler: RequestHandler) -> tuple[Admission, AskAgain]:
        """The session of a request, and how to ask about it again; raises `Denied`."""
        by_token = partial(
            self.guard.admit_async,
            [_as_bearer(value) for value in handler.request.headers.get_list("Authorization")],
            query=handler.request.query,
        )
        try:
            admission = await by_token()
        except Denied as denied:
            if denied.error is not None:
                raise
            named = self.get_user_cookie(handler)
            if not isinstance(named, User):
                raise
            return await self._remembered(handler, named.username, denied)
        # Jupyter asks for this: no browser sends the token by itself, so origins and XSRF need no check.
        handler._token_authenticated = True  # type: ignore[attr-defined]
        if admission.session_id is None:
            return admission, by_token
        return admission, partial(self.guard.admit_session_async, admission.session_id)

    async def _remembered(
        self, handler: RequestHandler, session_id: str, without: Denied
    ) -> tuple[Admission, AskAgain]:
        """The session that the cookie names; as for a request without credentials if it has ended."""
        ask = partial(self.guard.admit_session_async, session_id)
        try:
            return await ask(), ask
        except Denied as denied:
            if denied.status == 503:
                raise
            self.clear_login_cookie(handler)
            raise without from None

    def _close_when_denied(self, handler: WebSocketHandler, ask: AskAgain) -> None:
        """Ask about the session of an open WebSocket from time to time; close it if that is denied."""
        loop = IOLoop.current()
        stream: IOStream = handler.request.connection.stream  # type: ignore[union-attr]

        async def check() -> None:
            try:
                await ask()
            except Denied as denied:
                handler.close(_TRY_AGAIN_LATER if denied.status == 503 else _POLICY_VIOLATION)
            else:
                check_later()

        def check_later() -> None:
            if not stream.closed():
                loop.call_later(self.websocket_seconds, loop.spawn_callback, check)

        check_later()

    def get_cookie_name(self, handler: RequestHandler) -> str:
        """The name of the cookie, which is another than that of Jupyter's own."""
        return str(self.cookie_name or super().get_cookie_name(handler).replace("username", "agentd", 1))


class SessionLoginHandler(LoginFormHandler):
    """Jupyter's login page, for the token of a session."""

    identity_provider: SessionIdentityProvider

    def _render(self, message: dict[str, str] | None = None) -> None:
        shown = message or {"info": "Paste what the command `agentctl token --show` prints."}
        super()._render(shown)  # type: ignore[no-untyped-call]

    @allow_unauthenticated
    async def post(self) -> None:
        """Log in."""
        provider = self.identity_provider
        try:
            typed = self.get_argument("password", default="")
            admission = await provider.guard.admit_async([f"Bearer {typed}"])
            if admission.session is None or admission.session.uses_left is not None:
                raise Denied(403, "insufficient_scope", "this session cannot be used by a browser")
        except Denied as denied:
            self.set_status(denied.status)
            if denied.retry_seconds is not None:
                self.set_header("Retry-After", str(denied.retry_seconds))
            self._render({"error": denied.description})
            return
        user = self.current_user = _user(admission)
        self.log.info("The session %s logged in.", user.username)
        provider.set_login_cookie(self, user)
        self._redirect_safe(self.get_argument("next", default=self.base_url))  # type: ignore[no-untyped-call]


def _user(admission: Admission) -> User:
    username = admission.session_id or "agentd"  # the verify socket names no session
    return User(username, admission.label or username)


def _as_bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return f"Bearer {token}" if scheme.lower() == "token" else authorization


def _is_public(handler: RequestHandler) -> bool:
    method = getattr(handler, (handler.request.method or "").lower(), None)
    return bool(getattr(method, "__allow_unauthenticated", False))


def _finished(handler: RequestHandler, denied: Denied) -> web.Finish:
    """Answer the request; to raise."""
    handler.current_user = handler._jupyter_current_user = None  # type: ignore[attr-defined]
    handler.set_status(denied.status)
    for name, value in denied.headers:
        handler.set_header(name, value)
    handler.finish(denied.body)
    return web.Finish()
