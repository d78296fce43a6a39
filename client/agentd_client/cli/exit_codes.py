"""What `agentctl` and `agentd` exit with: sysexits(3), and 1 for a plain "no".

0 is yes or done. 1 is no, and nothing else: `verify` exits with 1 when it *knows* that the caller is not in a
valid session. Whatever keeps it from knowing has another code, so that a script can tell "no" from "could
not ask".

An agent that is locked or stopping counts as unavailable (69). A method or parameter that the agent does not
know is a protocol error (76): `agentctl` checks its arguments before it asks, so the two are of different
versions. A socket that belongs to another user is a matter of permission (77), like a token file that is
refused and a session that does not allow what is asked.

`agentctl exec` and `request` become the command, and the exit code is the command's own. If the command
cannot be run, it is that of shells and env(1): 126 for a command that cannot be executed, 127 for one that
does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from ..errors import AgentdError
from .current_token import NotLoggedInError
from .output import OutputError
from .program import NotExecutableError, NotFoundError

DONE = 0
NO = 1
USAGE = os.EX_USAGE
DATA = os.EX_DATAERR
UNAVAILABLE = os.EX_UNAVAILABLE
INTERNAL = os.EX_SOFTWARE
SYSTEM = os.EX_OSERR
ALREADY_SERVING = os.EX_CANTCREAT
"""Only for agentd: another agent already serves."""

STORE = os.EX_IOERR
TRY_AGAIN = os.EX_TEMPFAIL
PROTOCOL = os.EX_PROTOCOL
REFUSED = os.EX_NOPERM
CONFIG = os.EX_CONFIG
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 128 + 2

MEANINGS = {
    DONE: "yes, or done",
    NO: "no: not valid, not logged in, nothing to end, not confirmed",
    USAGE: "the command line is wrong",
    DATA: "a token, label, duration, name or id is malformed",
    UNAVAILABLE: "no agent answers, or it is locked, stopping or cannot start",
    INTERNAL: "internal error in agentctl or the agent",
    SYSTEM: "the operating system refused something",
    STORE: "the agent's store failed, or the output could not be written",
    TRY_AGAIN: "timeout, unknown outcome, or something is busy",
    PROTOCOL: "what answers does not speak this protocol",
    REFUSED: "permission denied: passphrase, token file, another user's agent, request, or session's limits",
    CONFIG: "unusable key file or settings of the agent, or a variable such as HOME",
    NOT_EXECUTABLE: "exec, request: the command cannot be executed",
    NOT_FOUND: "exec, request: no such command",
    INTERRUPTED: "interrupted",
}
"""Every code in a few words, for `agentctl --help`."""

_OTHERS: dict[type[BaseException], int] = {
    NotLoggedInError: NO,
    NotExecutableError: NOT_EXECUTABLE,
    NotFoundError: NOT_FOUND,
    click.ClickException: USAGE,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
    OSError: SYSTEM,
    OutputError: STORE,
}
"""For errors that are no `AgentdError`, which declares its own."""


def exit_code(error: BaseException, own: Mapping[type[BaseException], int] | None = None) -> int:
    """The exit code of an error; 70 for an unexpected one.

    Args:
        error: what the program ends with.
        own: the program's own codes, where they differ from those of a program that asks an agent. Of them
            and the others the nearest class decides.
    """
    codes = {**_OTHERS, **(own or {})}
    for kind in type(error).__mro__:
        if kind in codes:
            return codes[kind]
        if issubclass(kind, AgentdError) and "exit_code" in vars(kind):
            return kind.exit_code
    return INTERNAL
