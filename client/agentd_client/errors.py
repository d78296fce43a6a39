"""Every error that agentd shows to anyone: one tree, one list of codes.

The agent answers a refused request with ``[number, "CODE: sentence"]``; number and CODE are stable and
listed in docs/protocol.md, the sentence is for people and may change. Each class carries both, and the
CODE names the class, so the client raises the very one that the agent meant. The number says whose fault
it is, in the two values that Neovim's MessagePack-RPC gives to errors and shows the sentence of.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FAILED = 0
"""The agent, its state or the way to it is at fault: the same request may succeed later."""

INVALID = 1
"""The request is at fault: sent again as it is, it will be refused again."""


class AgentdError(Exception):
    """The root of the tree; `code` and `number` are stable, the text is for people."""

    code = "ERROR"
    number = FAILED

    def __init__(self, sentence: str = "") -> None:
        super().__init__(sentence or self._usual_sentence())

    @property
    def sentence(self) -> str:
        """What happened and what to do, in words; never a token, a key or a traceback."""
        return str(self.args[0])

    def _usual_sentence(self) -> str:
        # It is shown behind a name and a colon, as every other sentence is: without a capital letter.
        text = (self.__doc__ or "").partition("\n")[0].rstrip(".")
        return text[:1].lower() + text[1:]


# --- the request ------------------------------------------------------------------------------------


class RequestError(AgentdError):
    """The agent refused the request as it was made."""

    code = "REQUEST"


class UnknownMethodError(RequestError):
    """The agent has no method of that name."""

    code, number = "UNKNOWN_METHOD", INVALID


class InvalidMessageError(RequestError):
    """What was sent breaks the protocol, so the agent closed the connection."""

    code, number = "INVALID_MESSAGE", INVALID


class InvalidParamsError(RequestError):
    """A parameter is missing, unknown or of the wrong type."""

    code, number = "INVALID_PARAMS", INVALID


class AgentInternalError(RequestError):
    """The agent failed for a reason of its own; its log has the details."""

    code = "INTERNAL"


class AgentStoppingError(RequestError):
    """The agent is stopping and did not carry out the request."""

    code = "STOPPING"


# --- sessions ---------------------------------------------------------------------------------------


class InvalidExpiryError(AgentdError, ValueError):
    """An expiry is a whole number of seconds from 0 to 100 years, or NEVER."""

    code, number = "INVALID_EXPIRY", INVALID


class InvalidLabelError(AgentdError, ValueError):
    """A label is one line of printable text, at most 200 characters."""

    code, number = "INVALID_LABEL", INVALID


class InvalidTokenError(AgentdError, ValueError):
    """That is not a session token: one line of visible ASCII characters, at most 8 KiB."""

    code, number = "INVALID_TOKEN", INVALID


class InvalidScopesError(AgentdError, ValueError):
    """Scopes are at most 16 different names of visible ASCII characters, each at most 64 long."""

    code, number = "INVALID_SCOPES", INVALID


class InvalidAudienceError(AgentdError, ValueError):
    """An audience is at most 8 different names of visible ASCII characters, each at most 128 long."""

    code, number = "INVALID_AUDIENCE", INVALID


class InvalidUsesError(AgentdError, ValueError):
    """A number of uses is a whole number from 1 to 2147483647."""

    code, number = "INVALID_USES", INVALID


class InvalidGraceError(AgentdError, ValueError):
    """A grace is a whole number of seconds from 0 to 604800 (a week)."""

    code, number = "INVALID_GRACE", INVALID


class ParentNotValidError(AgentdError):
    """The parent's session has ended, or its token does not allow children; nothing was stored."""

    code, number = "PARENT_NOT_VALID", INVALID


class NotWithinParentError(AgentdError):
    """A child's scopes, audience, lifetime and uses lie inside its parent's; nothing was stored."""

    code, number = "NOT_WITHIN_PARENT", INVALID


class TokenNotValidError(AgentdError):
    """The token is not valid, so nothing can be done with it."""

    code, number = "TOKEN_NOT_VALID", INVALID


class CannotBindError(AgentdError):
    """A session cannot be bound to that process; nothing was stored."""

    code = "CANNOT_BIND"


class AgentLockedError(AgentdError):
    """The agent is locked; until it is unlocked it knows nothing of sessions and tokens."""

    code = "LOCKED"


# --- store and keys ---------------------------------------------------------------------------------


class StoreError(AgentdError):
    """The store failed; nothing was written."""

    code = "STORE_FAILED"


class StoreFullError(StoreError):
    """The store has no room; nothing was written."""

    code = "STORE_FULL"


class StoreDamagedError(StoreError):
    """The store is damaged; restore it, or begin anew with `agentd init --fresh`."""

    code = "STORE_DAMAGED"


class StoreInUseError(StoreError):
    """Another agent holds the store."""

    code = "STORE_IN_USE"


class StoreKeyMismatchError(StoreError):
    """The store was sealed with another root key."""

    code = "STORE_KEY_MISMATCH"


class InvalidPathError(StoreError, ValueError):
    """A key path is one to eight parts of text or bytes that fit into one LMDB key."""

    code, number = "INVALID_PATH", INVALID


class TransactionConflictError(StoreError):
    """Something that the transaction read was changed since; nothing was written."""

    code = "TRANSACTION_CONFLICT"


class ForeignTransactionError(StoreError):
    """The transaction is one of another store; nothing was written."""

    code = "FOREIGN_TRANSACTION"


class TransactionEndedError(StoreError):
    """The transaction is over: committed, rolled back, or older than its maximum life."""

    code = "TRANSACTION_ENDED"


class KeyFileError(AgentdError):
    """The key file cannot be used."""

    code = "KEY_FILE"


class KeyUnavailableError(AgentdError):
    """The key was wiped: its owner has stopped or is locked."""

    code = "KEY_UNAVAILABLE"


class PassphraseError(AgentdError):
    """The passphrase does not fit the key file."""

    code, number = "PASSPHRASE", INVALID


class NoPassphraseError(PassphraseError):
    """Without a passphrase the agent cannot be locked; set one with `agentctl passwd`."""

    code, number = "NO_PASSPHRASE", FAILED


class TooManyAttemptsError(AgentdError):
    """Too many passphrases wait to be looked at; this one was not."""

    code = "TOO_MANY_ATTEMPTS"


# --- life cycle -------------------------------------------------------------------------------------


class LifecycleError(AgentdError):
    """An operation does not fit the object's state."""

    code = "LIFECYCLE"


class WrongLoopError(LifecycleError):
    """It belongs to another event loop than the one that it is used from; use it there."""

    code = "WRONG_LOOP"


class SessionRunningError(LifecycleError):
    """The session is running; stop it before destroying it."""

    code = "SESSION_RUNNING"


class SessionDestroyedError(LifecycleError):
    """The session was destroyed; create a new one."""

    code = "SESSION_DESTROYED"


class SessionManagerRunningError(LifecycleError):
    """The session manager is running; stop it before destroying it."""

    code = "SESSION_MANAGER_RUNNING"


class SessionManagerDestroyedError(LifecycleError):
    """The session manager was destroyed; create a new one."""

    code = "SESSION_MANAGER_DESTROYED"


class SessionManagerNotRunningError(LifecycleError):
    """The session manager is not running; start it first."""

    code = "SESSION_MANAGER_NOT_RUNNING"


class DBRunningError(LifecycleError):
    """The store is open; stop it before destroying it."""

    code = "DB_RUNNING"


class DBDestroyedError(LifecycleError):
    """The store was destroyed; create a new one."""

    code = "DB_DESTROYED"


class DBNotRunningError(LifecycleError):
    """The store is not open; start it first."""

    code = "DB_NOT_RUNNING"


class KeyRingRunningError(LifecycleError):
    """The key ring is in use; stop it before destroying it."""

    code = "KEY_RING_RUNNING"


class KeyRingDestroyedError(LifecycleError):
    """The key ring was destroyed; create a new one."""

    code = "KEY_RING_DESTROYED"


class KeyRingNotRunningError(LifecycleError):
    """The key ring is not loaded; start it first."""

    code = "KEY_RING_NOT_RUNNING"


# --- what only the caller's side can see ------------------------------------------------------------


class AgentUnreachableError(AgentdError):
    """No agent answers; start one with `agentd serve`."""

    code = "AGENT_UNREACHABLE"


class AgentTimeoutError(AgentdError, TimeoutError):
    """The agent did not answer in time."""

    code = "AGENT_TIMEOUT"


class OutcomeUnknownError(AgentdError):
    """The request was sent and its answer was lost; whether it was carried out is unknown."""

    code = "OUTCOME_UNKNOWN"


class ForeignAgentError(AgentdError):
    """The socket belongs to another user; nothing was sent."""

    code = "FOREIGN_AGENT"


class ProtocolError(AgentdError):
    """The other end does not speak this protocol, or broke one of its limits."""

    code = "PROTOCOL"


class VersionsDifferError(ProtocolError):
    """The agent and this client are of different versions, and one does not understand the other."""

    code = "VERSIONS_DIFFER"


class ClientClosedError(AgentdError):
    """The client was closed; connect anew."""

    code = "CLIENT_CLOSED"


class EnvironmentVariableError(AgentdError):
    """A variable of the environment does not lead to a place of this user's."""

    code = "ENVIRONMENT"


class TokenFileError(AgentdError):
    """The token file is refused."""

    code = "TOKEN_FILE"


class TokenFileBusyError(TokenFileError):
    """Another process holds the token file's lock."""

    code = "TOKEN_FILE_BUSY"


# --- the daemon's start -----------------------------------------------------------------------------


class StartError(AgentdError):
    """The agent could not start."""

    code = "START"


class AlreadyServingError(StartError):
    """Another agent already serves this socket."""

    code = "ALREADY_SERVING"


class SocketPathError(StartError):
    """No socket can be made at that path."""

    code = "SOCKET_PATH"


class StateFolderError(StartError):
    """Keys and store cannot be kept in that folder."""

    code = "STATE_FOLDER"


class ConfigError(StartError):
    """A setting is unknown or of the wrong form."""

    code = "CONFIG"


def _tree(root: type[AgentdError]) -> list[type[AgentdError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


def _by_code() -> Mapping[str, type[AgentdError]]:
    table: dict[str, type[AgentdError]] = {}
    for error in _tree(AgentdError):
        if error.code in table:  # pragma: no cover - a slip of whoever adds an error
            raise TypeError(f"{error.__name__} and {table[error.code].__name__} share {error.code}")
        table[error.code] = error
    return table


ERRORS = _by_code()
"""Every public error by its code."""

__all__ = [
    "ERRORS",
    "AgentInternalError",
    "AgentLockedError",
    "AgentStoppingError",
    "AgentTimeoutError",
    "AgentUnreachableError",
    "AgentdError",
    "AlreadyServingError",
    "CannotBindError",
    "ClientClosedError",
    "ConfigError",
    "DBDestroyedError",
    "DBNotRunningError",
    "DBRunningError",
    "EnvironmentVariableError",
    "ForeignAgentError",
    "ForeignTransactionError",
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
    "NoPassphraseError",
    "NotWithinParentError",
    "OutcomeUnknownError",
    "ParentNotValidError",
    "PassphraseError",
    "ProtocolError",
    "RequestError",
    "SessionDestroyedError",
    "SessionManagerDestroyedError",
    "SessionManagerNotRunningError",
    "SessionManagerRunningError",
    "SessionRunningError",
    "SocketPathError",
    "StartError",
    "StateFolderError",
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
    "VersionsDifferError",
    "WrongLoopError",
]
