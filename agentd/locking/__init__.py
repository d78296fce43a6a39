"""What locks the agent automatically: suspend, screen lock, idleness and a signal.

It knows neither keys nor sessions: each trigger calls a `Lock` with its reason and waits until the keys are
gone.
"""

from .lock_mark import LockMark
from .triggers import (
    ASKED,
    IDLE,
    SCREEN_LOCK,
    SIGNAL,
    START,
    SUSPEND,
    IdleTimer,
    Lock,
    watch_logind,
    watch_signal,
)

__all__ = [
    "ASKED",
    "IDLE",
    "SCREEN_LOCK",
    "SIGNAL",
    "START",
    "SUSPEND",
    "IdleTimer",
    "Lock",
    "LockMark",
    "watch_logind",
    "watch_signal",
]
