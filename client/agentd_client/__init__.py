"""The thin client of agentd: does this caller belong to a session that the user opened and has not ended.

Importing this package needs msgpack and nothing else. Each name is loaded when it is first used, so that the
entry points of programs run within a moment of their start. `agentd_client.aio` has the async twins.
"""

from __future__ import annotations

TYPE_CHECKING = False  # known to type checkers by its name; the module typing itself takes its time to import
if TYPE_CHECKING:
    from .blocking import Client
    from .errors import (
        ERRORS,
        AgentdError,
        AgentInternalError,
        AgentLockedError,
        AgentStoppingError,
        AgentTimeoutError,
        AgentUnreachableError,
        AlreadyServingError,
        CannotBindError,
        ClientClosedError,
        ConfigError,
        DBDestroyedError,
        DBNotRunningError,
        DBRunningError,
        EnvironmentVariableError,
        ForeignAgentError,
        ForeignTransactionError,
        InvalidAudienceError,
        InvalidExpiryError,
        InvalidGraceError,
        InvalidLabelError,
        InvalidMessageError,
        InvalidParamsError,
        InvalidPathError,
        InvalidScopesError,
        InvalidTokenError,
        InvalidUsesError,
        KeyFileError,
        KeyRingDestroyedError,
        KeyRingNotRunningError,
        KeyRingRunningError,
        KeyUnavailableError,
        LifecycleError,
        NoPassphraseError,
        NotWithinParentError,
        OutcomeUnknownError,
        ParentNotValidError,
        PassphraseError,
        ProtocolError,
        RequestError,
        SessionDestroyedError,
        SessionManagerDestroyedError,
        SessionManagerNotRunningError,
        SessionManagerRunningError,
        SessionRunningError,
        SocketPathError,
        StartError,
        StateFolderError,
        StoreDamagedError,
        StoreError,
        StoreFullError,
        StoreInUseError,
        StoreKeyMismatchError,
        TokenFileBusyError,
        TokenFileError,
        TokenNotValidError,
        TooManyAttemptsError,
        TransactionConflictError,
        TransactionEndedError,
        UnknownMethodError,
        VersionsDifferError,
        WrongLoopError,
    )
    from .lifecycle import LifecycleEvent
    from .protocol.methods import NEVER
    from .protocol.results import (
        AuditEntry,
        AuditPage,
        CreatedToken,
        Event,
        Hello,
        LockState,
        PeerIdentity,
        Protection,
        SessionInfo,
        SessionPage,
        Status,
        Verdict,
        Verification,
    )
    from .session import Session

__version__ = "0.1.0"

__all__ = [
    "ERRORS",
    "NEVER",
    "AgentInternalError",
    "AgentLockedError",
    "AgentStoppingError",
    "AgentTimeoutError",
    "AgentUnreachableError",
    "AgentdError",
    "AlreadyServingError",
    "AuditEntry",
    "AuditPage",
    "CannotBindError",
    "Client",
    "ClientClosedError",
    "ConfigError",
    "CreatedToken",
    "DBDestroyedError",
    "DBNotRunningError",
    "DBRunningError",
    "EnvironmentVariableError",
    "Event",
    "ForeignAgentError",
    "ForeignTransactionError",
    "Hello",
    "InvalidAudienceError",
    "InvalidExpiryError",
    "InvalidGraceError",
    "InvalidLabelError",
    "InvalidMessageError",
    "InvalidParamsError",
    "InvalidPathError",
    "InvalidScopesError",
    "InvalidTokenError",
    "InvalidUsesError",
    "KeyFileError",
    "KeyRingDestroyedError",
    "KeyRingNotRunningError",
    "KeyRingRunningError",
    "KeyUnavailableError",
    "LifecycleError",
    "LifecycleEvent",
    "LockState",
    "NoPassphraseError",
    "NotWithinParentError",
    "OutcomeUnknownError",
    "ParentNotValidError",
    "PassphraseError",
    "PeerIdentity",
    "Protection",
    "ProtocolError",
    "RequestError",
    "Session",
    "SessionDestroyedError",
    "SessionInfo",
    "SessionManagerDestroyedError",
    "SessionManagerNotRunningError",
    "SessionManagerRunningError",
    "SessionPage",
    "SessionRunningError",
    "SocketPathError",
    "StartError",
    "StateFolderError",
    "Status",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreKeyMismatchError",
    "TokenFileBusyError",
    "TokenFileError",
    "TokenNotValidError",
    "TooManyAttemptsError",
    "TransactionConflictError",
    "TransactionEndedError",
    "UnknownMethodError",
    "Verdict",
    "Verification",
    "VersionsDifferError",
    "WrongLoopError",
    "__version__",
]

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
"""Where the names live that are no errors."""

if not TYPE_CHECKING:

    def __getattr__(name):
        if name in __all__:
            module = _import(_MODULES.get(name, "errors"))
            return globals().setdefault(name, getattr(module, name))
        if name in ("blocking", "errors", "lifecycle", "session"):
            return _import(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def _import(name):
        # Not importlib's function, which has to be imported first. With a name to import from it, the module
        # itself comes back.
        return __import__(f"{__name__}.{name}", fromlist=("__name__",))

    def __dir__():
        return __all__
