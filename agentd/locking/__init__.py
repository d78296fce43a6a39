"""What locks the agent by itself: suspend, screen lock, idleness, a signal; and the unattended start.

Nothing here knows keys or sessions: each part calls a `Lock` with its reason and waits until the keys
are gone.
"""

from .idle import IdleTimer
from .lock_mark import LockMark
from .logind import watch_logind
from .passphrases import passphrase_from_credential, passphrase_from_descriptor, passphrase_from_file
from .reasons import ASKED, IDLE, SCREEN_LOCK, SIGNAL, START, SUSPEND, Lock
from .signals import watch_signal

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
    "passphrase_from_credential",
    "passphrase_from_descriptor",
    "passphrase_from_file",
    "watch_logind",
    "watch_signal",
]
