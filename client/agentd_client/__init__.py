"""The thin client of agentd: is a caller part of a session that the user opened and has not ended.

The package depends on msgpack alone. Each public name is imported on first use, so that programs start fast.
`agentd_client.aio` has the async client.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know it by its name; importing `typing` takes too long
if TYPE_CHECKING:
    # isort: off
    # Isort would write one import statement for each name.
    from .blocking import Client as Client
    from .errors import *  # noqa: F403 - each error is declared there and nowhere else
    from .lifecycle import LifecycleEvent as LifecycleEvent
    from .protocol.methods import NEVER as NEVER
    from .protocol.results import (
        AuditEntry as AuditEntry,
        AuditPage as AuditPage,
        CreatedToken as CreatedToken,
        Event as Event,
        Hello as Hello,
        LockState as LockState,
        PeerIdentity as PeerIdentity,
        Protection as Protection,
        SessionInfo as SessionInfo,
        SessionPage as SessionPage,
        Status as Status,
        Verdict as Verdict,
        Verification as Verification,
    )
    from .session import Session as Session

__version__ = "0.1.0"

_MODULES = {
    "Client": "blocking",
    "LifecycleEvent": "lifecycle",
    "NEVER": "protocol.methods",
    "Session": "session",
    **dict.fromkeys(("AuditEntry", "AuditPage", "CreatedToken", "Event", "Hello"), "protocol.results"),
    **dict.fromkeys(
        ("LockState", "PeerIdentity", "Protection", "SessionInfo", "SessionPage"), "protocol.results"
    ),
    **dict.fromkeys(("Status", "Verdict", "Verification"), "protocol.results"),
}
"""The module of each public name; all others are errors."""

if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "__all__":
            errors = _import("errors").ERRORS.values()
            found = sorted(["ERRORS", "__version__", *_MODULES, *(error.__name__ for error in errors)])
        elif name in ("blocking", "errors", "lifecycle", "session"):
            return _import(name)
        elif name in _MODULES:
            found = getattr(_import(_MODULES[name]), name)
        elif name == "ERRORS" or (name.endswith("Error") and hasattr(_import("errors"), name)):
            found = getattr(_import("errors"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, found)

    def _import(name):
        # Not importlib's function, which would have to be imported first. With a name to import from it,
        # __import__ returns the module itself.
        return __import__(f"{__name__}.{name}", fromlist=("__name__",))

    def __dir__():
        return __getattr__("__all__")
