"""How often a person may be asked, so that nobody is tired out into saying yes."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from agentd_client.durations import format_duration
from agentd_client.errors import RequestDeniedError, TooManyRequestsError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .asker import Asker
    from .terms import Terms

WINDOW_SECONDS = 60.0
"""The time in which new requests are counted."""

MAX_NEW_OF_PROCESS = 4
MAX_NEW_OF_USER = 16
"""New requests within the window that a person is shown, of one process, and of one user at one socket."""

DENIED_COUNTS = 4
"""New requests of its user that a denied one counts as. A program that starts itself anew after every no
would otherwise be back sixteen times a minute."""

MAX_WAITING_OF_PROCESS = 2
MAX_WAITING_OF_USER = 8
MAX_WAITING_OF_OTHERS = 24
MAX_WAITING = MAX_WAITING_OF_USER + MAX_WAITING_OF_OTHERS
"""Requests that wait at the same time: of one process, of one user at one socket, of all at the ask socket,
and of all. A person has an overview of eight."""

MAX_UNASKED_OF_USER = 120
"""Sessions within the window that one user is granted without a person: children, and remembered approvals.
Each is a write to the store."""

DENIED_SECONDS = 60.0
"""After a no, the same request of the same program is denied for so long without asking again."""

MAX_REMEMBERED_KEYS = 256
"""Processes, users and denials that are remembered here; the oldest are forgotten first."""


class AskingLimits:
    """Counts requests by process, and by user and socket; times are of the clock that nobody can set."""

    def __init__(self) -> None:
        self._new: OrderedDict[Hashable, deque[float]] = OrderedDict()
        self._denied: OrderedDict[Hashable, float] = OrderedDict()

    def check_waiting(self, asker: Asker, waiting: list[Asker]) -> None:
        """Raise TooManyRequestsError if no more of this asker's requests may wait."""
        of_process = sum(other.process == asker.process for other in waiting)
        of_user = sum(_user(other) == _user(asker) for other in waiting)
        of_socket = sum(other.socket == asker.socket for other in waiting)
        # The owner's socket has one user, so no number of others keeps that one out.
        is_full = of_user >= MAX_WAITING_OF_USER or of_socket >= MAX_WAITING_OF_OTHERS
        if is_full or of_process >= MAX_WAITING_OF_PROCESS:
            whose = "of this process" if of_process >= MAX_WAITING_OF_PROCESS else "for sessions"
            raise TooManyRequestsError(
                f"too many requests {whose} wait for a person; wait until one of them is decided"
            )

    def count_new(self, asker: Asker, now: float) -> None:
        """Count a request that a person will be shown; TooManyRequestsError if it is one too many."""
        process, user = (asker.process, "shown"), (_user(asker), "shown")
        self._check(process, MAX_NEW_OF_PROCESS, now)
        self._check(user, MAX_NEW_OF_USER, now)
        self._count(process, MAX_NEW_OF_PROCESS, now)
        self._count(user, MAX_NEW_OF_USER, now)

    def count_unasked(self, asker: Asker, now: float) -> None:
        """Count a session that needs no person; TooManyRequestsError if it is one too many."""
        user = (_user(asker), "unasked")
        self._check(user, MAX_UNASKED_OF_USER, now)
        self._count(user, MAX_UNASKED_OF_USER, now)

    def deny(self, asker: Asker, program: Hashable, terms: Terms, now: float) -> None:
        """Remember a no: to this question of this program, and for the user's number of new requests."""
        for _ in range(DENIED_COUNTS - 1):
            self._count((_user(asker), "shown"), MAX_NEW_OF_USER, now)
        self._denied[_question(program, terms)] = now + DENIED_SECONDS
        if len(self._denied) > MAX_REMEMBERED_KEYS:
            self._denied.popitem(last=False)

    def check_denied(self, program: Hashable, terms: Terms, now: float) -> None:
        """Raise RequestDeniedError if a person has just said no to this."""
        until = self._denied.get(_question(program, terms), now)
        if until > now:
            raise RequestDeniedError(
                "the same request was denied a moment ago; it can be made again in "
                f"{_rounded_up(until - now)}"
            )

    def _check(self, key: Hashable, most: int, now: float) -> None:
        times = self._new.get(key, deque[float]())
        if len(times) >= most and now - times[0] < WINDOW_SECONDS:
            raise TooManyRequestsError(
                f"too many requests within {WINDOW_SECONDS:.0f} s; try again in "
                f"{_rounded_up(WINDOW_SECONDS - (now - times[0]))}"
            )

    def _count(self, key: Hashable, most: int, now: float) -> None:
        times = self._new.setdefault(key, deque(maxlen=most))
        times.append(now)
        self._new.move_to_end(key)
        if len(self._new) > MAX_REMEMBERED_KEYS:
            self._new.popitem(last=False)


def _user(asker: Asker) -> tuple[int, str]:
    return asker.identity.uid, asker.socket


def _question(program: Hashable, terms: Terms) -> tuple[Hashable, ...]:
    # In any order: it is the same question.
    return (program, *(frozenset(each) if isinstance(each, list) else each for each in terms))


def _rounded_up(seconds: float) -> str:
    return format_duration(math.ceil(seconds))
