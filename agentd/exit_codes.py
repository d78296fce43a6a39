"""The exit codes of `agentd`: those of `agentctl`, and 73 if another agent runs here.

A restart may help after 70, 71 and 74. It never helps after 64, 65, 73 and 78, which somebody has to fix
first: `RestartPreventExitStatus=` in agentd.service lists those.
"""

from __future__ import annotations

from agentd_client import errors
from agentd_client.cli import exit_codes as shared
from agentd_client.cli.exit_codes import (
    ALREADY_SERVING,
    CONFIG,
    DATA,
    INTERNAL,
    INTERRUPTED,
    STORE,
    SYSTEM,
    USAGE,
)

STOPPED = shared.DONE
WARNINGS = 1
ERRORS = 2

MEANINGS = {
    STOPPED: "stopped as requested",
    USAGE: "the command line is wrong",
    DATA: "the store is damaged",
    INTERNAL: "agentd has a bug",
    SYSTEM: "the operating system refused something",
    ALREADY_SERVING: "another agent serves this socket or uses this store",
    STORE: "the store failed, or the output could not be written: the disk is full, broken or read-only",
    CONFIG: "settings, key file, a variable, or the path or owner of a file cannot be used",
    INTERRUPTED: "interrupted",
}
"""Every code in a few words, as `agentd --help` shows them."""

DOCTOR_MEANINGS = {
    STOPPED: "nothing worse than notes",
    WARNINGS: "there are warnings",
    ERRORS: "there are errors",
}
"""Of `agentd doctor`; if it cannot run, it exits with one of the others."""

_OWN: dict[type[BaseException], int] = {
    errors.AlreadyServingError: ALREADY_SERVING,
    errors.StartError: CONFIG,
    errors.PassphraseError: CONFIG,
    errors.StoreDamagedError: DATA,
    errors.StoreInUseError: ALREADY_SERVING,
    errors.StoreKeyMismatchError: CONFIG,
}
"""For an agent that cannot start; to `agentctl` these errors come from an agent that runs."""


def exit_code(error: BaseException) -> int:
    """The code of the nearest class in the tables; 70 if there is none."""
    return shared.exit_code(error, _OWN)
