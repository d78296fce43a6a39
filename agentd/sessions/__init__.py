"""Sessions: records, the rules about them, and the manager that owns the session key."""

from .clock import Clock, Instant, SystemClock
from .manager import SessionManager
from .session_key import SessionKey
from .subscribers import Subscribers

__all__ = ["Clock", "Instant", "SessionKey", "SessionManager", "Subscribers", "SystemClock"]
