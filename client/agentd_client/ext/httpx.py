"""The user's session in httpx: `SessionAuth` (the extra `httpx`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from .caller import Caller, CallerOptions, Origin, authorization, require_direct

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from typing import Unpack

__all__ = ["SessionAuth"]

_UPGRADED = ("http", 80)


class SessionAuth(httpx.Auth):
    """Sends the session's token as a bearer token, for `httpx.Client` and `httpx.AsyncClient`.

    To loopback, to Unix sockets under the name "localhost", and to what `origins` names; for others it raises
    `OriginNotAllowedError`. Redirects to another origin are followed without the token.

    Args:
        caller: the caller; None makes one of the options.
        options: the arguments of `Caller`.
    """

    def __init__(self, *, caller: Caller | None = None, **options: Unpack[CallerOptions]) -> None:
        self._caller = Caller(**options) if caller is None else caller

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        self._require_allowed(request)
        token = self._caller.token()
        response = yield _signed(request, token)
        if _may_be_repeated(request, response):
            successor = self._caller.successor(token)
            if successor is not None:
                yield _signed(request, successor)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See `httpx.Auth`."""
        self._require_allowed(request)
        token = await self._caller.token_async()
        response = yield _signed(request, token)
        if _may_be_repeated(request, response):
            successor = await self._caller.successor_async(token)
            if successor is not None:
                yield _signed(request, successor)

    def _require_allowed(self, request: httpx.Request) -> None:
        origin = _origin(request.url)
        self._caller.require(origin)
        require_direct(origin)


def _origin(url: httpx.URL) -> Origin:
    return Origin.of(url.scheme, url.raw_host.decode("ascii"), url.port)


def _signed(request: httpx.Request, token: str | None) -> httpx.Request:
    if token is None:
        return request
    origin = _origin(request.url)
    if (origin.scheme, origin.port) == _UPGRADED:
        request.headers = _HeadersSentOnce(request.headers, authorization(token))
    else:
        request.headers["Authorization"] = authorization(token)
    return request


def _may_be_repeated(request: httpx.Request, response: httpx.Response) -> bool:
    return (
        response.status_code == httpx.codes.UNAUTHORIZED
        and _origin(response.request.url) == _origin(request.url)  # no other origin got the token
        and isinstance(request.stream, httpx.ByteStream)  # other bodies can be sent once
    )


class _HeadersSentOnce(httpx.Headers):
    """Headers whose `Authorization` is sent, but not copied to the request that follows a redirect.

    httpx copies it from port 80 of a host to https on port 443, which is another origin.
    """

    def __init__(self, headers: httpx.Headers, value: str) -> None:
        self._value = value.encode("ascii")
        super().__init__(headers)
        self.pop("Authorization", None)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """What a transport sends."""
        return [*super().raw, (b"Authorization", self._value)]
