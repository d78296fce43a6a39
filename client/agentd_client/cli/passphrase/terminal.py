"""A passphrase typed on the terminal, which does not show it."""

from __future__ import annotations

import os
from typing import ClassVar

from ...errors import PassphraseError
from ...protocol.limits import MAX_PASSPHRASE_BYTES
from ..hidden_input import read_hidden

_TERMINAL = "/dev/tty"
"""tty(4): the controlling terminal, whatever the standard streams are."""


class Terminal:
    """The terminal that this process was started from."""

    tries: ClassVar[int] = 3
    is_typed: ClassVar[bool] = True

    @staticmethod
    def is_there() -> bool:
        """Whether there is one to ask on."""
        try:
            os.close(_open())
        except OSError:
            return False
        return True

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What is typed up to the end of the line. In the main thread only.

        Raises:
            click.Abort: the input ended instead.
            PassphraseError: it is too long.
        """
        terminal = _open()
        try:
            return read_hidden(
                terminal,
                f"{problem}\n{prompt}".lstrip("\n"),
                MAX_PASSPHRASE_BYTES,
                PassphraseError(f"a passphrase has at most {MAX_PASSPHRASE_BYTES} bytes"),
            )
        finally:
            os.close(terminal)


def _open() -> int:
    return os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
