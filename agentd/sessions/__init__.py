"""Sessions: records, the rules about them, and the manager that owns the session key."""

from .clock import Clock, Instant, SystemClock
from .issuer import Approval
from .journal import Subscribers
from .manager import SessionManager
from .session_key import SessionKey

__all__ = ["Approval", "Clock", "Instant", "SessionKey", "SessionManager", "Subscribers", "SystemClock"]
