"""The book of requests: which ones there are, and how each comes to its end."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import trio

from agentd_client.errors import (
    AgentdError,
    AgentLockedError,
    CannotBindError,
    NoSuchRequestError,
    RequestExpiredError,
    TooManyRequestsError,
)
from agentd_client.protocol.reasons import PROCESS_ENDED
from agentd_client.protocol.results import FORGOTTEN, LOCKED, REQUEST_EXPIRED, REQUESTED, WITHDRAWN

from ..process_watch import ProcessWatch
from .remembered import RememberedApprovals

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    from agentd_client.protocol.results import PeerIdentity, RequestedToken

    from ..sessions import Clock, Instant, SessionManager
    from .asker import Asker
    from .request import Request

MAX_CALLS = 8
"""Calls that wait for the same request; each is a task."""

MAX_ENDED = 64
"""Requests that ended without a session, and whose askers can still learn why by polling."""

COLLECTED_SECONDS = 10.0
"""How long a collected token can be collected again, because the answer may have been lost."""

TICK_SECONDS = 1.0
"""How often the ends of requests are looked at, while there are any. trio's clock stands still while the
machine is suspended; the clocks that count do not."""

SHIELDED_SECONDS = 5.0
"""How long a decision that is being carried out cannot be cancelled. A disk that hangs must not hold up a
stop, whose drain is about as long."""

CLOSING_SECONDS = 1.0
"""For decisions that are being carried out when the agent is locked or stops, and for ending the sessions
that nobody has collected."""


class RequestBook:
    """The requests that wait or were granted, and the approvals that are remembered.

    A request ends with its process, at its time, by withdrawal, by a denial, or once its token is collected.
    Each end is reported in one place. Enter it with `async with`, and `run` it.
    """

    def __init__(self, manager: SessionManager, clock: Clock, logger: logging.Logger | None) -> None:
        self._manager = manager
        self._clock = clock
        self._watch = ProcessWatch(logger)
        self.remembered = RememberedApprovals()
        self._requests: dict[str, Request] = {}  # the oldest first
        self._ended: OrderedDict[str, Request] = OrderedDict()
        self._is_used = trio.Event()  # there is something whose end has to be noticed
        self._decisions: dict[trio.CancelScope, float] = {}  # being carried out, and until when shielded
        self._decision_over = trio.lowlevel.ParkingLot()
        self._closing_reason: str | None = None
        self.closed: AgentdError | None = None
        """Why no request is taken any more; None while they are."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close(AgentLockedError(), LOCKED)
        with trio.move_on_after(CLOSING_SECONDS, shield=True):
            while self._decisions:
                await self._decision_over.park()
            for request in tuple(self._requests.values()):
                await self._take_back(request)
        for request in self.undecided():  # the disk hangs
            self._end_closed(request)
        self._requests.clear()
        self._watch.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End requests with their processes and at their time, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch.run, self._asker_ended)
            task_status.started()
            while True:
                await self._is_used.wait()
                await self._end_overdue()
                self._unshield()
                if self._requests or self._decisions or any(self.remembered):
                    await trio.sleep(TICK_SECONDS)
                else:
                    self._is_used = trio.Event()

    def close(self, error: AgentdError, reason: str) -> None:
        """End every waiting request with this error, and take none any more.

        What is being decided at the moment is still decided.
        """
        if self.closed is None:
            self.closed, self._closing_reason = error, reason
        for request in self.undecided():
            if request.is_waiting:
                self._end_closed(request)

    def require_open(self) -> None:
        """Raise the error that the book was closed with, if it was."""
        if self.closed is not None:
            raise type(self.closed)(self.closed.sentence)

    # --- looking ---

    def undecided(self) -> list[Request]:
        """The requests without an outcome, also those that are being decided."""
        return [request for request in self._requests.values() if not request.decided.is_set()]

    def waiting(self) -> Iterator[Request]:
        """The requests that a person can decide about, the oldest first."""
        now = self._clock.read()
        return (each for each in self._requests.values() if each.is_waiting and not each.is_over(now))

    def find_waiting(self, request_id: str) -> Request:
        """The waiting request with that id; NoSuchRequestError says what became of another."""
        request = self._requests.get(request_id)
        if request is None:
            ended = self._ended.get(request_id)
            if ended is None or ended.error is None:
                raise NoSuchRequestError
            raise NoSuchRequestError(f"it does not wait any more: {ended.error.sentence}")
        if not request.is_waiting:
            raise NoSuchRequestError("it does not wait any more: it was approved")
        if request.is_over(self._clock.read()):
            raise NoSuchRequestError("it does not wait any more: it has expired")
        return request

    def find_of(self, asker: Asker, request_id: str) -> Request:
        """A request of that process over that socket, also an ended one; NoSuchRequestError if none."""
        request = self._requests.get(request_id) or self._ended.get(request_id)
        if request is None or not request.is_from(asker):
            raise NoSuchRequestError("this process has made no request of that id, or it ended long ago")
        return request

    # --- a request's life ---

    def add(self, request: Request) -> None:
        """Take a new request, which ends with its process; CannotBindError if that end cannot be noticed."""
        if not self._watch.watch(request.id, request.asker.process):
            raise CannotBindError(
                "the process that made this connection has ended, or the agent cannot see it; nobody was "
                "asked: connect from the process that waits"
            )
        self._requests[request.id] = request
        self._is_used.set()
        self.report(REQUESTED, request, by=request.asker.identity)

    async def outcome(
        self, request: Request, wait: float, hung_up: trio.CancelScope | None
    ) -> RequestedToken:
        """Wait for a request's outcome for so many seconds, or until nobody waits for the answer any more.

        Raises:
            TooManyRequestsError: too many calls wait for it.
            AgentdError: the request ended without a session.
        """
        if request.calls >= MAX_CALLS:
            raise TooManyRequestsError(f"{MAX_CALLS} calls of this process wait for this request already")
        request.calls += 1
        try:
            with hung_up or trio.CancelScope() as scope, trio.move_on_after(wait):
                await request.decided.wait()
        finally:
            request.calls -= 1
        outcome = request.outcome()
        if outcome.token is not None and not scope.cancelled_caught and request.collected_at is None:
            request.collected_at = self._clock.read().boot
        return outcome

    @contextmanager
    def deciding(self, request: Request) -> Iterator[None]:
        """Carry out a decision inside, which may fail; nobody else can decide meanwhile."""
        request.is_deciding = True
        # Shielded: a session that is written must reach its asker, even if whoever decided goes away.
        with trio.CancelScope(shield=True) as scope:
            self._decisions[scope] = trio.current_time() + SHIELDED_SECONDS
            try:
                yield
            finally:
                request.is_deciding = False
                del self._decisions[scope]
                self._decision_over.unpark_all()
                if self.closed is not None and not request.decided.is_set():
                    self._end_closed(request)

    async def grant(self, request: Request, granted: RequestedToken) -> bool:
        """Hand over a session; False if the request has ended meanwhile, and the session with it."""
        request.granted = granted
        if request.decided.is_set():
            await self._take_back(request)
            return False
        request.decided.set()
        return True

    def end(
        self,
        request: Request,
        error: AgentdError,
        kind: str,
        *,
        by: PeerIdentity | None = None,
        reason: str | None = None,
    ) -> None:
        """End a request without a session: with an error for its asker, and an event of this kind."""
        del self._requests[request.id]
        self._watch.forget(request.id)
        request.error = error
        request.decided.set()
        self._ended[request.id] = request
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self.report(kind, request, by=by, reason=reason)

    def report(
        self, kind: str, request: Request, *, by: PeerIdentity | None = None, reason: str | None = None
    ) -> None:
        """Publish and audit what happened to a request."""
        with suppress(AgentdError):  # the manager has stopped
            self._manager.report_request(
                kind, request.id, request.ask.label, by=by, asked_by=request.asker.identity, reason=reason
            )

    def _unshield(self) -> None:
        for scope, until in self._decisions.items():
            scope.shield = trio.current_time() < until

    def _end_closed(self, request: Request) -> None:
        assert self.closed is not None
        self.end(request, self.closed, WITHDRAWN, reason=self._closing_reason)

    async def _take_back(self, request: Request) -> None:
        """End the session of a granted request that its asker has not collected."""
        granted, request.granted = request.granted, None
        if granted is not None and request.collected_at is None:
            with suppress(AgentdError):  # it ends at its time
                await self._manager.revoke_token(id=granted.session_id)

    async def _asker_ended(self, request_id: str) -> None:
        request = self._requests.get(request_id)
        if request is None:
            return
        if request.decided.is_set():
            del self._requests[request_id]
            await self._take_back(request)
        else:
            self.end(request, NoSuchRequestError("its process has ended"), WITHDRAWN, reason=PROCESS_ENDED)

    async def _end_overdue(self) -> None:
        now = self._clock.read()
        for approval in self.remembered.take_ended(now):
            self.report(FORGOTTEN, approval.request)
        done = []
        for request in tuple(self._requests.values()):
            if request.is_waiting and request.is_over(now):
                self.end(request, RequestExpiredError(), REQUEST_EXPIRED)
            elif request.decided.is_set() and _is_done(request, now):
                del self._requests[request.id]
                self._watch.forget(request.id)
                done.append(request)
        for request in done:  # at last, because it waits for the disk, and others may end meanwhile
            await self._take_back(request)


def _is_done(request: Request, now: Instant) -> bool:
    if request.collected_at is None:
        return request.is_over(now)
    return now.boot - request.collected_at >= COLLECTED_SECONDS
