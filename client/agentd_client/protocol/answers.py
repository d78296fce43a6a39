"""How to read what the agent answers, where that is more than one map. All raise `ProtocolError`."""

from __future__ import annotations

from typing import Any

from .results import (
    AuditEntry,
    AuditPage,
    Counters,
    KeyReset,
    Opener,
    SessionInfo,
    SessionPage,
    Status,
    Verdict,
    Verification,
)
from .wire import UnusableAnswerError, from_wire


def status(answer: Any) -> Status:
    """The agent at a glance."""
    found = from_wire(Status, answer)
    if isinstance(found.sessions, list):
        raise _unusable("sessions")
    return found._replace(counters=from_wire(Counters, found.counters))


def verification(answer: Any) -> Verification:
    """Whether a token is valid, and its session."""
    found = from_wire(Verification, answer)
    return found if found.session is None else found._replace(session=_session(found.session))


def verdict(answer: Any) -> Verdict:
    """Whether a token is valid, as either door answers it."""
    session = verification(answer).session
    if session is None:
        return from_wire(Verdict, answer)
    found = from_wire(Verdict, answer | {"audience": session.audience, "scopes": session.scopes})
    return found if found.valid else found._replace(audience=None, scopes=None)


def _session(answer: Any) -> SessionInfo:
    session = from_wire(SessionInfo, answer)
    if session.opened_by is not None:
        session = session._replace(opened_by=from_wire(Opener, session.opened_by))
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


def _unusable(name: str) -> UnusableAnswerError:
    return UnusableAnswerError(f"the agent's answer has no usable field {name!r}")
