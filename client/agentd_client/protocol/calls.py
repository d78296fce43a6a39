"""Every call a client can make, as a value: what to send and how to read the answer.

The blocking and the async client differ only in how they move bytes; what they say is written here once.
"""

from __future__ import annotations

from ..errors import (
    AgentdError,
    InvalidAudienceError,
    InvalidScopesError,
    InvalidTokenError,
    LocalParamsError,
)
from . import methods, wire
from .limits import (
    MAX_AUDIENCES,
    MAX_SCOPES,
    MAX_TOKEN_CHARACTERS,
    PROTOCOL_VERSION,
)
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
    Verification,
)
from .wire import from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Generic, NamedTuple, TypeVar

    from .methods import Method
    from .results import Verdict
    from .wire import ResultT

    T = TypeVar("T")
else:
    from ..light_typing import Generic, NamedTuple, T

PassphraseText = str | bytes | bytearray


class Call(NamedTuple, Generic[T]):
    """One request: its method, its parameters (None ones are left out) and the reader of its answer."""

    method: Method
    params: dict[str, Any]
    read: Callable[[Any], T]

    def __repr__(self) -> str:
        # Parameters hold tokens and passphrases, and a call stands in every traceback that shows its locals.
        return f"Call({self.method.name}, {', '.join(self.params) or 'no parameters'})"


_new_call = tuple.__new__


def _call(method: Method, read: Callable[[Any], T], **params: Any) -> Call[T]:
    return Call(method, {name: value for name, value in params.items() if value is not None}, read)


def _reader(kind: type[ResultT]) -> Callable[[Any], ResultT]:
    return lambda answer: from_wire(kind, answer)


def hello(client: str) -> Call[Hello]:
    """Ask for the agent's version, the protocol's, and its capabilities."""
    return _call(methods.HELLO, _reader(Hello), client=client, protocol=PROTOCOL_VERSION)


def get_status() -> Call[Status]:
    """Ask how the agent is."""
    return _call(methods.GET_STATUS, _reader(Status))


def create_token(
    expiry: int | str | None,
    label: str | None,
    *,
    audience: Sequence[str] | None = None,
    scopes: Sequence[str] | None = None,
    max_uses: int | None = None,
    max_lifetime: int | str | None = None,
    parent: str | None = None,
    bound: bool = False,
) -> Call[CreatedToken]:
    """Open a session."""
    return _call(
        methods.CREATE_TOKEN,
        _reader(CreatedToken),
        expiry=expiry,
        label=label,
        audience=_names(audience, MAX_AUDIENCES, InvalidAudienceError),
        scopes=_names(scopes, MAX_SCOPES, InvalidScopesError),
        maxUses=max_uses,
        maxLifetime=max_lifetime,
        parent=None if parent is None else sendable_token(parent),
        bound=bound or None,
    )


def verify_token(
    token: str, *, audience: str | None = None, scopes: Sequence[str] | None = None
) -> Call[Verification]:
    """Ask whether a token is valid, for an audience and for scopes; this counts as a use."""
    return _verify(_reader(Verification), token, audience, scopes)


def is_valid(token: str, audience: str | None, scopes: Sequence[str] | None) -> Call[bool]:
    """As `verify_token`; read only as yes or no."""
    if audience is None and scopes is None:  # as it is nearly always
        return _new_call(Call, (methods.VERIFY_TOKEN, {"token": token}, wire.is_valid))
    return _verify(wire.is_valid, token, audience, scopes)


def judge_token(
    token: str, *, audience: str | None = None, scopes: Sequence[str] | None = None
) -> Call[Verdict]:
    """As `verify_token`; read so that the answer of either socket says the same."""
    return _verify(wire.verdict, token, audience, scopes)


def _verify(
    read: Callable[[Any], T], token: str, audience: str | None, scopes: Sequence[str] | None
) -> Call[T]:
    params: dict[str, Any] = {"token": token}
    if audience is not None:
        params["audience"] = audience
    if scopes is not None:
        params["scopes"] = _names(scopes, MAX_SCOPES, InvalidScopesError)
    return Call(methods.VERIFY_TOKEN, params, read)


def inspect_token(
    token: str | None,
    session_id: str | None = None,
    *,
    audience: str | None = None,
    scopes: Sequence[str] | None = None,
) -> Call[Verification]:
    """Ask for all that is known of a token, or of a session by its id; this changes nothing."""
    if (token is None) == (session_id is None):
        raise LocalParamsError("inspect_token takes either a token or an id")
    return _call(
        methods.INSPECT_TOKEN,
        _reader(Verification),
        token=None if token is None else sendable_token(token),
        id=session_id,
        audience=audience,
        scopes=_names(scopes, MAX_SCOPES, InvalidScopesError),
    )


def renew_token(token: str) -> Call[CreatedToken]:
    """Extend the session, with a new token."""
    return _call(methods.RENEW_TOKEN, _reader(CreatedToken), token=sendable_token(token))


def list_sessions(
    *,
    state: str | None = None,
    label: str | None = None,
    pid: int | None = None,
    parent: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> Call[SessionPage]:
    """Ask for some sessions, newest first."""
    return _call(
        methods.LIST_SESSIONS,
        _reader(SessionPage),
        state=state,
        label=label,
        pid=pid,
        parent=parent,
        after=after,
        limit=limit,
    )


def revoke_sessions(
    *,
    state: str | None = None,
    label: str | None = None,
    pid: int | None = None,
    parent: str | None = None,
) -> Call[int]:
    """End every session that fits; at least one condition is given."""
    if (state, label, pid, parent) == (None, None, None, None):
        raise LocalParamsError("revoke_sessions takes at least one condition; reset_key ends all sessions")
    return _call(
        methods.REVOKE_SESSIONS,
        lambda answer: from_wire(Revocations, answer).ended,
        state=state,
        label=label,
        pid=pid,
        parent=parent,
    )


def list_audit(
    *, since: float | None = None, after: str | None = None, limit: int | None = None
) -> Call[AuditPage]:
    """Ask for some entries of the audit log, newest first."""
    return _call(methods.LIST_AUDIT, _reader(AuditPage), since=since, after=after, limit=limit)


def subscribe() -> Call[bool]:
    """Ask for events on this connection."""
    return _call(methods.SUBSCRIBE, lambda answer: from_wire(Subscribed, answer).subscribed)


def revoke_token(token: str | None, session_id: str | None) -> Call[bool]:
    """End a session, by its token or by its id."""
    if (token is None) == (session_id is None):
        raise LocalParamsError("revoke_token takes either a token or an id")
    return _call(
        methods.REVOKE_TOKEN,
        lambda answer: from_wire(Revocation, answer).revoked,
        token=None if token is None else sendable_token(token),
        id=session_id,
    )


def reset_key(grace_seconds: int | None = None) -> Call[str]:
    """Replace the session key: every earlier token is invalid from then on, or once the grace is over."""
    return _call(
        methods.RESET_KEY, lambda answer: from_wire(KeyReset, answer).key_id, graceSeconds=grace_seconds
    )


def lock() -> Call[LockState]:
    """Wipe the keys from the agent's memory."""
    return _call(methods.LOCK, _reader(LockState))


def unlock(passphrase: PassphraseText) -> Call[LockState]:
    """Unlock the agent, which loads its keys."""
    from .passphrases import sendable_passphrase  # few programs call this

    return _call(
        methods.UNLOCK,
        _reader(LockState),
        passphrase=sendable_passphrase(passphrase),
    )


def change_passphrase(old: PassphraseText | None, new: PassphraseText | None) -> Call[Protection]:
    """Replace the key file's passphrase; None where it has none, or is to have none."""
    from .passphrases import sendable_passphrase, settable_passphrase

    return _call(
        methods.CHANGE_PASSPHRASE,
        _reader(Protection),
        old=None if old is None else sendable_passphrase(old),
        new=None if new is None else settable_passphrase(new),
    )


TOKEN_PREFIX = "v4.local."  # noqa: S105 - what every token begins with, not one


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


def read_event(params: Any) -> Event:
    """The event of a received notification; raises `ProtocolError` where it is none."""
    return from_wire(Event, params[0] if isinstance(params, list) and params else None)


def _names(names: Sequence[str] | None, most: int, error: type[AgentdError]) -> list[str] | None:
    # How many is checked here already: the agent cuts off whoever sends an array beyond its limit.
    if names is None:
        return None
    if isinstance(names, str) or len(names) > most:
        raise error
    return list(names)
