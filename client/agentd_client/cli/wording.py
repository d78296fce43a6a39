"""Sessions, times and sizes in words for people."""

from __future__ import annotations

import math
import os
import time

from ..durations import format_duration
from ..protocol.reasons import sentence
from ..protocol.results import (
    EXPIRED,
    LOCKED,
    OPENINGS,
    PASSPHRASE_CHANGED,
    PASSPHRASE_REFUSED,
    REQUEST_EXPIRED,
    PeerIdentity,
    SessionInfo,
    Status,
    Verification,
)
from .current_token import NotLoggedInError
from .output import colour, printable

OTHER_AGENTS_SESSION = (
    "a token of another agent, whose session stays open there until it expires; `agentctl list` at that "
    "agent's socket shows it, and `agentctl revoke ID` ends it"
)


def ends(expires_at: float | None, now: float) -> str:
    """When a session ends or ended: "ends in 7 h 59 min"."""
    if expires_at is None:
        return "never ends by itself"
    if expires_at < now:
        return f"ended {format_duration(now - expires_at)} ago"
    # Rounded up: a session of 8 hours begins with "8 h".
    return f"ends in {format_duration(math.ceil(expires_at - now))}"


def moment(seconds: float) -> str:
    """A time since 1970 as local time to the minute."""
    return _local("%Y-%m-%d %H:%M", seconds, f"{seconds} s after 1970")


def clock(seconds: float) -> str:
    """A time since 1970 as local time of its day to the second."""
    return _local("%H:%M:%S", seconds, "?")


def day(seconds: float) -> str:
    """The local date of a time since 1970."""
    return moment(seconds).partition(" ")[0]


def brief_moment(seconds: float, now: float) -> str:
    """A time since 1970 in at most eight characters: "14:06" today, "Jun 14" this year, else "Jun 2024"."""
    if day(seconds) == day(now):
        return _local("%H:%M", seconds, "?")
    this_year = _local("%Y", seconds, "?") == _local("%Y", now, "?")
    return _local("%b %d" if this_year else "%b %Y", seconds, "?")


def _local(form: str, seconds: float, otherwise: str) -> str:
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # localtime(3) has no such year
        return otherwise


def brief_end(session: SessionInfo, now: float) -> str:
    """When a session ends, in at most nine characters or so: "in 7 h"."""
    if session.state == EXPIRED or (session.expires_at is not None and session.expires_at < now):
        return EXPIRED
    if session.expires_at is None:
        return "never"
    return f"in {format_duration(math.ceil(session.expires_at - now), units=1)}"


_PASSPHRASE_KINDS = {PASSPHRASE_CHANGED: "changed", PASSPHRASE_REFUSED: "wrong"}
PASSPHRASE = "passphrase"  # noqa: S105 - the word

UNANSWERED = "unanswered"
"""For `REQUEST_EXPIRED`: "expired" is said of sessions."""

_OPENINGS = (
    "any program of yours opens sessions",
    "a person approves sessions",
    "a person who knows the passphrase approves sessions",
)

_LOCK_REASONS = {
    "asked": "on request",
    "suspend": "the machine was suspended",
    "screen lock": "the screen was locked",
    "idle": "it was idle",
    "signal": "a signal",
    "start": "it started locked",
}


def what_and_why(kind: str, reason: str | None) -> tuple[str, str]:
    """The kind of an event or entry in a word, and its reason."""
    if kind in _PASSPHRASE_KINDS:
        return PASSPHRASE, _PASSPHRASE_KINDS[kind]
    if kind == REQUEST_EXPIRED:
        return UNANSWERED, printable(reason or "")
    if kind == LOCKED and reason is not None:
        return kind, printable(_LOCK_REASONS.get(reason, reason))
    return printable(kind), printable(reason or "")


def lock_state(status: Status) -> str:
    """Whether the agent is locked, since when and why."""
    if not status.locked:
        return "not locked"
    since = "" if status.locked_at is None else f" since {moment(status.locked_at)}"
    why = status.lock_reason
    because = "" if why is None else f": {printable(_LOCK_REASONS.get(why, why))}"
    return f"{colour('locked', 'yellow')}{since}{because}"


def memory_state(status: Status) -> str:
    """How well the memory of the keys is protected from other processes and from swapping."""
    if not status.memory_locked:
        return colour("not locked", "yellow")
    return "locked; no other process can read the keys" if status.memory_secret else "locked"


def opening_state(status: Status) -> str:
    """Who opens sessions that have no parent, and how many requests wait for that."""
    what = dict(zip(OPENINGS, _OPENINGS, strict=True)).get(status.opening)
    how = printable(status.opening) if what is None else f"{status.opening}: {what}"
    if not status.requests:
        return how
    waiting = colour(f"{status.requests} waiting", "yellow")
    return f"{how}; {waiting}, `agentctl approve` shows what and asks"


def passphrase_state(status: Status) -> str:
    """Whether there is a passphrase, and how many wrong ones there were."""
    if not status.protected:
        return "none; `agentctl passwd` sets one"
    wrong = status.wrong_passphrases
    if not wrong:
        return "set"
    return f"set; {wrong} wrong {'one' if wrong == 1 else 'ones'} since the agent started"


def ago(seconds: float | None, now: float) -> str:
    """How long ago something was, in one unit: "7 h ago"; "never" for None."""
    return "never" if seconds is None else f"{format_duration(now - seconds, units=1)} ago"


def process_name(pid: int | None, exe: str | None) -> str:
    """A process by its number and its program's name: "4712 bash"; nothing where neither is known.

    The number comes first: a narrow terminal cuts off the end, and a name alone does not identify a process.
    """
    if pid is None:
        return ""
    return f"{pid} {printable(os.path.basename(exe).strip('[]'))}" if exe else f"pid {pid}"


def request_named(request_id: str | None, asked_by: PeerIdentity | None = None) -> str:
    """The request that an event or entry is about, if any, and of a decision who had asked."""
    if request_id is None:
        return ""
    name = printable(request_id)
    if asked_by is None:
        return f"request {name}"
    return f"{name}, asked by {process_name(asked_by.pid, asked_by.exe)}"


def listed(given: list[str] | None, everything: str) -> str:
    """An audience or scopes; `everything` is the word for no restriction."""
    if given is None:
        return everything
    return printable(", ".join(map(str, given))) or "none"


def named(session_id: str, label: str) -> str:
    """A session's id and, where it has one, its label."""
    name = f"session {printable(session_id)}"
    return f'{name}, label "{printable(label)}"' if label else name


def described(session: SessionInfo, now: float) -> str:
    """A session in one line."""
    return f"{named(session.id, session.label)}, {ends(session.expires_at, now)}"


def why_not(reason: str | None) -> str:
    """Why a token is not valid: the sentence and its code."""
    if reason == NotLoggedInError.code:
        return "not logged in; `agentctl login` opens a session"
    if reason is None:
        return "the agent gives no reason"
    return f"{printable(sentence(reason))} ({printable(reason)})"


def verdict(answer: Verification, now: float) -> str:
    """Whether a token is valid, in one line."""
    if not answer.valid:
        return f"{colour('not valid', 'red')}: {why_not(answer.reason)}"
    which = described(answer.session, now) if answer.session else "the agent does not say more"
    return f"{colour('valid', 'green')}: {which}"


def size(count: int) -> str:
    """A number of bytes: "12.0 MiB"."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}" if unit != "bytes" else f"{count} bytes"
        amount /= 1024
    return f"{amount:.1f} GiB"
