"""Calls of gRPC methods, without generated code."""

from __future__ import annotations

import grpc

STATUSES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""The codes of gRPC as those of HTTP, for the table."""


def metadata(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [("authorization", f"Bearer {token}")]


def called(channel: grpc.Channel, method: str, token: str | None) -> bytes:
    """What a method answered. It is unary, unless the last part of its name is another arity."""
    arity = method.rpartition("/")[2]
    if not hasattr(channel, arity):
        arity = "unary_unary"
    argument = iter([b"a", b"b"]) if arity.startswith("stream") else b"a"
    answer = getattr(channel, arity)(method)(argument, metadata=metadata(token), timeout=60)
    return answer if arity.endswith("unary") else b"".join(answer)


def code(channel: grpc.Channel, method: str, token: str | None) -> grpc.StatusCode:
    """The status of a call."""
    try:
        called(channel, method, token)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
