"""A passphrase typed on the terminal, which does not show it."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import click

from ...errors import PassphraseError
from ...handed_over import copy, wipe
from ...protocol.limits import MAX_PASSPHRASE_BYTES

_TERMINAL = "/dev/tty"
"""tty(4): the controlling terminal, whatever the standard streams are."""

_LOCAL_MODES = 3
"""Where tcgetattr(3) of Python has c_lflag."""


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
        """What is typed up to the end of the line.

        Raises:
            click.Abort: the input ended instead.
            PassphraseError: it is too long.
        """
        terminal = _open()
        try:
            with _without_echo(terminal):
                os.write(terminal, f"{problem}\n{prompt}".lstrip("\n").encode())
                try:
                    return _line(terminal)
                finally:
                    os.write(terminal, b"\n")  # the one that was typed is not shown either
        finally:
            os.close(terminal)


def _open() -> int:
    return os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


@contextmanager
def _without_echo(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    silent = list(before)
    silent[_LOCAL_MODES] = before[_LOCAL_MODES] & ~termios.ECHO | termios.NOFLSH
    # Ctrl-Z would give the terminal to a shell that turns the echo on again, for what is typed after `fg`.
    stopping = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        # Flushed both times: what was typed before the question, or is left of a line, is no answer.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGTSTP, stopping)


def _line(terminal: int) -> bytearray:
    room = bytearray(MAX_PASSPHRASE_BYTES + 1)
    size = 0
    try:
        with memoryview(room) as view:
            while size < len(view):
                count = os.readv(terminal, [view[size:]])
                if count == 0:
                    raise click.Abort
                size += count
                if view[size - 1] == ord("\n"):
                    return copy(view[: size - 1])
        raise PassphraseError(f"a passphrase has at most {MAX_PASSPHRASE_BYTES} bytes")
    finally:
        wipe(room)
