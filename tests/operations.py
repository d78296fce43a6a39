"""Every method of the wire: those that only read, and those that change something. A test fails for one in neither."""

from __future__ import annotations

from agentd_client.protocol import methods

READ_ONLY_METHODS = {
    "hello",
    "getStatus",
    "inspectToken",
    "listSessions",
    "listRequests",
    "listAudit",
    "subscribe",
}

CHANGING_METHODS = {
    *("createToken", "verifyToken", "renewToken", "revokeToken", "revokeSessions", "resetKey"),
    *("lock", "unlock", "changePassphrase", "requestToken", "decideRequest", "withdrawRequest"),
}
"""A verification changes something: it is a use of the token."""

AT_SHARED_SOCKETS = {
    "verify": {"hello", "verifyToken"},
    "ask": {"hello", "verifyToken", "requestToken", "withdrawRequest"},
}
"""What others can call, by socket. Everything else is unknown there, and so is a method that is added later."""

EVERY = {value.name for value in vars(methods).values() if isinstance(value, methods.Method)}
