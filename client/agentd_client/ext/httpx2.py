"""The user's session in httpx2: `SessionAuth` (the extra `httpx2`)."""

from __future__ import annotations

import httpx2

from .httpx_auth import HeadersSentOnce, SessionFlow

__all__ = ["SessionAuth"]


class _HeadersSentOnce(HeadersSentOnce, httpx2.Headers):
    pass


class SessionAuth(SessionFlow, httpx2.Auth):
    """Sends the session's token as a bearer token, for `httpx2.Client` and `httpx2.AsyncClient`.

    To loopback, to Unix sockets under the name "localhost", and to what `origins` names; for others it raises
    `OriginNotAllowedError`. Redirects to another origin are followed without the token.

    Args:
        caller: the caller; None makes one of the options.
        options: the arguments of `Caller`.
    """

    headers_sent_once = _HeadersSentOnce
    replayable = httpx2.ByteStream
