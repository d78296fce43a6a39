"""The user's session in requests: `SessionAuth` (the extra `requests`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.utils import get_environ_proxies, select_proxy
from urllib3.util import parse_url

from .caller import Caller, CallerOptions, Origin, authorization, proxied

if TYPE_CHECKING:
    from typing import Unpack

    from requests import PreparedRequest, Response

__all__ = ["SessionAuth"]

_HEADER = "Authorization"


class SessionAuth(AuthBase):
    """Sends the session's token as a bearer token, for `requests`.

    To loopback, to Unix sockets, and to what `origins` names; for others it raises `OriginNotAllowedError`.
    Redirects to another origin are followed without the token.

    Args:
        caller: the caller; None makes one of the options.
        options: the arguments of `Caller`.
    """

    def __init__(self, *, caller: Caller | None = None, **options: Unpack[CallerOptions]) -> None:
        self._caller = Caller(**options) if caller is None else caller

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """See `requests.auth.AuthBase`."""
        url = request.url or ""
        origin = _origin(url)
        self._caller.require(origin)
        if origin.is_local and select_proxy(url, get_environ_proxies(url)) and origin.scheme == "http":
            raise proxied(origin)
        token = self._caller.token()
        if token is not None:
            request.headers[_HEADER] = authorization(token)
        request.register_hook("response", _Answered(self._caller, token, origin))
        return request


class _Answered:
    """What is done with the answers to one request and to those that follow its redirects."""

    def __init__(self, caller: Caller, token: str | None, origin: Origin) -> None:
        self._caller = caller
        self._token = token
        self._origin = origin
        self._is_repeated = False

    def __call__(self, response: Response, **arguments: Any) -> Response:
        answer = response
        if response.status_code == 401 and self._may_be_repeated(response.request):
            successor = self._caller.successor(self._token)
            if successor is not None:
                self._is_repeated = True
                answer = self._repeated(response, successor, arguments)
        if answer.is_redirect and not self._stays(answer):
            # requests copies the headers from there, and keeps this one from port 80 to https on port 443.
            response.request.headers.pop(_HEADER, None)
        return answer

    def _may_be_repeated(self, request: PreparedRequest) -> bool:
        return (
            not self._is_repeated
            and _origin(request.url or "") == self._origin
            and (
                self._token is None or _HEADER in request.headers
            )  # a redirect may have come back from elsewhere
            and (request.body is None or isinstance(request.body, bytes | str))  # others can be sent once
        )

    def _repeated(self, response: Response, token: str, arguments: dict[str, Any]) -> Response:
        # As requests' own HTTPDigestAuth does it.
        _ = response.content
        response.close()
        response.request.headers[_HEADER] = authorization(token)
        request = response.request.copy()
        if request._cookies is not None:
            extract_cookies_to_jar(request._cookies, response.request, response.raw)
            request.prepare_cookies(request._cookies)
        answer: Response = response.connection.send(request, **arguments)
        answer.history.append(response)
        answer.request = request
        return answer

    def _stays(self, response: Response) -> bool:
        try:
            target = urljoin(response.url, response.headers["Location"])
            return _origin(target) == self._origin
        except ValueError:
            return False


def _origin(url: str) -> Origin:
    """The origin of a URL; a ValueError if parsers do not agree on it, as each connects by its own."""
    parts, others = urlsplit(url), parse_url(url)
    found = Origin.of(parts.scheme, parts.hostname or "", parts.port)
    if found != Origin.of(others.scheme or "", others.host or "", others.port):
        raise ValueError("the URL can be read in two ways")
    return found
