"""The command's work: from settings and a passphrase to lines and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentd_client.cli.output import colour, is_terminal, printable, show_line
from agentd_client.cli.table import terminal_width
from agentd_client.passphrase_input import passphrase_of_file

from .. import process
from ..config import Settings
from ..crypto import wipe
from ..passphrase_sources import passphrase_from_descriptor
from .checks import examined
from .finding import Severity, exit_status
from .report import as_json as json_of
from .report import as_lines
from .scene import Scene, own_limits

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def carry_out(
    settings: Settings,
    *,
    config_path: str,
    config_failure: str | None,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> int:
    """Examine, print and return the exit status.

    Raises:
        ConfigError, PassphraseError: the passphrase cannot be read from where it should be.
        OSError: standard output cannot be written.
    """
    process.harden()
    with _passphrase(passphrase_file, passphrase_fd) as passphrase:
        findings = examined(
            Scene(
                settings,
                config_path=config_path,
                config_failure=config_failure,
                limits=own_limits(),
                passphrase=passphrase,
            )
        )
    if as_json:
        show_line(json_of(findings))
    else:
        for severity, line in as_lines(findings, terminal_width() if is_terminal() else None):
            shown = printable(line)
            show_line(colour(shown, _COLOURS[severity]) if severity in _COLOURS else shown)
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
