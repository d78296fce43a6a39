"""Sessions in aiohttp's servers: `session_middleware` (the extra `aiohttp`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Unpack

    from aiohttp.typedefs import Handler, Middleware

__all__ = ["SESSION", "session_middleware"]

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
    without_session = frozenset(exempt)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in without_session:
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
