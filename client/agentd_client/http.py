"""Token checks over HTTP, for what speaks no MessagePack: an ASGI application (the extra `http`).

`app` asks the user's own agent; `agentctl http` serves it. Reverse proxies ask at ``/check`` whether to let a
request in: nginx auth_request, Caddy forward_auth, Traefik ForwardAuth; Envoy's ext_authz asks below
``/ext_authz``. Resource servers ask at ``/introspect`` about a token (RFC 7662). It holds no key and no
state: each answer is the agent's.
"""

from __future__ import annotations

import json
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import anyio

from .errors import AgentdError
from .ext.asgi import header_values
from .ext.bearer import Admission, Denied
from .ext.guard import Guard
from .protocol.limits import MAX_SCOPES

if TYPE_CHECKING:
    from collections.abc import Collection

    from .ext.asgi import Receive, Scope, Send

    app: Application

MAX_BODY_BYTES = 32 * 1024
"""Of an introspection request: a token of 8 KiB, percent-encoded, and a little more."""

MAX_FIELDS = 2 * MAX_SCOPES
BODY_SECONDS = 10.0

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

ROUTES = {"/check", "/introspect", "/health"}
ENVOY_ROUTE = "/ext_authz"
"""Envoy appends the path and query of the request that it asks about."""

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""What the access log names; every other method could be anything."""

Answer = tuple[int, list[tuple[str, str]], bytes]


class Application:
    """The service, as an ASGI application.

    Args:
        guard: asks the agent; its own `scopes` and `audience` apply to every request.
        hosts: names in `Host` and `Origin` that are not foreign; None if no browser can connect, as on a Unix
            socket. This keeps pages of other origins out, also after DNS rebinding.
        access_log: gets a line for each request, without its query, headers and body.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        hosts: Collection[str] | None = LOOPBACK_HOSTS,
        access_log: logging.Logger | None = None,
    ) -> None:
        self._guard = Guard() if guard is None else guard
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        began = time.perf_counter()
        try:
            status, headers, body = await self._answer(scope, receive)
        except Denied as denied:
            status, headers, body = denied.status, denied.headers, denied.body
        except AgentdError as error:
            status, headers, body = _plain(400, error.sentence)
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if status != 204:
            encoded.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        if self._access_log is not None:
            milliseconds = (time.perf_counter() - began) * 1000
            method = scope["method"] if scope["method"] in METHODS else "(other)"
            route = _route(scope["path"]) or "(unknown)"
            self._access_log.info("%s %s %d %.1f ms", method, route, status, milliseconds)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if self._hosts is not None and not _is_local(scope, self._hosts):
            return _plain(403, "the request names a foreign host or origin")
        match _route(scope["path"]), scope["method"]:
            case "/check", _:  # Traefik and others ask with the method of the request that they ask about
                return await self._check(scope, scope.get("query_string", b""), 204)
            case "/ext_authz", _:
                # The query is the caller's, who must not choose what is asked. Envoy lets in at 200 only.
                return await self._check(scope, b"", 200)
            case "/introspect", "POST":
                return await self._introspect(scope, receive)
            case "/introspect", _:
                status, headers, body = _plain(405, "POST a form to /introspect")
                return status, [*headers, ("Allow", "POST")], body
            case "/health", "GET" | "HEAD":
                await self._guard.ping_async()
                return _plain(200, "ok")
        return _plain(404, "there are /check, /introspect and /health")

    async def _check(self, scope: Scope, query: bytes, success: int) -> Answer:
        names, scopes, audience = _asked(query)
        if not names <= {"scope", "audience"}:  # a misspelt "scope" must not let everybody in
            raise Denied(400, "invalid_request", "/check takes the parameters scope and audience")
        admission = await self._guard.admit_async(
            header_values(scope, b"authorization"),
            header_values(scope, b"cookie"),
            scopes=scopes,
            audience=self._audience(audience),
        )
        return success, _session_headers(admission), b""

    def _audience(self, asked: str | None) -> str | None:
        own = self._guard.audience
        if own is not None and asked not in (None, own):  # a proxy may pass on its caller's query
            raise Denied(400, "invalid_request", "this service checks for another audience")
        return asked

    async def _introspect(self, scope: Scope, receive: Receive) -> Answer:
        (kind,) = header_values(scope, b"content-type")[:1] or [""]
        if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            return _plain(415, "POST a form (application/x-www-form-urlencoded) with the field token")
        fields = _fields(await _body(receive))
        token = _one(fields, "token")
        if token is None:
            raise Denied(400, "invalid_request", "the form has no field token")
        audience = self._audience(_one(fields, "audience"))
        try:
            admission = await self._guard.admit_token_async(token, scopes=_scopes(fields), audience=audience)
        except Denied as denied:
            if denied.status == 503:
                raise
            return _json({"active": False})
        return _json(_introspection(admission))


def _route(path: str) -> str | None:
    # Exact: what the path of a proxied request looks like, with dots or twice the slash, changes no answer.
    if path in ROUTES:
        return path
    return ENVOY_ROUTE if path.startswith(f"{ENVOY_ROUTE}/") else None


def _is_local(scope: Scope, hosts: Collection[str]) -> bool:
    names = header_values(scope, b"host")
    if len(names) != 1:
        return False
    for origin in header_values(scope, b"origin"):
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https"):  # "null" among them
            return False
        names.append(rest)
    return all(_without_port(name) in hosts for name in names)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


@lru_cache(64)
def _asked(query: bytes) -> tuple[frozenset[str], tuple[str, ...], str | None]:
    """The names of the parameters, the scopes, and the audience. A proxy asks the same again and again."""
    fields = _fields(query)
    return frozenset(fields), _scopes(fields), _one(fields, "audience")


def _fields(encoded: bytes) -> dict[str, list[str]]:
    try:
        fields = parse_qs(encoded.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Denied(400, "invalid_request", "the parameters are malformed, or too many") from None
    for name in ("scope", "audience"):  # a variable that a proxy finds empty must not let everybody in
        if not all(map(str.strip, fields.get(name, []))):
            raise Denied(400, "invalid_request", f"the parameter {name} is empty")
    return fields


def _one(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name, [])
    if len(values) > 1:
        raise Denied(400, "invalid_request", f"the parameter {name} is given more than once")
    return values[0] if values else None


def _scopes(fields: dict[str, list[str]]) -> tuple[str, ...]:
    # Repeated, or separated by spaces as in RFC 6749 section 3.3.
    return tuple(name for value in fields.get("scope", []) for name in value.split())


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    with anyio.move_on_after(BODY_SECONDS) as within:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                raise Denied(400, "invalid_request", f"the form has more than {MAX_BODY_BYTES} bytes")
            if not message.get("more_body", False):
                break
    if within.cancelled_caught:
        raise Denied(400, "invalid_request", f"the form did not arrive within {BODY_SECONDS:g} s")
    return bytes(body)


def _session_headers(admission: Admission) -> list[tuple[str, str]]:
    """The session, for the server behind the proxy. What is unknown is empty.

    Always all of them: a proxy that copies them replaces whatever the caller sent under these names.
    """
    expires_at = admission.expires_at
    return [
        ("Cache-Control", "no-store"),
        ("Agentd-Session", admission.session_id or ""),
        ("Agentd-Label", quote(admission.label, safe="")),
        ("Agentd-Expires", "" if expires_at is None else str(int(expires_at))),
        ("Agentd-Scopes", " ".join(admission.scopes)),
        ("Agentd-Every-Scope", "true" if admission.scopes.is_unlimited else ""),
    ]


def _introspection(admission: Admission) -> dict[str, Any]:
    """RFC 7662 section 2.2. A session with every scope has no member "scope"; a member of ours says so."""
    known: dict[str, Any] = {"active": True, "token_type": "Bearer"}
    if admission.scopes.is_unlimited:
        known["agentd_every_scope"] = True
    else:
        known["scope"] = " ".join(admission.scopes)
    if admission.audience is not None:
        known["aud"] = list(admission.audience)
    session = admission.session
    if session is not None:
        known |= {"jti": session.id, "iat": int(session.created_at), "agentd_label": session.label}
        if session.expires_at is not None:
            known["exp"] = int(session.expires_at)
        if session.opened_by is not None:
            known["sub"] = str(session.opened_by.uid)
    return known


def _json(value: dict[str, Any]) -> Answer:
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return 200, headers, json.dumps(value).encode()


def _plain(status: int, text: str) -> Answer:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    return status, headers, text.encode() + b"\n"


if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "app":  # made on first use: the environment says which agent it asks
            return globals().setdefault("app", Application())
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
