"""What the view shows, fed by the agent's answers and events. It asks nothing and draws nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..protocol.results import (
    APPROVED,
    CREATED,
    DENIED,
    FORGOTTEN,
    KEY_RESET,
    LOCKED,
    MISSED,
    REFUSED,
    RENEWED,
    REQUEST_EXPIRED,
    REQUESTED,
    REVOKED,
    SESSION_EXPIRED,
    UNLOCKED,
    WAITING,
    WITHDRAWN,
    AuditEntry,
    Event,
    RequestInfo,
    Status,
)
from .activity import Activity
from .sessions import Sessions

MAX_HAPPENINGS = 500
"""How many lines of what happened are kept."""

_OF_SESSIONS = {CREATED, RENEWED}
_OF_REQUESTS = {REQUESTED, APPROVED, DENIED, REQUEST_EXPIRED, WITHDRAWN, FORGOTTEN}


class Happening(NamedTuple):
    """An event, an entry of the audit log, or several of the same in a row.

    about: the id of the session, or of the request if there is no session. request: it is about a request, so
    its label is an asker's word. exe: the program of the process, where that is known.
    """

    at: float
    kind: str
    about: str
    label: str
    reason: str | None
    pid: int | None
    exe: str | None = None
    times: int = 1
    request: bool = False

    def is_same(self, other: Happening) -> bool:
        """Whether the other differs in nothing but when and how often."""
        return self._replace(at=other.at, times=other.times) == other


class Wanted(NamedTuple):
    """What to ask the agent for after an event.

    session_id: of a session of which little is known. everything: all sessions. requests: the requests.
    """

    session_id: str | None = None
    everything: bool = False
    requests: bool = False


class Model:
    """The state of the view.

    appended: how many happenings there were, of which the last are kept. trouble: why the agent cannot be
    asked; None if it can. is_connected: whether it could be since the last trouble.
    """

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.requests: list[RequestInfo] = []
        self.happenings: deque[Happening] = deque(maxlen=MAX_HAPPENINGS)
        self.appended = 0
        self.activity = Activity()
        self.status: Status | None = None
        self.trouble: str | None = None
        self.is_connected = False
        self._agent_id: str | None = None

    @property
    def is_locked(self) -> bool:
        """Whether the agent is known to be locked."""
        return self.status is not None and self.status.locked

    @property
    def waiting(self) -> int:
        """How many requests wait for a person."""
        return sum(request.state == WAITING for request in self.requests)

    def request(self, request_id: str) -> RequestInfo | None:
        """The request, if it is still there."""
        return next((request for request in self.requests if request.id == request_id), None)

    def connect(self) -> None:
        """The agent answers; what happens is told from now on."""
        self.trouble, self.is_connected = None, True

    def lose(self, trouble: str) -> None:
        """The agent cannot be asked. The sessions stay in its store; requests live in its memory only."""
        self.trouble, self.is_connected = trouble, False
        self.requests = []
        self.activity.interrupt()

    def take_status(self, status: Status, at: float, own: int) -> None:
        """Take a new status; `at` and `own` as for `Activity.sample`."""
        if self.status is not None and self.status.started_at != status.started_at:
            self.activity.interrupt()
        if status.agent_id is not None:
            if self._agent_id not in (None, status.agent_id):
                self.sessions.clear()
            self._agent_id = status.agent_id
        self.status = status
        if status.locked:
            self.requests = []
        self.activity.sample(at, status.counters.requests, own)

    def take_requests(self, requests: Iterable[RequestInfo]) -> None:
        """Take all requests: those that wait first, then the remembered ones, both the oldest first."""
        self.requests = sorted(requests, key=lambda request: (request.state != WAITING, request.asked_at))

    def take_audit(self, entries: Iterable[AuditEntry]) -> None:
        """Take what happened before, newest first."""
        for entry in reversed(list(entries)):
            self._note(
                Happening(
                    entry.until,
                    entry.kind,
                    entry.session_id or entry.request_id or "",
                    entry.label,
                    entry.reason,
                    entry.peer_pid,
                    entry.peer_exe,
                    entry.times,
                    entry.request_id is not None,
                )
            )

    def take_event(self, event: Event) -> Wanted:
        """Take an event; returns what has to be asked for to show its effect."""
        if event.missed:
            self._note(Happening(event.at, MISSED, "", "", None, None, times=event.missed))
        if event.kind != MISSED:
            self._note(
                Happening(
                    event.at,
                    event.kind,
                    event.session_id or event.request_id or "",
                    event.label,
                    event.reason,
                    event.peer_pid,
                    request=event.request_id is not None,
                )
            )
        wanted = self._apply(event)
        return wanted._replace(everything=True, requests=True) if event.missed else wanted

    def _apply(self, event: Event) -> Wanted:
        kind, session_id = event.kind, event.session_id
        if kind == REFUSED:
            self.activity.count_refused()
        elif kind == REVOKED and session_id is not None:
            self.sessions.end(session_id)
        elif kind == SESSION_EXPIRED and session_id is not None:
            self.sessions.expire(session_id)
        elif kind in (LOCKED, UNLOCKED):
            return self._locked(event)
        elif kind == KEY_RESET:
            return Wanted(everything=True)
        elif kind in _OF_SESSIONS or kind in _OF_REQUESTS:
            return Wanted(session_id, requests=kind in _OF_REQUESTS)
        return Wanted()

    def _locked(self, event: Event) -> Wanted:
        is_locked = event.kind == LOCKED
        if self.status is not None:
            since, why = (event.at, event.reason) if is_locked else (None, None)
            self.status = self.status._replace(locked=is_locked, locked_at=since, lock_reason=why)
        if is_locked:
            self.requests = []
        return Wanted(everything=not is_locked, requests=not is_locked)

    def _note(self, happening: Happening) -> None:
        last = self.happenings[-1] if self.happenings else None
        if last is not None and last.is_same(happening):
            self.happenings[-1] = happening._replace(times=last.times + happening.times)
        else:
            self.happenings.append(happening)
            self.appended += 1
