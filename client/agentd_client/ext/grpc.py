"""Sessions in gRPC: interceptors for servers, and call credentials for callers (the extra `grpc`).

A server's refusal is UNAUTHENTICATED, PERMISSION_DENIED or, if the agent cannot know, UNAVAILABLE.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from ..errors import AgentdError
from .caller import Caller, CallerOptions, Origin, authorization
from .guard import Admission, Denied, Guard, GuardOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import Unpack

__all__ = ["AsyncSessionInterceptor", "SessionInterceptor", "current_session", "session_call_credentials"]

_session: ContextVar[Admission] = ContextVar("agentd_session")

_CODES = {
    400: grpc.StatusCode.UNAUTHENTICATED,  # INVALID_ARGUMENT is about the message
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def current_session() -> Admission:
    """The session of the call that this code serves; a LookupError outside of one."""
    return _session.get()


class SessionInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets in calls that belong to a session, for `grpc.server`.

    Args:
        guard: the guard; None makes one of the options.
        options: the arguments of `Guard`.
    """

    def __init__(self, *, guard: Guard | None = None, **options: Unpack[GuardOptions]) -> None:
        self._guard = Guard(**options) if guard is None else guard

    def intercept_service(
        self, continuation: Callable[[Any], grpc.RpcMethodHandler | None], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Wrap the method's handler; see `grpc.ServerInterceptor`."""
        handler = continuation(details)
        if handler is None:  # there is no such method
            return None
        try:
            admission = self._guard.admit(_authorization(details))
        except Denied as denied:
            return _replaced(handler, _refuse_stream if handler.response_streaming else _refuse, denied)
        return _replaced(handler, _serve_stream if handler.response_streaming else _serve, admission)


class AsyncSessionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """As `SessionInterceptor`, for `grpc.aio.server`."""

    def __init__(self, *, guard: Guard | None = None, **options: Unpack[GuardOptions]) -> None:
        self._guard = Guard(**options) if guard is None else guard

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wrap the method's handler; see `grpc.aio.ServerInterceptor`."""
        handler = await continuation(details)
        if handler is None:
            return None
        try:
            _session.set(await self._guard.admit_async(_authorization(details)))  # each call is a task
        except Denied as denied:
            refuse = _refuse_stream_async if handler.response_streaming else _refuse_async
            return _replaced(handler, refuse, denied)
        return handler


def _authorization(details: grpc.HandlerCallDetails) -> list[str]:
    return [value for key, value in details.invocation_metadata or () if key == "authorization"]


def _replaced(
    handler: grpc.RpcMethodHandler, behaviour: Callable[..., Any], given: Admission | Denied
) -> grpc.RpcMethodHandler:
    """A handler of the same arity that calls ``behaviour(given, its own behaviour, request, context)``."""
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    own = getattr(handler, f"{request}_{response}")
    # What is refused is not decoded.
    deserializer = None if isinstance(given, Denied) else handler.request_deserializer
    return getattr(grpc, f"{request}_{response}_rpc_method_handler")(
        partial(behaviour, given, own),
        request_deserializer=deserializer,
        response_serializer=handler.response_serializer,
    )


def _serve(admission: Admission, own: Callable[..., Any], request: Any, context: Any) -> Any:
    with _serving(admission):
        return own(request, context)


def _serve_stream(admission: Admission, own: Callable[..., Any], request: Any, context: Any) -> Iterator[Any]:
    with _serving(admission):
        yield from own(request, context)


@contextmanager
def _serving(admission: Admission) -> Iterator[None]:
    # In the thread that serves the call; threads are used again.
    token = _session.set(admission)
    try:
        yield
    finally:
        _session.reset(token)


def _refuse(denied: Denied, _own: object, _request: object, context: Any) -> None:
    context.abort(_CODES[denied.status], denied.description)


def _refuse_stream(denied: Denied, _own: object, _request: object, context: Any) -> Iterator[Any]:
    context.abort(_CODES[denied.status], denied.description)
    yield  # a generator, as the method is


async def _refuse_async(denied: Denied, _own: object, _request: object, context: Any) -> None:
    await context.abort(_CODES[denied.status], denied.description)


async def _refuse_stream_async(
    denied: Denied, _own: object, _request: object, context: Any
) -> AsyncIterator[Any]:
    await context.abort(_CODES[denied.status], denied.description)
    yield


def session_call_credentials(
    *, caller: Caller | None = None, **options: Unpack[CallerOptions]
) -> grpc.CallCredentials:
    """Call credentials that send the session's token, for channels of `grpc` and `grpc.aio`.

    gRPC sends call credentials over secure channels only. On this machine that is a channel with
    `grpc.local_channel_credentials`, which refuses other machines. Over TLS the token goes to loopback
    and to what `origins` names; calls to others end with UNAVAILABLE.

    Args:
        caller: the caller; None makes one of the options.
        options: the arguments of `Caller`.
    """
    calling = Caller(**options) if caller is None else caller
    return grpc.metadata_call_credentials(_SessionPlugin(calling), "agentd")


class _SessionPlugin(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            self._require_allowed(context.service_url)
            token = self._caller.token()
        except AgentdError as error:  # gRPC would log others with a traceback
            callback((), error)
            return
        callback(() if token is None else (("authorization", authorization(token)),), None)

    def _require_allowed(self, service_url: str) -> None:
        # Without a scheme the channel is local: gRPC has checked the address of its other end. The name in
        # the URL may be any.
        parts = urlsplit(service_url)
        if not service_url.startswith("://"):
            self._caller.require(Origin.of(parts.scheme, parts.hostname or "", parts.port))
