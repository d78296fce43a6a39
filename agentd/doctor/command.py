"""The command: from settings and a passphrase to findings on the terminal and an exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentd_client.cli.output import colour, is_terminal, printable, show_line
from agentd_client.cli.table import terminal_width
from agentd_client.passphrase_input import passphrase_of_file

from .. import process
from ..config import Settings
from ..passphrase import passphrase_from_descriptor, wiping
from .agent import check_agent, check_socket
from .files import check_folders, check_key, check_settings, check_token
from .findings import Finding, Severity, as_json, as_lines, exit_status
from .installation import Installation
from .machine import check_clocks, check_memory
from .program import check_program
from .start import check_start
from .store import check_store
from .units import check_units

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}

CHECKS: tuple[Callable[[Installation], Iterable[Finding]], ...] = (
    check_settings,
    check_start,
    check_socket,
    check_agent,
    check_folders,
    check_key,
    check_store,
    check_token,
    check_memory,
    check_clocks,
    check_program,
    check_units,
)
"""In the order of their findings. Whatever a check meets, it raises nothing."""


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
    passphrase = None
    if passphrase_file is not None:
        passphrase = passphrase_of_file(passphrase_file)
    elif passphrase_descriptor is not None:
        passphrase = passphrase_from_descriptor(passphrase_descriptor)
    installation = Installation(
        settings, config_path=config_path, config_failure=config_failure, passphrase=passphrase
    )
    with wiping(passphrase):
        findings = [finding for check in CHECKS for finding in check(installation)]
    if json:
        show_line(as_json(findings))
    else:
        for severity, line in as_lines(findings, terminal_width() if is_terminal() else None):
            shown = printable(line)
            show_line(shown if severity not in _COLOURS else colour(shown, _COLOURS[severity]))
    return exit_status(findings)
