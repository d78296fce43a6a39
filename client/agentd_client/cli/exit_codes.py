"""What `agentctl` exits with: sysexits(3), and 1 for a plain "no".

0 is yes or done. 1 is no, and only that: `verify` answers 1 when it *knows* that the caller is not in a valid
session. Whatever keeps it from knowing has another code, so a script can tell "no" from "could not ask".

An agent that is locked or stopping counts as unavailable (69): it is there, but it answers nobody. A method
or parameter that the agent does not know is a matter of protocol (76): `agentctl` checks what people type
before it asks, so the two are of different versions. A socket that belongs to another user is a matter of
permission (77), like a token file that is refused.
"""

from __future__ import annotations

import click

from .. import errors
from ..protocol.calls import LocalParamsError
from .current_token import NotLoggedInError

DONE = 0
NO = 1
USAGE = 64
DATA = 65
UNAVAILABLE = 69
INTERNAL = 70
SYSTEM = 71
STORE = 74
TRY_AGAIN = 75
PROTOCOL = 76
REFUSED = 77
CONFIG = 78
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13

MEANINGS = {
    DONE: "yes, or done",
    NO: "no: not valid, not logged in, nothing to end, not confirmed",
    USAGE: "the command line is wrong",
    DATA: "a token, label, expiry or id is not of the right form",
    UNAVAILABLE: "no agent answers, or it is locked, stopping or cannot start",
    INTERNAL: "agentctl or the agent has a fault",
    SYSTEM: "the operating system refused something",
    STORE: "the agent's store failed",
    TRY_AGAIN: "no answer in time, the outcome unknown, or something busy",
    PROTOCOL: "what answers does not speak this protocol",
    REFUSED: "the token file is refused, or the agent is another user's",
    CONFIG: "the agent's key file or settings are unusable",
    INTERRUPTED: "interrupted",
    BROKEN_PIPE: "whoever read the output went away",
}
"""Every code in a few words, as `agentctl --help` shows them."""

_BY_CLASS: dict[type[BaseException], int] = {
    NotLoggedInError: NO,
    click.ClickException: USAGE,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
    BrokenPipeError: BROKEN_PIPE,
    OSError: SYSTEM,
    errors.AgentdError: INTERNAL,
    errors.RequestError: PROTOCOL,
    LocalParamsError: DATA,
    errors.AgentInternalError: INTERNAL,
    errors.AgentStoppingError: UNAVAILABLE,
    errors.InvalidExpiryError: DATA,
    errors.InvalidLabelError: DATA,
    errors.InvalidTokenError: DATA,
    errors.AgentLockedError: UNAVAILABLE,
    errors.StoreError: STORE,
    errors.StoreInUseError: TRY_AGAIN,
    errors.TransactionConflictError: TRY_AGAIN,
    errors.KeyFileError: CONFIG,
    errors.KeyUnavailableError: UNAVAILABLE,
    errors.PassphraseError: REFUSED,
    errors.SessionManagerNotRunningError: UNAVAILABLE,
    errors.DBNotRunningError: UNAVAILABLE,
    errors.KeyRingNotRunningError: UNAVAILABLE,
    errors.AgentUnreachableError: UNAVAILABLE,
    errors.AgentTimeoutError: TRY_AGAIN,
    errors.OutcomeUnknownError: TRY_AGAIN,
    errors.ForeignAgentError: REFUSED,
    errors.ProtocolError: PROTOCOL,
    errors.TokenFileError: REFUSED,
    errors.TokenFileBusyError: TRY_AGAIN,
    errors.StartError: UNAVAILABLE,
    errors.ConfigError: CONFIG,
}


def exit_code(error: BaseException) -> int:
    """The code of the nearest class that the table names; 70 where it names none.

    AgentTimeoutError is an OSError as well, through TimeoutError: the nearest class decides.
    """
    for kind in type(error).__mro__:
        if kind in _BY_CLASS:
            return _BY_CLASS[kind]
    return INTERNAL
