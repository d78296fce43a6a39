"""Every error that agentd shows to anyone: one tree, each error declared once.

The agent answers a refused request with ``[number, "CODE: sentence"]``. Number and CODE are stable and listed
in docs/protocol.md; the sentence is for people and may change. The CODE names the class, so that the client
raises the very class that the agent meant. The number says whose fault it is, in the two values that Neovim's
MessagePack-RPC gives to errors.

`exit_code` is what `agentctl` exits with, from sysexits(3); see `cli.exit_codes` for what each one means. A
class without a number or an exit code has its parent's.
"""

from __future__ import annotations

from os import (
    EX_CONFIG,
    EX_DATAERR,
    EX_IOERR,
    EX_NOPERM,
    EX_OSERR,
    EX_PROTOCOL,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
)

FAILED = 0
"""The agent, its state or the way to it is at fault: the same request may succeed later."""

INVALID = 1
"""The request is at fault: sent again as it is, it will be refused again."""


class AgentdError(Exception):
    """The root of the tree; `code` and `number` are stable, the text is for people."""

    code = "ERROR"
    number = FAILED
    exit_code = EX_SOFTWARE

    def __init_subclass__(
        cls, *, code: str | None = None, number: int | None = None, exit_code: int | None = None
    ) -> None:
        super().__init_subclass__()
        if number is not None:
            cls.number = number
        if exit_code is not None:
            cls.exit_code = exit_code
        if code is not None:
            cls.code = code
            ERRORS[code] = cls

    def __init__(self, sentence: str = "") -> None:
        super().__init__(sentence or self._default_sentence())

    @property
    def sentence(self) -> str:
        """What happened and what to do, in words; never a token, a key or a traceback."""
        return str(self.args[0])

    def _default_sentence(self) -> str:
        # Shown after a name and a colon, so without a capital letter.
        text = (self.__doc__ or "").partition("\n")[0].rstrip(".")
        return text[:1].lower() + text[1:]


ERRORS: dict[str, type[AgentdError]] = {AgentdError.code: AgentdError}
"""Every public error by its code."""


# --- the request ------------------------------------------------------------------------------------


class RequestError(AgentdError, code="REQUEST", exit_code=EX_PROTOCOL):
    """The agent refused the request as it was made."""


class UnknownMethodError(RequestError, code="UNKNOWN_METHOD", number=INVALID):
    """The agent has no method of that name."""


class InvalidMessageError(RequestError, code="INVALID_MESSAGE", number=INVALID):
    """What was sent breaks the protocol, so the agent closed the connection."""


class InvalidParamsError(RequestError, code="INVALID_PARAMS", number=INVALID):
    """A parameter is missing, unknown or of the wrong type."""


class LocalParamsError(InvalidParamsError, exit_code=EX_DATAERR):
    """The client itself refuses a parameter; nothing was sent."""


class AgentInternalError(RequestError, code="INTERNAL", exit_code=EX_SOFTWARE):
    """The agent failed for a reason of its own; its log has the details."""


class AgentStoppingError(RequestError, code="STOPPING", exit_code=EX_UNAVAILABLE):
    """The agent is stopping and did not carry out the request."""


# --- sessions ---------------------------------------------------------------------------------------


class _InvalidValueError(AgentdError, ValueError, number=INVALID, exit_code=EX_DATAERR):
    """A value that is never accepted."""


class InvalidExpiryError(_InvalidValueError, code="INVALID_EXPIRY"):
    """An expiry is a whole number of seconds from 0 to 100 years, or NEVER."""


class InvalidLabelError(_InvalidValueError, code="INVALID_LABEL"):
    """A label is one line of printable text, at most 200 characters."""


class InvalidTokenError(_InvalidValueError, code="INVALID_TOKEN"):
    """That is not a session token: one line of visible ASCII characters, at most 8 KiB."""


class InvalidScopesError(_InvalidValueError, code="INVALID_SCOPES"):
    """Scopes are at most 16 different names of visible ASCII characters, each at most 64 long."""


class InvalidAudienceError(_InvalidValueError, code="INVALID_AUDIENCE"):
    """An audience is at most 8 different names of visible ASCII characters, each at most 128 long."""


class InvalidUsesError(_InvalidValueError, code="INVALID_USES"):
    """A use limit is a whole number from 1 to 2147483647."""


class InvalidGraceError(_InvalidValueError, code="INVALID_GRACE"):
    """A grace period is a whole number of seconds from 0 to 604800 (a week)."""


class ParentNotValidError(AgentdError, code="PARENT_NOT_VALID", number=INVALID, exit_code=EX_NOPERM):
    """The parent session has ended, or its token does not allow children; nothing was stored."""


class NotWithinParentError(AgentdError, code="NOT_WITHIN_PARENT", number=INVALID, exit_code=EX_NOPERM):
    """A child session's scopes, audience, lifetime and uses lie inside its parent's; nothing was stored."""


class TokenNotValidError(AgentdError, code="TOKEN_NOT_VALID", number=INVALID, exit_code=EX_NOPERM):
    """The token is not valid, so it cannot be used for this."""


class CannotBindError(AgentdError, code="CANNOT_BIND", exit_code=EX_OSERR):
    """A session cannot be bound to that process; nothing was stored."""


class AgentLockedError(AgentdError, code="LOCKED", exit_code=EX_UNAVAILABLE):
    """The agent is locked; unlock it before using sessions and tokens."""


# --- requests for sessions --------------------------------------------------------------------------


class ApprovalRequiredError(AgentdError, code="APPROVAL_REQUIRED", number=INVALID, exit_code=EX_NOPERM):
    """The agent opens a session only if a person approves; ask with requestToken (`agentctl request`)."""


class RequestDeniedError(AgentdError, code="DENIED", number=INVALID, exit_code=EX_NOPERM):
    """The request was denied."""


class RequestExpiredError(AgentdError, code="REQUEST_EXPIRED", exit_code=EX_TEMPFAIL):
    """Nobody decided about the request in time, which is a no."""


class TooManyRequestsError(AgentdError, code="TOO_MANY_REQUESTS", exit_code=EX_TEMPFAIL):
    """Too many requests for sessions; this one was not shown to anybody."""


class NoSuchRequestError(AgentdError, code="NO_SUCH_REQUEST", number=INVALID, exit_code=EX_DATAERR):
    """No request of that id is waiting; it was decided or withdrawn, or it has ended."""


class NotWithinRequestError(AgentdError, code="NOT_WITHIN_REQUEST", number=INVALID, exit_code=EX_NOPERM):
    """A decision can grant less than was asked for, and never more; the request still waits."""


class OwnRequestError(AgentdError, code="OWN_REQUEST", number=INVALID, exit_code=EX_NOPERM):
    """A program cannot approve what it asked for itself; the request still waits."""


class NotGrantableError(AgentdError, code="NOT_GRANTABLE", number=INVALID, exit_code=EX_NOPERM):
    """The agent's settings do not allow anybody to grant that (`grantable_scopes`); nobody was asked."""


class InvalidReasonError(_InvalidValueError, code="INVALID_REASON"):
    """A reason is one line of printable text, at most 200 characters."""


# --- store and keys ---------------------------------------------------------------------------------


class StoreError(AgentdError, code="STORE_FAILED", exit_code=EX_IOERR):
    """The store failed; nothing was written."""


class StoreFullError(StoreError, code="STORE_FULL"):
    """The store has no room; nothing was written."""


class StoreDamagedError(StoreError, code="STORE_DAMAGED"):
    """The store is damaged; restore it, or start over with `agentd init --fresh`."""


class StoreInUseError(StoreError, code="STORE_IN_USE", exit_code=EX_TEMPFAIL):
    """Another agent is using the store."""


class StoreKeyMismatchError(StoreError, code="STORE_KEY_MISMATCH"):
    """The store was sealed with another root key."""


class InvalidPathError(StoreError, ValueError, code="INVALID_PATH", number=INVALID):
    """A key path is one to eight parts of text or bytes that fit into one LMDB key."""


class TransactionConflictError(StoreError, code="TRANSACTION_CONFLICT", exit_code=EX_TEMPFAIL):
    """Data that the transaction read has changed since; nothing was written."""


class ForeignTransactionError(StoreError, code="FOREIGN_TRANSACTION"):
    """The transaction belongs to another store; nothing was written."""


class TransactionEndedError(StoreError, code="TRANSACTION_ENDED"):
    """The transaction is over: committed, rolled back, or older than its maximum life."""


class KeyFileError(AgentdError, code="KEY_FILE", exit_code=EX_CONFIG):
    """The key file cannot be used."""


class KeyUnavailableError(AgentdError, code="KEY_UNAVAILABLE", exit_code=EX_UNAVAILABLE):
    """The key was wiped: its owner has stopped or is locked."""


class PassphraseError(AgentdError, code="PASSPHRASE", number=INVALID, exit_code=EX_NOPERM):
    """The passphrase is wrong."""


class NoPassphraseError(PassphraseError, code="NO_PASSPHRASE", number=FAILED):
    """An agent without a passphrase cannot be locked; set one with `agentctl passwd`."""


class TooManyAttemptsError(AgentdError, code="TOO_MANY_ATTEMPTS", exit_code=EX_TEMPFAIL):
    """Too many passphrase attempts are waiting; this one was not tried."""


# --- life cycle -------------------------------------------------------------------------------------


class LifecycleError(AgentdError, code="LIFECYCLE"):
    """An operation does not fit the object's state."""


class WrongLoopError(LifecycleError, code="WRONG_LOOP"):
    """The object belongs to another event loop; use it there."""


class SessionRunningError(LifecycleError, code="SESSION_RUNNING"):
    """The session is running; stop it before destroying it."""


class SessionDestroyedError(LifecycleError, code="SESSION_DESTROYED"):
    """The session was destroyed; create a new one."""


class SessionManagerRunningError(LifecycleError, code="SESSION_MANAGER_RUNNING"):
    """The session manager is running; stop it before destroying it."""


class SessionManagerDestroyedError(LifecycleError, code="SESSION_MANAGER_DESTROYED"):
    """The session manager was destroyed; create a new one."""


class SessionManagerNotRunningError(
    LifecycleError, code="SESSION_MANAGER_NOT_RUNNING", exit_code=EX_UNAVAILABLE
):
    """The session manager is not running; start it first."""


class DBRunningError(LifecycleError, code="DB_RUNNING"):
    """The store is open; stop it before destroying it."""


class DBDestroyedError(LifecycleError, code="DB_DESTROYED"):
    """The store was destroyed; create a new one."""


class DBNotRunningError(LifecycleError, code="DB_NOT_RUNNING", exit_code=EX_UNAVAILABLE):
    """The store is not open; start it first."""


class KeyRingRunningError(LifecycleError, code="KEY_RING_RUNNING"):
    """The key ring is in use; stop it before destroying it."""


class KeyRingDestroyedError(LifecycleError, code="KEY_RING_DESTROYED"):
    """The key ring was destroyed; create a new one."""


class KeyRingNotRunningError(LifecycleError, code="KEY_RING_NOT_RUNNING", exit_code=EX_UNAVAILABLE):
    """The key ring is not loaded; start it first."""


# --- what only the caller's side can see ------------------------------------------------------------


class AgentUnreachableError(AgentdError, code="AGENT_UNREACHABLE", exit_code=EX_UNAVAILABLE):
    """No agent answers; start one with `agentd serve`."""


class AgentTimeoutError(AgentdError, TimeoutError, code="AGENT_TIMEOUT", exit_code=EX_TEMPFAIL):
    """The agent did not answer in time."""


class OutcomeUnknownError(AgentdError, code="OUTCOME_UNKNOWN", exit_code=EX_TEMPFAIL):
    """The request was sent and its answer was lost; whether it was carried out is unknown."""


class ForeignAgentError(AgentdError, code="FOREIGN_AGENT", exit_code=EX_NOPERM):
    """The socket belongs to another user; nothing was sent."""


class ProtocolError(AgentdError, code="PROTOCOL", exit_code=EX_PROTOCOL):
    """The other end does not speak this protocol, or broke one of its limits."""


class VersionsDifferError(ProtocolError, code="VERSIONS_DIFFER"):
    """The agent and this client are of different versions, and one does not understand the other."""


class ClientClosedError(AgentdError, code="CLIENT_CLOSED"):
    """The client is closed; connect again."""


class EnvironmentVariableError(AgentdError, code="ENVIRONMENT", exit_code=EX_CONFIG):
    """An environment variable names a path that does not belong to this user."""


class TokenFileError(AgentdError, code="TOKEN_FILE", exit_code=EX_NOPERM):
    """The token file is refused."""


class TokenFileBusyError(TokenFileError, code="TOKEN_FILE_BUSY", exit_code=EX_TEMPFAIL):
    """Another process holds the token file's lock."""


class OriginNotAllowedError(
    AgentdError, ValueError, code="ORIGIN_NOT_ALLOWED", number=INVALID, exit_code=EX_NOPERM
):
    """The session token may not be sent to that server; nothing was sent."""


# --- the daemon's start -----------------------------------------------------------------------------


class StartError(AgentdError, code="START", exit_code=EX_UNAVAILABLE):
    """The agent could not start."""


class AlreadyServingError(StartError, code="ALREADY_SERVING"):
    """Another agent already serves this socket."""


class SocketPathError(StartError, code="SOCKET_PATH"):
    """The socket cannot be created at that path."""


class StateFolderError(StartError, code="STATE_FOLDER"):
    """Keys and store cannot be kept in that folder."""


class ConfigError(StartError, code="CONFIG", exit_code=EX_CONFIG):
    """A setting is unknown or malformed."""
