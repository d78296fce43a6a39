"""The methods, how their answers are read, and what can be sent as an argument.

A method is repeatable if carrying it out twice changes no more than carrying it out once, and the second
answer is the same. Renewing again with the same token returns the same generation. Repeating a verification
of a session with limited uses counts twice, which is on the safe side.
"""

from __future__ import annotations

from ..errors import AgentdError, InvalidAudienceError, InvalidScopesError, InvalidTokenError
from .limits import MAX_AUDIENCES, MAX_SCOPES, MAX_TOKEN_CHARACTERS
from .results import (
    AuditPage,
    CreatedToken,
    Event,
    Hello,
    KeyReset,
    LockState,
    Protection,
    Revocation,
    Revocations,
    SessionPage,
    Status,
    Subscribed,
    Verdict,
    Verification,
)
from .wire import Method, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .results import SessionInfo
    from .wire import ResultT


def _result(kind: type[ResultT]) -> Callable[[Any], ResultT]:
    return lambda answer: from_wire(kind, answer)


def _verdict(answer: Any) -> Verdict:
    """The answer of either socket: the owner's also names the session."""
    session = from_wire(Verification, answer).session
    if session is None:
        return from_wire(Verdict, answer)
    found = from_wire(Verdict, answer | {"audience": session.audience, "scopes": session.scopes})
    return found if found.valid else found._replace(audience=None, scopes=None)


def _admission(answer: Any) -> tuple[Verdict, SessionInfo | None]:
    return _verdict(answer), from_wire(Verification, answer).session


HELLO = Method("hello", _result(Hello))
GET_STATUS = Method("getStatus", _result(Status))
CREATE_TOKEN = Method("createToken", _result(CreatedToken), repeatable=False)
VERIFY_TOKEN = Method("verifyToken", _result(Verification))
IS_VALID = Method("verifyToken", lambda answer: from_wire(Verification, answer).valid)
JUDGE_TOKEN = Method("verifyToken", _verdict)
ADMIT_TOKEN = Method("verifyToken", _admission)
INSPECT_TOKEN = Method("inspectToken", _result(Verification))
REVOKE_TOKEN = Method("revokeToken", lambda answer: from_wire(Revocation, answer).revoked, repeatable=False)
RENEW_TOKEN = Method("renewToken", _result(CreatedToken))
LIST_SESSIONS = Method("listSessions", _result(SessionPage))
REVOKE_SESSIONS = Method(
    "revokeSessions", lambda answer: from_wire(Revocations, answer).ended, repeatable=False
)
RESET_KEY = Method("resetKey", lambda answer: from_wire(KeyReset, answer).key_id, repeatable=False)
LIST_AUDIT = Method("listAudit", _result(AuditPage))
SUBSCRIBE = Method("subscribe", lambda answer: from_wire(Subscribed, answer).subscribed)
LOCK = Method("lock", _result(LockState))
UNLOCK = Method("unlock", _result(LockState))
CHANGE_PASSPHRASE = Method("changePassphrase", _result(Protection), repeatable=False)

EVENT = "event"
"""The notification that subscribers receive."""

NEVER = "never"
"""The expiry of a session that ends only when it is revoked."""

TOKEN_PREFIX = "v4.local."  # noqa: S105 - what every token begins with, not one


def read_event(params: Any) -> Event:
    """The event of a received notification; raises `ProtocolError` where it is none."""
    return from_wire(Event, params[0] if isinstance(params, list) and params else None)


def token_text(token: object) -> str | None:
    """The token as a plain `str`; None for what cannot be a token, so that it need not be sent to be refused.

    Never raises, whatever it is given.
    """
    text = token if type(token) is str else _plain_text(token)
    if text is None or not 0 < len(text) <= MAX_TOKEN_CHARACTERS:
        return None
    return text if text.isascii() and text.isprintable() and " " not in text else None


def sendable_token(token: object) -> str:
    """The token, or `InvalidTokenError`."""
    text = token_text(token)
    if text is None:
        raise InvalidTokenError
    return text


def stripped_token(token: object) -> str:
    """The token without the white space around it, or `InvalidTokenError`."""
    return sendable_token((_plain_text(token) or "").strip())


def _plain_text(text: object) -> str | None:
    # Asks the type, not the object, whose `__class__`, `__len__` or `__str__` may be anything.
    return str.__str__(text) if issubclass(type(text), str) else None


def sendable_scopes(scopes: Sequence[str] | None) -> list[str] | None:
    """The scopes as a list, or `InvalidScopesError`."""
    return None if scopes is None else _names(scopes, MAX_SCOPES, InvalidScopesError)


def sendable_audience(audience: Sequence[str] | None) -> list[str] | None:
    """The audience as a list, or `InvalidAudienceError`."""
    return None if audience is None else _names(audience, MAX_AUDIENCES, InvalidAudienceError)


def _names(names: Sequence[str], most: int, error: type[AgentdError]) -> list[str]:
    # How many is checked here already: the agent cuts off whoever sends an array beyond its limit.
    if isinstance(names, str) or len(names) > most:
        raise error
    return list(names)
