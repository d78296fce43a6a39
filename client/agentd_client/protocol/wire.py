"""Python names and wire names, snake_case and camelCase, spelled from one root; and how answers are read.

This file and `methods.py` are the only ones that know how a thing is called on the wire.
"""

from __future__ import annotations

from ..errors import ERRORS, AgentdError, ProtocolError, RequestError
from .results import (
    AuditEntry,
    AuditPage,
    Counters,
    KeyReset,
    PeerIdentity,
    SessionInfo,
    SessionPage,
    Status,
    Verdict,
    Verification,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple, TypeVar

    ResultT = TypeVar("ResultT", bound=NamedTuple)

_Text = (str,)
_Number = (int, float)
_MaybeText = (str, type(None))
_MaybeNumber = (int, float, type(None))
_MaybeInt = (int, type(None))
_MaybeList = (list, type(None))
_MaybeMap = (dict, type(None))

# One vocabulary: a field of this name has this type in whatever result it stands, and none derived from it: a
# bool is no int.
_TYPES: dict[str, tuple[type, ...]] = {
    "agent_id": _MaybeText,
    "at": _Number,
    "audience": _MaybeList,
    "bound_pid": _MaybeInt,
    "capabilities": (list,),
    "commits": (int,),
    "connections": (int,),
    "connections_cut_off": (int,),
    "connections_open": (int,),
    "counters": (dict,),
    "created_at": _Number,
    "ended": (int,),
    "entries": (list,),
    "exe": _MaybeText,
    "expires_at": _MaybeNumber,
    "generation": (int,),
    "id": _Text,
    "key_id": _MaybeText,
    "kind": _Text,
    "label": _Text,
    "last_used_at": _MaybeNumber,
    "lock_reason": _MaybeText,
    "locked": (bool,),
    "locked_at": _MaybeNumber,
    "max_expires_at": _MaybeNumber,
    "memory_locked": (bool,),
    "memory_secret": (bool, type(None)),
    "missed": (int,),
    "next": _MaybeText,
    "opened_by": _MaybeMap,
    "parent": _MaybeText,
    "peer_exe": _MaybeText,
    "peer_pid": _MaybeInt,
    "peer_uid": _MaybeInt,
    "peers_refused": (int,),
    "pid": (int,),
    "protected": (bool,),
    "protocol": (int,),
    "reason": _MaybeText,
    "refusals": (int,),
    "renewed_at": _Number,
    "requests": (int,),
    "revoked": (bool,),
    "server": _Text,
    "scopes": _MaybeList,
    "session": _MaybeMap,
    "session_id": _MaybeText,
    "sessions": (int, list, type(None)),
    "socket_path": _Text,
    "started_at": _Number,
    "state": _Text,
    "store_bytes": _MaybeInt,
    "store_path": _Text,
    "subscribed": (bool,),
    "times": (int,),
    "token": _Text,
    "uid": (int,),
    "unit": _MaybeText,
    "until": _Number,
    "uptime_seconds": _Number,
    "uses_left": _MaybeInt,
    "valid": (bool,),
    "version": _Text,
    "wrong_passphrases": (int,),
}


class UnusableAnswerError(ProtocolError):
    """The agent answered, and not what this client knows as the answer: perhaps one of another version."""


def camel(name: str) -> str:
    """`created_at` -> `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


_CAMEL = {name: camel(name) for name in _TYPES}


_fields: dict[type[Any], tuple[list[str], list[str]]] = {}
"""Of each kind of result the wire names of its fields, and of those that may hold results or lists."""


def _fields_of(kind: type[Any]) -> tuple[list[str], list[str]]:
    holding = [_CAMEL[field] for field in kind._fields if {list, dict} & {*_TYPES[field]}]
    return _fields.setdefault(kind, ([_CAMEL[field] for field in kind._fields], holding))


def to_wire(result: Any) -> dict[str, Any]:
    """A result (a named tuple) as the map that goes over the wire."""
    kind = type(result)
    names, holding = _fields.get(kind) or _fields_of(kind)
    wire = dict(zip(names, result, strict=True))
    for name in holding:
        value = wire[name]
        if type(value) is list:
            wire[name] = [to_wire(item) if hasattr(item, "_fields") else item for item in value]
        elif hasattr(value, "_fields"):
            wire[name] = to_wire(value)
    return wire


def from_wire(kind: type[ResultT], value: object) -> ResultT:
    """The named tuple of a received map.

    Fields that a newer agent added are passed over. One that an older agent does not send yet has the named
    tuple's default, so every field that is added to a result needs one.

    Raises:
        UnusableAnswerError: where a field is missing or of the wrong type.
    """
    if not isinstance(value, dict):
        raise UnusableAnswerError(f"the agent's answer is not a map but {type(value).__name__}")
    found = []
    for name, types, default in _readable.get(kind) or _readable_of(kind):
        item = value.get(name, default)
        if type(item) not in types:
            raise _unusable(name)
        found.append(item)
    return kind._make(found)


_readable: dict[type[Any], list[tuple[str, tuple[type, ...], Any]]] = {}
"""Of each kind of result, for each field: its wire name, its types, and what it is where it is missing."""


def _readable_of(kind: type[Any]) -> list[tuple[str, tuple[type, ...], Any]]:
    defaults = kind._field_defaults
    fields = [(_CAMEL[field], _TYPES[field], defaults.get(field)) for field in kind._fields]
    return _readable.setdefault(kind, fields)


def _unusable(name: str) -> UnusableAnswerError:
    return UnusableAnswerError(f"the agent's answer has no usable field {name!r}")


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


# What is more than one map. All of these raise `UnusableAnswerError`.


def status(answer: Any) -> Status:
    """The agent at a glance."""
    found = from_wire(Status, answer)
    if isinstance(found.sessions, list):
        raise _unusable("sessions")
    return found._replace(counters=from_wire(Counters, found.counters))


def verification(answer: Any) -> Verification:
    """Whether a token is valid, and its session."""
    valid, reason, session = from_wire(Verification, answer)
    return Verification(valid, reason, None if session is None else _session(session))


def is_valid(answer: Any) -> bool:
    """Whether a token is valid, and nothing more; the rest of the answer is checked as well."""
    return verification(answer).valid


def verdict(answer: Any) -> Verdict:
    """Whether a token is valid, as either socket answers."""
    session = verification(answer).session
    if session is None:
        return from_wire(Verdict, answer)
    found = from_wire(Verdict, answer | {"audience": session.audience, "scopes": session.scopes})
    return found if found.valid else found._replace(audience=None, scopes=None)


def _session(answer: Any) -> SessionInfo:
    session = from_wire(SessionInfo, answer)
    if session.opened_by is not None:
        session = session._replace(opened_by=from_wire(PeerIdentity, session.opened_by))
    return session


def session_page(answer: Any) -> SessionPage:
    """Some sessions."""
    found = from_wire(SessionPage, answer)
    if not isinstance(found.sessions, list):  # getStatus has a number of that name
        raise _unusable("sessions")
    return found._replace(sessions=[_session(session) for session in found.sessions])


def audit_page(answer: Any) -> AuditPage:
    """Some entries of the audit log."""
    found = from_wire(AuditPage, answer)
    return found._replace(entries=[from_wire(AuditEntry, entry) for entry in found.entries])


def key_id(answer: Any) -> str:
    """The id of the new session key."""
    found: str | None = from_wire(KeyReset, answer).key_id
    if found is None:  # as getStatus may answer, of an agent that is locked
        raise _unusable("keyId")
    return found
