"""What the modules for httpx and for httpx2, its successor, share. It imports neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .caller import Caller, CallerOptions, Origin, authorization, require_direct

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from typing import Unpack

_UPGRADED = ("http", 80)


class SessionFlow:
    """`SessionAuth`, before its library's `Auth` class.

    headers_sent_once: the library's `Headers` after `HeadersSentOnce`. replayable: its `ByteStream`.
    """

    headers_sent_once: type[Any]
    replayable: type[Any]

    def __init__(self, *, caller: Caller | None = None, **options: Unpack[CallerOptions]) -> None:
        self._caller = Caller(**options) if caller is None else caller

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """See `httpx.Auth`."""
        self._require_allowed(request)
        token = self._caller.token()
        response = yield self._signed(request, token)
        if self._may_be_repeated(request, response):
            successor = self._caller.successor(token)
            if successor is not None:
                yield self._signed(request, successor)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """See `httpx.Auth`."""
        self._require_allowed(request)
        token = await self._caller.token_async()
        response = yield self._signed(request, token)
        if self._may_be_repeated(request, response):
            successor = await self._caller.successor_async(token)
            if successor is not None:
                yield self._signed(request, successor)

    def _require_allowed(self, request: Any) -> None:
        if request.url.host:  # otherwise the library refuses it
            origin = _origin(request.url)
            self._caller.require(origin)
            require_direct(origin)

    def _signed(self, request: Any, token: str | None) -> Any:
        if token is None:
            return request
        origin = _origin(request.url)
        if (origin.scheme, origin.port) == _UPGRADED:
            request.headers = self.headers_sent_once(request.headers, authorization(token))
        else:
            request.headers["Authorization"] = authorization(token)
        return request

    def _may_be_repeated(self, request: Any, response: Any) -> bool:
        return (
            response.status_code == 401
            and _origin(response.request.url) == _origin(request.url)  # no other origin got the token
            and isinstance(request.stream, self.replayable)  # other bodies can be sent once
        )


class HeadersSentOnce:
    """Headers whose `Authorization` is sent, but not copied to the request that follows a redirect.

    The libraries copy it from port 80 of a host to https on port 443, which is another origin.
    """

    def __init__(self, headers: Any, value: str) -> None:
        self._value = value.encode("ascii")
        super().__init__(headers)  # type: ignore[call-arg]
        self.pop("Authorization", None)  # type: ignore[attr-defined]

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """What a transport sends."""
        return [*super().raw, (b"Authorization", self._value)]  # type: ignore[misc]


def _origin(url: Any) -> Origin:
    return Origin.of(url.scheme, url.raw_host.decode("ascii"), url.port)
