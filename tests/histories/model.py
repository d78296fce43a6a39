"""What the agent is, one operation after the other: keys, sessions and tokens as a few immutable values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from agentd.sessions.rules import EXPIRY_LEEWAY_SECONDS, MAX_OVERLAPS, OVERLAP_SECONDS
from agentd_client.protocol import reasons
from agentd_client.protocol.limits import MAX_DEPTH

DONE = "done"
PARENT_NOT_VALID, NOT_WITHIN_PARENT, TOKEN_NOT_VALID = (
    "PARENT_NOT_VALID",
    "NOT_WITHIN_PARENT",
    "TOKEN_NOT_VALID",
)


class Judged(NamedTuple):
    """An answer about a token: why it is not valid, or what its session is."""

    reason: str | None
    generation: int = 0
    uses: int | None = None


@dataclass
class Operation:
    """One operation of a history. Its number is also that of the session and of the token that it makes.

    subject: the number of a token; of a session for `look` and `end`; None for a session with none above it.
    invoked, answered: when, on a counter that never stands still.
    answer: None where it was lost; then the operation was carried out by `answered`, or never.
    is_beside_reset: whether a reset was under way at the same time.
    """

    number: int
    kind: str
    subject: int | None = None
    lasts: int | None = None
    uses: int | None = None
    invoked: int = 0
    answered: int = 0
    answer: object = None
    is_beside_reset: bool = False


class Session(NamedTuple):
    key: int
    generation: int
    made: float
    lasts: float | None
    expires: float | None
    uses: int | None
    above: tuple[int, ...]
    superseded: float | None = None
    overlaps: tuple[float, ...] = ()
    is_there: bool = True

    def superseded_since(self, generation: int) -> float | None:
        """When the generation after it was first seen; None where it was not, -inf where that is forgotten."""
        behind = self.generation - generation
        if behind < 2:
            return self.superseded if behind else None
        return self.overlaps[behind - 2] if behind - 2 < len(self.overlaps) else -inf


class Token(NamedTuple):
    session: int
    generation: int
    expires: float | None


class State(NamedTuple):
    """key: the number of the reset that made it. overlap_is_known: whether the model's time is the agent's."""

    now: float
    overlap_is_known: bool = True
    key: int = -1
    earlier: int | None = None
    earlier_until: float = 0.0
    sessions: dict[int, Session] = {}  # noqa: RUF012 - never changed: `with_session` copies
    tokens: dict[int, Token] = {}  # noqa: RUF012

    @property
    def frozen(self) -> object:
        return self[:5], frozenset(self.sessions.items()), frozenset(self.tokens.items())

    def with_session(self, number: int, session: Session) -> State:
        return self._replace(sessions=self.sessions | {number: session})

    def with_token(self, number: int, session: int) -> State:
        known = self.sessions[session]
        return self._replace(tokens=self.tokens | {number: Token(session, known.generation, known.expires)})

    def counts(self, key: int) -> bool:
        return key == self.key or (key == self.earlier and self.now < self.earlier_until)

    def is_over(self, expires: float | None) -> bool:
        return expires is not None and self.now >= expires + EXPIRY_LEEWAY_SECONDS

    def stands(self, session: Session) -> bool:
        return session.is_there and all(self.sessions[above].is_there for above in session.above)


Found = tuple[object, State]
"""An answer that would be right, and what it leaves behind."""


def steps(state: State, operation: Operation) -> list[State]:
    """Every state in which the operation may leave this one with the answer that it gave; none: it is wrong."""
    found = KINDS[operation.kind](state, operation)
    return [after for answer, after in found if operation.answer in (None, answer)]


def _refusals(state: State, token: Token) -> list[str | None]:
    """Why a token is not valid, None where it is; several where either is right."""
    session = state.sessions[token.session]
    ended = reasons.EXPIRED if state.is_over(token.expires) else reasons.REVOKED
    if not state.counts(session.key):  # what was ended before may be told so still: both are true
        return [reasons.KEY_RESET, *([] if state.stands(session) else [ended])]
    if not state.stands(session):
        return [ended]
    if state.is_over(session.expires):
        return [reasons.EXPIRED]
    used_up = reasons.USED_UP if session.uses == 0 else None
    since = session.superseded_since(token.generation)
    if since is None:
        return [used_up]
    if since > -inf and not state.overlap_is_known:
        return [reasons.SUPERSEDED, used_up]
    return [reasons.SUPERSEDED if state.now >= since + OVERLAP_SECONDS else used_up]


def _judgements(state: State, operation: Operation) -> list[tuple[Judged, Token, Session]]:
    token = state.tokens[operation.subject]
    session = state.sessions[token.session]
    return [
        (Judged(reason) if reason else Judged(None, session.generation, session.uses), token, session)
        for reason in _refusals(state, token)
    ]


def verify(state: State, operation: Operation) -> list[Found]:
    found: list[Found] = []
    for judged, token, session in _judgements(state, operation):
        if judged.reason is not None:
            found.append((judged, state))
            continue
        after = session
        if token.generation == session.generation > 0 and session.superseded is None:
            after = after._replace(superseded=state.now)
        if session.uses is not None:
            after = after._replace(uses=session.uses - 1)
        found.append((judged._replace(uses=after.uses), state.with_session(token.session, after)))
    return found


def inspect(state: State, operation: Operation) -> list[Found]:
    return [(judged, state) for judged, _, _ in _judgements(state, operation)]


def look(state: State, operation: Operation) -> list[Found]:
    """Inspecting by id."""
    session = state.sessions[operation.subject]
    if not state.counts(session.key) or not state.stands(session):
        return [(Judged(reasons.REVOKED), state)]
    if state.is_over(session.expires):  # swept or not
        return [(Judged(reasons.EXPIRED), state), (Judged(reasons.REVOKED), state)]
    if session.uses == 0:
        return [(Judged(reasons.USED_UP), state)]
    return [(Judged(None, session.generation, session.uses), state)]


def create(state: State, operation: Operation) -> list[Found]:
    lasts, uses, above = operation.lasts, operation.uses, ()
    expires = None if lasts is None else state.now + lasts
    if operation.subject is not None:
        token = state.tokens[operation.subject]
        parent = state.sessions[token.session]
        refusals = [None if reason == reasons.USED_UP else reason for reason in _refusals(state, token)]
        if parent.key != state.key or None not in refusals:
            return [(PARENT_NOT_VALID, state)]
        assert refusals == [None] or not state.overlap_is_known
        refused = [(PARENT_NOT_VALID, state)] if len(refusals) > 1 else []
        if len(parent.above) >= MAX_DEPTH or (
            parent.uses is not None and (uses is None or uses > parent.uses)
        ):
            return [(NOT_WITHIN_PARENT, state), *refused]
        before = state
        if parent.uses is not None:
            state = state.with_session(token.session, parent._replace(uses=parent.uses - uses))
        expires = _earlier(expires, parent.expires)
        above = (*parent.above, token.session)
        made = Session(state.key, 0, state.now, lasts, expires, uses, above)
        after = state.with_session(operation.number, made).with_token(operation.number, operation.number)
        return [(DONE, after), *((answer, before) for answer, _ in refused)]
    made = Session(state.key, 0, state.now, lasts, expires, uses, above)
    return [(DONE, state.with_session(operation.number, made).with_token(operation.number, operation.number))]


def renew(state: State, operation: Operation) -> list[Found]:
    token = state.tokens[operation.subject]
    session = state.sessions[token.session]
    found: list[Found] = []
    for reason in _refusals(state, token):
        if reason not in (None, reasons.USED_UP) or session.key != state.key:
            found.append((TOKEN_NOT_VALID, state))
            continue
        after = state
        if token.generation == session.generation:
            after = state.with_session(token.session, _renewed(state, session))
        found.append((DONE, after.with_token(operation.number, token.session)))
        if operation.is_beside_reset:  # renewed, then reset, and with that key no token can be made any more
            found.append((TOKEN_NOT_VALID, after))
    return found


def _renewed(state: State, session: Session) -> Session:
    lasts = session.lasts
    if lasts is None and session.expires is not None:
        lasts = session.expires - session.made
    expires = None if lasts is None else state.now + lasts
    if session.above:
        expires = _earlier(expires, state.sessions[session.above[-1]].expires)
    overlaps: tuple[float, ...] = ()
    if session.generation > 0:
        seen = state.now if session.superseded is None else session.superseded
        times = (seen, *session.overlaps)
        overlaps = tuple(since for since in times if state.now < since + OVERLAP_SECONDS)[:MAX_OVERLAPS]
    return session._replace(
        generation=session.generation + 1, expires=expires, superseded=None, overlaps=overlaps
    )


def revoke(state: State, operation: Operation) -> list[Found]:
    return _ended(state, state.tokens[operation.subject].session)


def end(state: State, operation: Operation) -> list[Found]:
    """Revoking by id."""
    return _ended(state, operation.subject)


def _ended(state: State, number: int) -> list[Found]:
    session = state.sessions[number]
    if not session.is_there or not state.counts(session.key):
        return [(False, state)]
    after = state.with_session(number, session._replace(is_there=False))
    if state.is_over(session.expires) or not state.stands(session):  # its record may have been swept
        return [(True, after), (False, after)]
    return [(True, after)]


def reset(state: State, operation: Operation) -> list[Found]:
    if operation.lasts is None:
        return [(DONE, state._replace(key=operation.number, earlier=None, earlier_until=0.0))]
    until = state.now + operation.lasts
    return [(DONE, state._replace(key=operation.number, earlier=state.key, earlier_until=until))]


def advance(state: State, operation: Operation) -> list[Found]:
    return [(DONE, state._replace(now=state.now + operation.lasts))]


def tidy(state: State, operation: Operation) -> list[Found]:
    """Sweeping, writing notes: nobody sees a difference."""
    return [(DONE, state)]


KINDS = {
    each.__name__: each for each in (verify, inspect, look, create, renew, revoke, end, reset, advance, tidy)
}


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)
