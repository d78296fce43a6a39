"""The command: from settings and a passphrase to findings on the terminal and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentd_client.cli.output import colour, is_terminal, printable, show_line
from agentd_client.cli.table import terminal_width
from agentd_client.passphrase_input import passphrase_of_file

from .. import process
from ..config import Settings
from ..crypto import wipe
from ..passphrase import passphrase_from_descriptor
from .agent import RunningAgent, SocketPlace
from .files import Folders, KeyFile, SettingsFile, Token
from .findings import Finding, Severity, as_json, as_lines, exit_status
from .installation import Check, Installation, own_limits
from .machine import Clocks, Memory
from .start import Start
from .store import Store
from .units import Units

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


CHECKS: tuple[type[Check], ...] = (
    SettingsFile,
    Start,
    SocketPlace,
    RunningAgent,
    Folders,
    KeyFile,
    Store,
    Token,
    Memory,
    Clocks,
    Units,
)
"""In the order of their findings."""


def run_checks(installation: Installation) -> list[Finding]:
    """The findings of every check."""
    return [finding for check in CHECKS for finding in check.gather(installation).judge()]


def carry_out(
    settings: Settings,
    *,
    config_path: str,
    config_failure: str | None,
    passphrase_file: str | None,
    passphrase_descriptor: int | None,
    json: bool,
) -> int:
    """Run the checks, print the findings and return the exit status.

    Raises:
        ConfigError, PassphraseError: the passphrase cannot be read from the given source.
        OSError: standard output cannot be written.
    """
    process.harden()
    with _passphrase(passphrase_file, passphrase_descriptor) as passphrase:
        findings = run_checks(
            Installation(
                settings,
                config_path=config_path,
                config_failure=config_failure,
                limits=own_limits(),
                passphrase=passphrase,
            )
        )
    if json:
        show_line(as_json(findings))
    else:
        for severity, line in as_lines(findings, terminal_width() if is_terminal() else None):
            shown = printable(line)
            show_line(shown if severity not in _COLOURS else colour(shown, _COLOURS[severity]))
    return exit_status(findings)


@contextmanager
def _passphrase(path: str | None, descriptor: int | None) -> Iterator[bytearray | None]:
    passphrase = None
    if path is not None:
        passphrase = passphrase_of_file(path)
    elif descriptor is not None:
        passphrase = passphrase_from_descriptor(descriptor)
    try:
        yield passphrase
    finally:
        if passphrase is not None:
            wipe(passphrase)
