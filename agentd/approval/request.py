"""One request for a session, from its arrival until its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from agentd_client.errors import AgentdError
from agentd_client.protocol.limits import MAX_REQUEST_SECONDS
from agentd_client.protocol.results import WAITING, RequestedToken, RequestInfo

from .asker import sandbox_of

if TYPE_CHECKING:
    from ..sessions import Instant
    from .asker import Asker, Program
    from .terms import Terms


class Ask(NamedTuple):
    """What is asked for, checked; label and reason are the asker's words."""

    terms: Terms
    label: str
    reason: str


class Request:
    """A request and its outcome.

    asked_at, until: seconds since 1970. until_boot: the same end on the clock that nobody can set. calls: how
    many calls wait for the outcome. is_deciding: a decision is being carried out. granted, error: the
    outcome; neither while there is none. collected_at: when the asker got it, on the boot clock. decided: set
    once there is an outcome.
    """

    def __init__(self, id: str, number: int, ask: Ask, asker: Asker, program: Program, now: Instant) -> None:
        self.id = id
        self.number = number
        self.ask = ask
        self.asker = asker
        self.program = program
        self.sandbox = sandbox_of(asker.process)
        self.asked_at = now.wall
        self.until = now.wall + MAX_REQUEST_SECONDS
        self.until_boot = now.boot + MAX_REQUEST_SECONDS
        self.calls = 0
        self.is_deciding = False
        self.granted: RequestedToken | None = None
        self.error: AgentdError | None = None
        self.collected_at: float | None = None
        self.decided = trio.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether a person can decide about it."""
        return not (self.is_deciding or self.decided.is_set())

    def is_over(self, now: Instant) -> bool:
        """Whether either clock has reached its end."""
        return now.wall >= self.until or now.boot >= self.until_boot

    def is_from(self, asker: Asker) -> bool:
        """Whether this process made it, over this socket."""
        return (self.asker.process, self.asker.socket) == (asker.process, asker.socket)

    def outcome(self) -> RequestedToken:
        """The token, or the request without one while it waits; raises its error."""
        if self.error is not None:
            # A new one: several calls may raise it, each with a traceback of its own.
            raise type(self.error)(self.error.sentence)
        return self.granted or RequestedToken(self.id, self.until)

    def info(self) -> RequestInfo:
        """The request as a person sees it."""
        terms = self.ask.terms
        return RequestInfo(
            id=self.id,
            state=WAITING,
            asked_at=self.asked_at,
            until=self.until,
            asker=self.asker.identity,
            sandbox=self.sandbox,
            socket=self.asker.socket,
            program=self.program.words,
            label=self.ask.label,
            reason=self.ask.reason,
            audience=terms.audience,
            scopes=terms.scopes,
            expiry=terms.seconds,
            max_uses=terms.uses,
            bound=terms.is_bound,
            calls=self.calls,
        )
