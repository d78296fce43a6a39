"""Sessions in aiohttp: `session_middleware` for servers, `SessionAuthMiddleware` for callers.

The extra is `aiohttp`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from aiohttp import ClientRequest, ClientResponse, UnixConnector, web
from aiohttp.payload import BytesPayload
from yarl import URL

from .caller import Caller, CallerOptions, Origin, authorization, proxied
from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Unpack

    from aiohttp import ClientHandlerType
    from aiohttp.typedefs import Handler, Middleware

__all__ = ["SESSION", "SessionAuthMiddleware", "session_middleware"]

SESSION: web.RequestKey[Admission] = web.RequestKey("agentd.session", Admission)
"""Where a handler finds the `Admission` of a request: ``request[SESSION]``."""


def session_middleware(
    *, guard: Guard | None = None, exempt: Collection[str] = (), **options: Unpack[GuardOptions]
) -> Middleware:
    """A middleware that lets in requests which belong to a session.

    Args:
        guard: the guard; None makes one of the options.
        exempt: paths that need no session, such as a health check.
        options: the arguments of `Guard`.
    """
    guarding = Guard(**options) if guard is None else guard
    # As the router compares them: in "/a%2Fb" the slash separates nothing.
    without_session = {URL.build(path=path).path_safe for path in exempt}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.rel_url.path_safe not in without_session:
            try:
                request[SESSION] = await admit(guarding, request)
            except Denied as denied:
                return web.Response(status=denied.status, headers=denied.headers, body=denied.body)
        return await handler(request)

    return middleware


async def admit(guard: Guard, request: web.BaseRequest) -> Admission:
    """The `Admission` of a request; raises `Denied`."""
    return await guard.admit_async(
        request.headers.getall("Authorization", []),
        request.headers.getall("Cookie", []),
        request.rel_url.raw_query_string,
    )


_REDIRECTS = (301, 302, 303, 307, 308)
_UNCLEAR = Origin("", "", None)

_redirected_to: ContextVar[Origin | None] = ContextVar("agentd_redirected_to", default=None)
"""Where the last answer in this task leads, if the token must not follow.

aiohttp passes every hop to the middleware and does not say that it follows a redirect. All hops of a request
are made in one task, one right after the other.
"""


class SessionAuthMiddleware:
    """Sends the session's token as a bearer token, for `aiohttp.ClientSession`.

    To loopback, to Unix sockets, and to what `origins` names; for others it raises `OriginNotAllowedError`.
    Redirects to another origin are followed without the token.

    Args:
        caller: the caller; None makes one of the options.
        options: the arguments of `Caller`.
    """

    def __init__(self, *, caller: Caller | None = None, **options: Unpack[CallerOptions]) -> None:
        self._caller = Caller(**options) if caller is None else caller

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send one request; see "Client Middleware" in aiohttp's documentation."""
        origin = _origin(request.url)
        is_elsewhere = _redirected_to.get() in (origin, _UNCLEAR)
        # After a failure the mark stays: aiohttp may make the request again.
        response = await (handler(request) if is_elsewhere else self._call(request, handler, origin))
        target = _target(response)
        _redirected_to.set(None if target == origin and not is_elsewhere else target)
        return response

    async def _call(
        self, request: ClientRequest, handler: ClientHandlerType, origin: Origin
    ) -> ClientResponse:
        if not isinstance(request.session.connector, UnixConnector):
            self._caller.require(origin)
            if request.proxy is not None and origin.is_local and origin.scheme == "http":
                raise proxied(origin)
        token = await self._caller.token_async()
        if token is not None:
            request.headers["Authorization"] = authorization(token)
        response = await handler(request)
        if response.status == 401 and _is_repeatable(request):
            successor = await self._caller.successor_async(token)
            if successor is not None:
                response.release()
                request.headers["Authorization"] = authorization(successor)
                response = await handler(request)
        return response


def _origin(url: URL) -> Origin:
    return Origin.of(url.scheme, url.raw_host or "", url.port)


def _target(response: ClientResponse) -> Origin | None:
    """Where a redirect leads; None if the answer is none."""
    # As aiohttp's ClientSession has it. Requoting is an option of it, and changes names that are not ASCII.
    location = response.headers.get("Location") or response.headers.get("URI")
    if response.status not in _REDIRECTS or location is None:
        return None
    try:
        quoted, requoted = (response.url.join(URL(location, encoded=encoded)) for encoded in (True, False))
    except ValueError:
        return _UNCLEAR
    return _origin(quoted) if _origin(quoted) == _origin(requoted) else _UNCLEAR


def _is_repeatable(request: ClientRequest) -> bool:
    return not request.body or isinstance(request.body, BytesPayload)  # others can be sent once
