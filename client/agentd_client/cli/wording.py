"""A session, a time and a size in words for people."""

from __future__ import annotations

import math
import time

from ..durations import format_duration
from ..protocol.reasons import sentence
from ..protocol.results import SessionInfo, Verification
from .current_token import NotLoggedInError
from .output import colour, printable

NOT_LOGGED_IN = Verification(False, NotLoggedInError.code, None)
"""What `agentctl` answers itself where there is no token to ask about."""


def ends(expires_at: float | None, now: float) -> str:
    """When a session ends or ended: "ends in 7 h 59 min"."""
    if expires_at is None:
        return "never ends by itself"
    if expires_at < now:
        return f"ended {format_duration(now - expires_at)} ago"
    # Rounded up: who asked for 8 hours a moment ago is told "8 h".
    return f"ends in {format_duration(math.ceil(expires_at - now))}"


def moment(seconds: float) -> str:
    """A time since 1970 as local time to the minute."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # localtime(3) knows no such year
        return f"{seconds} s after 1970"


def named(session_id: str, label: str) -> str:
    """A session's id and, where it has one, its label."""
    told = f"session {printable(session_id)}"
    return f'{told}, label "{printable(label)}"' if label else told


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
    told = described(answer.session, now) if answer.session else "the agent tells no more"
    return f"{colour('valid', 'green')}: {told}"


def size(count: int) -> str:
    """A number of bytes: "12.0 MiB"."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}" if unit != "bytes" else f"{count} bytes"
        amount /= 1024
    return f"{amount:.1f} GiB"
