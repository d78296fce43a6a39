"""What `agentd` exits with: sysexits(3), with 73 kept for one thing, that another agent is at work here.

A service manager can tell by them what a restart by itself may mend: 70, 71 and 74 perhaps; 64, 65, 73 and 78
never, for somebody has to do something first. `RestartPreventExitStatus=` in agentd.service lists those.
"""

from __future__ import annotations

import click

from agentd_client import errors

STOPPED = 0
WARNINGS = 1
ERRORS = 2
USAGE = 64
DAMAGED = 65
INTERNAL = 70
SYSTEM = 71
ALREADY_SERVING = 73
STORE = 74
CONFIG = 78
INTERRUPTED = 128 + 2

MEANINGS = {
    STOPPED: "stopped as it was told to",
    USAGE: "the command line is wrong",
    DAMAGED: "the store is damaged",
    INTERNAL: "agentd has a fault",
    SYSTEM: "the operating system refused something",
    ALREADY_SERVING: "another agent serves this socket or uses this store",
    STORE: "the store failed: the disk is full, broken or read-only",
    CONFIG: "settings, key file, a variable, or the path or owner of a file are not usable",
    INTERRUPTED: "interrupted",
}
"""Every code in a few words, as `agentd --help` shows them."""

DOCTOR_MEANINGS = {
    STOPPED: "nothing worse than notes",
    WARNINGS: "there are warnings",
    ERRORS: "there are errors",
}
"""What `agentd doctor` answers with; where it cannot even begin, it ends with one of the others."""

_BY_CLASS: dict[type[BaseException], int] = {
    click.ClickException: USAGE,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
    OSError: SYSTEM,
    errors.AlreadyServingError: ALREADY_SERVING,
    errors.StartError: CONFIG,
    errors.EnvironmentVariableError: CONFIG,
    errors.KeyFileError: CONFIG,
    errors.PassphraseError: CONFIG,
    errors.StoreError: STORE,
    errors.StoreDamagedError: DAMAGED,
    errors.StoreInUseError: ALREADY_SERVING,
    errors.StoreKeyMismatchError: CONFIG,
}


def exit_code(error: BaseException) -> int:
    """The code of the nearest class that the table names; 70 where it names none."""
    return next((_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS), INTERNAL)
