"""What `agentctl` and `agentd` exit with: sysexits(3), and 1 for a plain "no". One table for both.

0 is yes or done. 1 is no, and only that: `verify` answers 1 when it *knows* that the caller is not in a valid
session. Whatever keeps it from knowing has another code, so a script can tell "no" from "could not ask".

An agent that is locked or stopping counts as unavailable (69): it is there, but it answers nobody. A method
or parameter that the agent does not know is a matter of protocol (76): `agentctl` checks what people type
before it asks, so the two are of different versions. A socket that belongs to another user is a matter of
permission (77), like a token file that is refused and like a session that does not allow what is asked.

`agentctl exec` becomes the command, and the exit code is the command's own. Where it cannot, the code is that
of shells and env(1): 126 for a command that cannot be executed, 127 for one that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from .. import errors
from ..protocol.calls import LocalParamsError
from .current_token import NotLoggedInError
from .output import OutputError
from .program import NotExecutableError, NotFoundError

DONE = 0
NO = 1
USAGE = 64
DATA = 65
UNAVAILABLE = 69
INTERNAL = 70
SYSTEM = 71
ALREADY_SERVING = 73
"""Only the agent ends so: another one is at work here."""

STORE = 74
TRY_AGAIN = 75
PROTOCOL = 76
REFUSED = 77
CONFIG = 78
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 128 + 2

MEANINGS = {
    DONE: "yes, or done",
    NO: "no: not valid, not logged in, nothing to end, not confirmed",
    USAGE: "the command line is wrong",
    DATA: "a token, label, length of time, name or id is not of the right form",
    UNAVAILABLE: "no agent answers, or it is locked, stopping or cannot start",
    INTERNAL: "agentctl or the agent has a fault",
    SYSTEM: "the operating system refused something",
    STORE: "the agent's store failed, or the output could not be written",
    TRY_AGAIN: "no answer in time, the outcome unknown, or something busy",
    PROTOCOL: "what answers does not speak this protocol",
    REFUSED: "refused: a passphrase, the token file, another user's agent, more than a session allows",
    CONFIG: "the agent's key file or settings, or a variable such as HOME, are unusable",
    NOT_EXECUTABLE: "exec: the command cannot be executed",
    NOT_FOUND: "exec: there is no such command",
    INTERRUPTED: "interrupted",
}
"""Every code in a few words, as `agentctl --help` shows them."""

_BY_CLASS: dict[type[BaseException], int] = {
    NotLoggedInError: NO,
    NotExecutableError: NOT_EXECUTABLE,
    NotFoundError: NOT_FOUND,
    click.ClickException: USAGE,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
    OSError: SYSTEM,
    OutputError: STORE,
    errors.AgentdError: INTERNAL,
    errors.RequestError: PROTOCOL,
    LocalParamsError: DATA,
    errors.AgentInternalError: INTERNAL,
    errors.AgentStoppingError: UNAVAILABLE,
    errors.InvalidAudienceError: DATA,
    errors.InvalidExpiryError: DATA,
    errors.InvalidGraceError: DATA,
    errors.InvalidLabelError: DATA,
    errors.InvalidScopesError: DATA,
    errors.InvalidTokenError: DATA,
    errors.InvalidUsesError: DATA,
    errors.ParentNotValidError: REFUSED,
    errors.NotWithinParentError: REFUSED,
    errors.TokenNotValidError: REFUSED,
    errors.CannotBindError: SYSTEM,
    errors.AgentLockedError: UNAVAILABLE,
    errors.StoreError: STORE,
    errors.StoreInUseError: TRY_AGAIN,
    errors.TransactionConflictError: TRY_AGAIN,
    errors.KeyFileError: CONFIG,
    errors.KeyUnavailableError: UNAVAILABLE,
    errors.PassphraseError: REFUSED,
    errors.TooManyAttemptsError: TRY_AGAIN,
    errors.SessionManagerNotRunningError: UNAVAILABLE,
    errors.DBNotRunningError: UNAVAILABLE,
    errors.KeyRingNotRunningError: UNAVAILABLE,
    errors.AgentUnreachableError: UNAVAILABLE,
    errors.AgentTimeoutError: TRY_AGAIN,
    errors.OutcomeUnknownError: TRY_AGAIN,
    errors.ForeignAgentError: REFUSED,
    errors.ProtocolError: PROTOCOL,
    errors.EnvironmentVariableError: CONFIG,
    errors.TokenFileError: REFUSED,
    errors.TokenFileBusyError: TRY_AGAIN,
    errors.StartError: UNAVAILABLE,
    errors.ConfigError: CONFIG,
}


def exit_code(error: BaseException, own: Mapping[type[BaseException], int] | None = None) -> int:
    """The code of the nearest class that the table names; 70 where it names none.

    AgentTimeoutError is an OSError as well, through TimeoutError: the nearest class decides.

    Args:
        error: what the program ends with.
        own: what the program's own ending means where the table speaks of asking an agent.
    """
    codes = {**_BY_CLASS, **(own or {})}
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), INTERNAL)
