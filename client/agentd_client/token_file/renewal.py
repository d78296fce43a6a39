"""Renewal on use: a session in use is extended up to its hard maximum, without anybody renewing it by hand.

The work is written once, as steps, for the blocking and the async client. A step works with the token file
or calls the agent; the client that runs the steps does each in its own way. A client that gives up (an
interruption, a cancellation) closes the steps, which release the file's lock.

A failed renewal does not affect the call it is part of: the present token was verified. A token that was
renewed but not written (the disk is full, the answer was lost) does no harm: the agent accepts the token in
the file until it has seen the new one, and renewing again gives the same one again.
"""

from __future__ import annotations

from _thread import allocate_lock
from functools import partial

from ..errors import AgentdError
from ..protocol import methods, reasons
from ..protocol.methods import sendable_scopes
from ..protocol.results import ACTIVE, SessionInfo, Verification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, NamedTuple, TypeVar

    from ..protocol.methods import Call
    from ..session import Session
    from . import TokenClaim

    T = TypeVar("T")
else:
    from ..light_typing import NamedTuple

NOT_LOGGED_IN = Verification(valid=False, reason="NOT_LOGGED_IN", session=None)
"""The answer if the session has no token to ask about. The agent itself never gives it."""

RENEWED_AFTER = 2 / 3
"""The part of the lifetime that passes first. A third is left to try again if the agent or the disk fails."""

ANSWER_SECONDS = 2.0
"""How long the agent may take. Less than other writers wait for the lock, which is held meanwhile."""

_LONGEST_PAUSE_SECONDS = 60.0

_INSPECTION_PAUSE_SECONDS = 5.0
"""How long an agent that could not be asked about a token is not asked again."""


class Ask(NamedTuple):
    """A call to the agent; `seconds` is the most it may take, if that is less than usual."""

    call: Call[Any]
    seconds: float | None = None


if TYPE_CHECKING:
    FileWork = Callable[[], Any]
    """Work on the token file. It may block, so async code does it in a thread."""

    Steps = Generator[FileWork | Ask, Any, T]


def is_due(session: SessionInfo, now: float) -> bool:
    """Whether a session that is valid should be renewed now (seconds since 1970).

    Not before two thirds of its present lifetime, and never if that gains nothing: it never expires, it
    already lasts to its hard maximum, or it was used for the last time.
    """
    if session.expires_at is None or session.uses_left == 0:
        return False
    if session.max_expires_at is not None and session.expires_at >= session.max_expires_at:
        return False
    began = max(session.renewed_at, session.created_at)
    return now >= began + RENEWED_AFTER * (session.expires_at - began)


def pause_after_failure(session: SessionInfo, now: float) -> float:
    """How many seconds to pause after a failed attempt, so that not every use makes another.

    An eighth of the time that is left, at most a minute: that leaves several attempts before the end.
    """
    left = 0.0 if session.expires_at is None else session.expires_at - now
    return min(max(left, 0.0) / 8, _LONGEST_PAUSE_SECONDS)


def check(
    session: Session, audience: str | None, scopes: Sequence[str] | None, clock: Callable[[], float]
) -> Steps[Verification]:
    """Verify the session's token, and renew it if that is due: `Client.check_session`."""
    token: str | None = yield session.read_token
    if token is None:
        return NOT_LOGGED_IN
    verify = partial(methods.VERIFY_TOKEN.call, audience=audience, scopes=sendable_scopes(scopes))
    found: Verification = yield Ask(verify(token=token))
    if not found.valid:
        other: str | None = yield session.read_token
        if other is None or other == token:
            return found
        # Another process renewed or logged in since the file was read.
        token, found = other, (yield Ask(verify(token=other)))
    info = found.session
    if found.valid and info is not None and is_due(info, now := clock()) and session._may_renew(now):
        yield from _renew(session, token, info, now)
    return found


class Known:
    """What a program that only sends tokens knows of the one in the file. Thread-safe."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._token: str | None = None
        self._session: SessionInfo | None = None

    def is_new(self, token: str) -> bool:
        """Whether the caller has to ask the agent about this token: True once, until `forget`."""
        with self._lock:
            if token == self._token:
                return False
            self._token, self._session = token, None
            return True

    def learn(self, token: str, found: Verification) -> None:
        """Keep what the agent said of a token."""
        # A session with an audience is not meant for this program, which may renew it all the same.
        is_renewable = found.valid or found.reason == reasons.WRONG_AUDIENCE
        with self._lock:
            if token == self._token and is_renewable:
                self._session = found.session

    def forget(self, token: str) -> None:
        """Ask again about this token."""
        with self._lock:
            if token == self._token:
                self._token = None

    def is_due(self, token: str, now: float) -> SessionInfo | None:
        """The token's session if it is to be renewed now."""
        with self._lock:
            info = self._session if token == self._token else None
        if info is None or info.state != ACTIVE or (info.expires_at is not None and now >= info.expires_at):
            return None
        return info if is_due(info, now) else None


def sendable(session: Session, known: Known, clock: Callable[[], float]) -> Steps[str | None]:
    """Read the token in order to send it, and renew the session first if that is due.

    This is no use of the session. The agent is asked once about each token, and for the renewal.
    """
    token: str | None = yield session.read_token
    now = clock()
    if token is None or not session._may_renew(now):
        return token
    if known.is_new(token):
        try:
            found = yield Ask(methods.INSPECT_TOKEN.call(token=token), ANSWER_SECONDS)
        except BaseException as error:  # also an interruption, a cancellation
            known.forget(token)
            if not isinstance(error, AgentdError):
                raise
            session._pause_renewing(now, _INSPECTION_PAUSE_SECONDS)
            return token
        known.learn(token, found)
    info = known.is_due(token, now)
    if info is not None:
        yield from _renew(session, token, info, now)
        token = yield session.read_token
    return token


def _renew(session: Session, token: str, info: SessionInfo, now: float) -> Steps[None]:
    claim: TokenClaim = session._claim_token()
    try:
        # False: another process is renewing, or has renewed since the file was read.
        if (yield partial(claim.take, token)):
            created = yield Ask(methods.RENEW_TOKEN.call(token=token), ANSWER_SECONDS)
            yield partial(claim.replace, created.token)
    except AgentdError:
        session._pause_renewing(now, pause_after_failure(info, now))
    finally:
        claim.release()


def follow(steps: Steps[T], carry_out: Callable[[Call[Any], float | None], Any]) -> T:
    """Run steps to their end; returns and raises what they do.

    `carry_out` makes a call to the agent within so many seconds; None is the client's own timeout.
    """
    try:
        step = next(steps)
        while True:
            try:
                done = step() if callable(step) else carry_out(step.call, step.seconds)
            except AgentdError as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()  # after an interruption: this releases the token file
