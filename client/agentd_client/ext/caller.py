"""What every caller shares: the token of its session, renewed on use, and the origins that may get it.

An integration asks a `Caller` before each request, and once more after a 401: if the token in the file is
another one by then, the request is sent again with it, once.
"""

from __future__ import annotations

import ipaddress
import os
import time
import weakref
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypedDict
from urllib.parse import urlsplit

from ..blocking import Client
from ..errors import OriginNotAllowedError
from ..protocol.methods import stripped_token
from ..session import Session
from ..token_file.descriptor import environment_token
from ..token_file.renewal import Known, follow, sendable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..aio import AsyncClient

__all__ = ["Caller", "CallerOptions", "Origin", "OriginNotAllowedError"]

TIMEOUT_SECONDS = 5.0

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAME_SCHEME = {"ws": "http", "wss": "https"}
_UNIX_SCHEME = "http+unix"
"""Of requests-unixsocket and its like: the host is the socket's path."""


class CallerOptions(TypedDict, total=False):
    """The arguments of `Caller`, which every caller integration takes as its own."""

    session: Session | None
    origins: Sequence[str]
    socket_path: str | os.PathLike[str] | None
    timeout: float
    clock: Callable[[], float]


class Origin(NamedTuple):
    """Scheme, host and port in the form in which they compare."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, scheme: str, host: str, port: int | None) -> Origin:
        """Without capitals, with the scheme's own port, and "ws" as "http"."""
        return cls(*_normalized(scheme, host, port))

    @property
    def is_local(self) -> bool:
        """Whether it is this machine and no other: loopback or a Unix socket."""
        if self.scheme == _UNIX_SCHEME:
            return True
        if self.scheme not in _DEFAULT_PORTS:
            return False
        # Other names, and other ways to write an address, depend on a resolver.
        return self.host == "localhost" or _is_loopback_address(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


# A program calls few servers, and parsing an address takes as long as reading the token.
@lru_cache(maxsize=64)
def _normalized(scheme: str, host: str, port: int | None) -> tuple[str, str, int | None]:
    scheme = _SAME_SCHEME.get(scheme.lower(), scheme.lower())
    host = host.lower().removeprefix("[").removesuffix("]")
    with suppress(ValueError):  # a name
        host = ipaddress.ip_address(host).compressed
    return scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port


@lru_cache(maxsize=64)
def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Caller:
    """Sends the token of a session, to few.

    Args:
        session: whose token is sent. None is the one that the environment hands over (`agentctl exec`), else
            the user's own (`agentctl login`).
        origins: who else may get it, as "https://notes.example:8443", besides loopback and Unix sockets.
        socket_path: the agent's socket; None is the user's own agent. It is asked in order to renew.
        timeout: seconds to wait for the agent, at most 2 for each of its answers.
        clock: seconds since 1970.

    Thread-safe, and usable after a fork. It connects when a token is first sent. An agent that is away does
    not stop a request: the present token is sent.
    """

    def __init__(
        self,
        *,
        session: Session | None = None,
        origins: Sequence[str] = (),
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(origins, str):
            raise TypeError("origins is a list, not one string")
        self._origins = frozenset(map(_named, origins))
        self._given_session = session
        self._socket_path = socket_path
        self._timeout = timeout
        self._known = Known()
        self._clock = clock
        self._async_client: AsyncClient | None = None
        # A caller has no natural end: libraries do not tell their plug-ins that a client was closed.
        self._closers: list[Callable[[], None]] = []
        self._finalizer = weakref.finalize(self, _close, self._closers)

    def allows(self, origin: Origin) -> bool:
        """Whether the token may be sent to it."""
        return origin.is_local or origin in self._origins

    def require(self, origin: Origin) -> None:
        """Raise `OriginNotAllowedError` if the token may not be sent to it."""
        if not self.allows(origin):
            raise OriginNotAllowedError(
                f"the session token is sent to loopback and Unix sockets only, and {origin} is neither; "
                f"if it may have it, pass origins=[{str(origin)!r}]"
            )

    def token(self) -> str | None:
        """The token to send; None if nobody has logged in. Renews the session if that is due.

        Raises:
            TokenFileError: the token file cannot be read, or is refused.
        """
        handed_over = self._handed_over()
        if handed_over is not None:
            return handed_over
        return follow(sendable(self._session, self._known, self._clock), self._client._carry_out)

    async def token_async(self) -> str | None:
        """As `token`, for trio and asyncio; needs anyio."""
        from .. import aio  # the extra `async`

        handed_over = self._handed_over()
        if handed_over is not None:
            return handed_over
        if self._async_client is None:
            client = self._client
            self._async_client = aio.AsyncClient(client.socket_path, client.timeout, 0)
            self._closers.append(self._async_client._pools.close)
            if not self._finalizer.alive:
                self._async_client._pools.close()
        steps = sendable(self._session, self._known, self._clock)
        return await aio.follow(steps, self._async_client._carry_out)

    def successor(self, sent: str | None) -> str | None:
        """The token to send instead of one that was refused; None if there is no other."""
        if self._handed_over() is not None:
            return None
        token = self._session.read_token()
        return None if token == sent else token

    async def successor_async(self, sent: str | None) -> str | None:
        """As `successor`, for trio and asyncio; needs anyio."""
        from ..aio import AsyncSession

        if self._handed_over() is not None:
            return None
        token = await AsyncSession(self._session).read_token()
        return None if token == sent else token

    def headers(self, url: str) -> dict[str, str]:
        """The headers of a request to this URL, for libraries without an integration.

        Raises:
            OriginNotAllowedError: the URL's origin may not have the token.
        """
        origin = _origin_of(url)
        self.require(origin)
        require_direct(origin)
        token = self.token()
        return {} if token is None else {"Authorization": authorization(token)}

    def close(self) -> None:
        """Close the connections to the agent; the session is not renewed from now on."""
        self._finalizer()

    # Both are made when they are needed: with a token that was handed over there may be no place for them,
    # as in a container without a home.

    @cached_property
    def _session(self) -> Session:
        return Session.create_session() if self._given_session is None else self._given_session

    @cached_property
    def _client(self) -> Client:
        client = Client(self._socket_path, self._timeout, 0)
        self._closers.append(client.close)
        if not self._finalizer.alive:
            client.close()
        return client

    def _handed_over(self) -> str | None:
        # It stands for one command and is not in a file, so it cannot be replaced.
        given = environment_token() if self._given_session is None else None
        return None if given is None else stripped_token(given)


def authorization(token: str) -> str:
    """The value of the header (RFC 6750 section 2.1)."""
    return f"Bearer {token}"


def require_direct(origin: Origin) -> None:
    """Raise `OriginNotAllowedError` if the environment has the requests to a local server sent to a proxy.

    The proxy would get the token, and the server would not.
    """
    if not origin.is_local or origin.scheme != "http":
        return  # the tunnel of https hides the token; Unix sockets have no proxies
    if not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return  # as nearly always; what follows takes a tenth of a millisecond
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    if ("http" in proxies or "all" in proxies) and not proxy_bypass(origin.host):
        raise proxied(origin)


def proxied(origin: Origin) -> OriginNotAllowedError:
    """The error if a proxy stands before a local server."""
    return OriginNotAllowedError(
        f"a proxy would get the session token for {origin}; "
        "set NO_PROXY=localhost,127.0.0.1,::1, or use no proxy"
    )


def _origin_of(url: str) -> Origin:
    parts = urlsplit(url)
    if "\\" in url or not url.isascii() or not url.isprintable():
        raise ValueError("the URL is not written as RFC 3986 has it, and may be read in two ways")
    return Origin.of(parts.scheme, parts.hostname or "", parts.port)


def _named(text: str) -> Origin:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts = urlsplit("")
        port = None
    scheme = _SAME_SCHEME.get(parts.scheme, parts.scheme)
    if (
        scheme not in _DEFAULT_PORTS
        or not parts.hostname
        or not text.isascii()
        or "*" in text
        or "@" in text
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise ValueError(
            f"{text!r} is not an origin; write scheme, host and port: https://notes.example:8443"
        )
    return Origin.of(scheme, parts.hostname, port)


def _close(closers: list[Callable[[], None]]) -> None:
    for close in closers:
        close()
