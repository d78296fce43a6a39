"""The methods as they go over the wire: calls out, results and errors back, in maps with camelCase names.

A method is repeatable if carrying it out twice changes no more than carrying it out once, and the second
answer is the same. Renewing again with the same token returns the same generation. Repeating a verification
of a session with limited uses counts twice, which is on the safe side.
"""

from __future__ import annotations

from ..errors import (
    ERRORS,
    AgentdError,
    InvalidAudienceError,
    InvalidScopesError,
    InvalidTokenError,
    ProtocolError,
    RequestError,
)
from . import results
from .limits import MAX_AUDIENCES, MAX_SCOPES, MAX_TOKEN_CHARACTERS
from .results import (
    AuditPage,
    CreatedToken,
    Decision,
    Event,
    Hello,
    KeyReset,
    LockState,
    Protection,
    RequestedToken,
    RequestPage,
    Revocation,
    Revocations,
    SessionInfo,
    SessionPage,
    Status,
    Subscribed,
    Verdict,
    Verification,
    Withdrawal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Generic, NamedTuple, TypeVar

    ResultT = TypeVar("ResultT", bound=NamedTuple)
    T = TypeVar("T")
else:
    from ..light_typing import Generic, NamedTuple, T

# A bool is no int: types are compared exactly.
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


class UnusableAnswerError(ProtocolError):
    """The agent's answer is not of the form that this client knows; perhaps it is of another version."""


def camel(name: str) -> str:
    """`created_at` -> `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class Method(NamedTuple, Generic[T]):
    """A method: its wire name, how its answer is read, and whether to repeat it if that answer is lost."""

    name: str
    read: Callable[[Any], T]
    repeatable: bool = True

    def call(self, **params: Any) -> Call[T]:
        """A call with these parameters, by their Python names; those that are None are left out."""
        return Call(
            self,
            {
                camel(name) if "_" in name else name: value
                for name, value in params.items()
                if value is not None
            },
        )


class Call(NamedTuple, Generic[T]):
    """A request to be made: a method, and its parameters by their wire names."""

    method: Method[T]
    params: dict[str, Any]

    def __repr__(self) -> str:
        # Parameters hold tokens and passphrases, and a call stands in every traceback that shows its locals.
        return f"Call({self.method.name}, {', '.join(self.params) or 'no parameters'})"


class _Form:
    """How one kind of result is written, by the annotations of its class.

    fields: of each field its wire name, its types, and its default.
    nested: of each field that holds a result or a list of them its position, its wire name, and their kind.
    """

    def __init__(self, kind: type[Any]) -> None:
        annotations: dict[str, str] = {}
        for base in reversed(kind.__mro__):
            annotations |= getattr(base, "__annotations__", {})
        self.names = [camel(field) for field in kind._fields]
        self.fields: list[tuple[str, tuple[type, ...], Any]] = []
        self.nested: list[tuple[int, str, type[Any]]] = []
        for at, (field, name) in enumerate(zip(kind._fields, self.names, strict=True)):
            declared, _, optional = annotations[field].partition(" | ")  # then None
            item = declared.removeprefix("list[").removesuffix("]")
            types = (list,) if item != declared else _TYPES.get(item, (dict,))
            if optional:
                types += (type(None),)
            self.fields.append((name, types, kind._field_defaults.get(field)))
            if item not in _TYPES:
                self.nested.append((at, name, getattr(results, item)))


_forms: dict[type[Any], _Form] = {}


def _form_of(kind: type[Any]) -> _Form:
    return _forms.setdefault(kind, _Form(kind))


def to_wire(result: Any) -> dict[str, Any]:
    """A result (a named tuple) as the map that goes over the wire."""
    kind = type(result)
    form = _forms.get(kind) or _form_of(kind)
    wire = dict(zip(form.names, result, strict=True))
    for _, name, _ in form.nested:
        value = wire[name]
        if type(value) is list:
            wire[name] = [to_wire(item) for item in value]
        elif value is not None:
            wire[name] = to_wire(value)
    return wire


def from_wire(kind: type[ResultT], value: object) -> ResultT:
    """The named tuple of a received map.

    Fields that a newer agent added are ignored. A field that an older agent does not send gets the named
    tuple's default, so every field that is added to a result needs one.

    Raises:
        UnusableAnswerError: a field is missing or of the wrong type.
    """
    if not isinstance(value, dict):
        raise UnusableAnswerError(f"the agent's answer is not a map but {type(value).__name__}")
    form = _forms.get(kind) or _form_of(kind)
    found = []
    for name, types, default in form.fields:
        item = value.get(name, default)
        if type(item) not in types:
            raise UnusableAnswerError(f"the agent's answer has no usable field {name!r}")
        found.append(item)
    for at, _, nested in form.nested:
        item = found[at]
        if type(item) is list:
            found[at] = [from_wire(nested, each) for each in item]
        elif item is not None:
            found[at] = from_wire(nested, item)
    return kind._make(found)


def error_to_wire(error: AgentdError) -> list[Any]:
    """``[number, "CODE: sentence"]``, the form that foreign clients already know how to show."""
    return [error.number, f"{error.code}: {error.sentence}"]


def error_from_wire(error: object) -> AgentdError:
    """The exception that a received error stands for; one of a newer agent becomes a `RequestError`."""
    match error:
        case [int(), str(text)]:
            code, _, sentence = text.partition(": ")
            kind = ERRORS.get(code)
            return RequestError(text) if kind is None else kind(sentence)
    return RequestError(f"the agent answered an error of a form unknown here ({type(error).__name__})")


def _result(kind: type[ResultT]) -> Callable[[Any], ResultT]:
    return lambda answer: from_wire(kind, answer)


def _verdict(answer: Any) -> Verdict:
    """The answer of either socket: the owner's also names the session."""
    return _admission(answer)[0]


def _admission(answer: Any) -> tuple[Verdict, SessionInfo | None]:
    valid, reason, session = from_wire(Verification, answer)
    if session is None:
        return from_wire(Verdict, answer), None
    return Verdict(valid, reason, *((session.audience, session.scopes) if valid else (None, None))), session


HELLO = Method("hello", _result(Hello))
GET_STATUS = Method("getStatus", _result(Status))
CREATE_TOKEN = Method("createToken", _result(CreatedToken), repeatable=False)
# One method on the wire; each caller reads as much of its answer as it asked for.
VERIFY_TOKEN = Method("verifyToken", _result(Verification))
IS_VALID = Method("verifyToken", lambda answer: from_wire(Verification, answer).valid)
JUDGE_TOKEN = Method("verifyToken", _verdict)
ADMIT_TOKEN = Method("verifyToken", _admission)
REQUEST_TOKEN = Method("requestToken", _result(RequestedToken), repeatable=False)
# With an id it only waits, so it can be repeated.
AWAIT_TOKEN = Method("requestToken", _result(RequestedToken))
LIST_REQUESTS = Method("listRequests", _result(RequestPage))
DECIDE_REQUEST = Method("decideRequest", _result(Decision), repeatable=False)
WITHDRAW_REQUEST = Method(
    "withdrawRequest", lambda answer: from_wire(Withdrawal, answer).withdrawn, repeatable=False
)
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
