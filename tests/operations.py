"""Every method of the wire: those that look, and those that do something. One that is in neither fails tests."""

from __future__ import annotations

from agentd_client.protocol import methods

LOOKING = {"hello", "getStatus", "inspectToken", "listSessions", "listAudit", "subscribe"}

DOING = {
    *("createToken", "verifyToken", "renewToken", "revokeToken", "revokeSessions", "resetKey"),
    *("lock", "unlock", "changePassphrase"),
}
"""A verification is a use of a token."""

EVERY = {value.name for value in vars(methods).values() if isinstance(value, methods.Method)}
