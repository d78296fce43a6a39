"""A guard in front of any ASGI application: `SessionMiddleware`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .guard import Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, MutableMapping
    from typing import Unpack

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "agentd.session"
"""Where the application finds the `Admission` of a request, in its connection scope."""

POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class SessionMiddleware:
    """Lets in HTTP requests and WebSockets that belong to a session; the application never sees the others.

    Args:
        app: the application.
        guard: the guard; None makes one of the options.
        exempt: paths that need no session, such as a health check; below the application's own root.
        options: the arguments of `Guard`.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        guard: Guard | None = None,
        exempt: Collection[str] = (),
        **options: Unpack[GuardOptions],
    ) -> None:
        self._app = app
        self._guard = Guard(**options) if guard is None else guard
        self._exempt = frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as the ASGI specification has it."""
        if scope["type"] in ("http", "websocket") and not self._is_exempt(scope):
            try:
                scope[SCOPE_KEY] = await admit(self._guard, scope)
            except Denied as denied:
                await answer(denied, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_exempt(self, scope: Scope) -> bool:
        # By what applications route. Some servers let a header of the request choose the root path.
        path, root = scope["path"], scope.get("root_path", "")
        if root and f"{path}/".startswith(f"{root}/"):
            path = path[len(root) :]
        return path in self._exempt


async def admit(guard: Guard, scope: Scope) -> Any:
    """The `Admission` of a request by its connection scope; raises `Denied`."""
    return await guard.admit_async(
        header_values(scope, b"authorization"),
        header_values(scope, b"cookie"),
        scope.get("query_string", b""),
    )


def header_values(scope: Scope, name: bytes) -> list[str]:
    """The values of the headers of this name, in lower case; one for each header."""
    # Names are in lower case (ASGI, "HTTP connection scope").
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


async def answer(denied: Denied, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the answer to a request that is not let in; to a WebSocket, in place of accepting it."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in denied.headers]
    body = denied.body
    headers.append((b"content-length", b"%d" % len(body)))
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})  # the server answers 403
            return
        prefix = "websocket."
    await send({"type": f"{prefix}http.response.start", "status": denied.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": body})
