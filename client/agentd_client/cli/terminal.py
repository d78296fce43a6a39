"""Questions on the terminal: for a secret, which it does not show, and for a yes or no.

However reading a secret ends, the terminal echoes again afterwards. Signals that end the process restore it
first and then end the process as they always do. Ctrl-Z restores it for the shell; when the process
continues, the question is asked again, and what was typed before is discarded.
"""

from __future__ import annotations

import locale
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

import click

from ..errors import AgentdError, PassphraseError
from ..passphrase_input import copy, wipe
from ..protocol.limits import MAX_PASSPHRASE_BYTES
from ..protocol.passphrases import TOO_LONG

_TERMINAL = "/dev/tty"
"""tty(4): the controlling terminal, whatever the standard streams are."""

T = TypeVar("T")

_DEFAULT_COLUMNS = 80
"""For a terminal that does not know its width, such as a serial line."""

_MAX_ANSWER_BYTES = 4096
"""A line of a terminal has at most so many (termios(3))."""

_LOCAL_MODES = 3
"""The index of c_lflag in the result of tcgetattr."""

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""SIGINT raises KeyboardInterrupt, which restores the terminal like any other exception."""


def is_there() -> bool:
    """Whether there is a terminal to ask on: the one that this process was started from."""
    try:
        os.close(_open())
    except OSError:
        return False
    return True


def ask(prompt: str, problem: str) -> bytearray:
    """Ask for a passphrase on that terminal; the caller wipes it. Only in the main thread.

    Raises:
        click.Abort: the input ended instead.
        PassphraseError: it is too long.
    """
    terminal = _open()
    try:
        shown = f"{problem}\n{prompt}".lstrip("\n")
        return read_hidden(terminal, shown, MAX_PASSPHRASE_BYTES, PassphraseError(TOO_LONG))
    finally:
        os.close(terminal)


def choice(shown: Callable[[int], Iterable[str]], question: str, answers: Mapping[str, T]) -> T:
    """Show lines on that terminal and ask, until one of the answers is typed. Only in the main thread.

    What was typed before the question is shown is no answer to it.

    Args:
        shown: the lines, for a terminal of so many columns.
        question: what is asked.
        answers: what may be typed, in small letters, and what each means.

    Raises:
        click.Abort: the input ended instead.
    """
    terminal = _open()
    try:
        lines = shown(os.get_terminal_size(terminal).columns or _DEFAULT_COLUMNS)
        _write(terminal, "".join(f"{line}\n" for line in lines))
        with _woken_by_signals() as woken:
            while True:
                with suppress(termios.error):  # the terminal is gone, which reading reports
                    termios.tcflush(terminal, termios.TCIFLUSH)
                _write(terminal, question)
                typed = _line(terminal, woken, _MAX_ANSWER_BYTES, click.Abort())
                answer = typed.decode("utf-8", "replace").strip().casefold()
                if answer in answers:
                    return answers[answer]
    finally:
        os.close(terminal)


def confirmed(question: str) -> bool:
    """Ask before something that cannot be undone, on standard input and error.

    Raises:
        click.UsageError: standard input is no terminal.
        click.Abort: the input ended instead.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, --yes is needed", click.get_current_context())
    # Not click.confirm, which prints a space to standard output.
    while True:
        click.echo(f"{question} [y/N]: ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise click.Abort
        answer = line.strip().casefold()
        if answer in ("y", "yes"):
            return True
        if answer in ("", "n", "no"):
            return False


def _open() -> int:
    return os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _write(terminal: int, text: str) -> None:
    # Bytes of UTF-8 would be control characters to a terminal with an 8-bit character set.
    left = memoryview(text.encode(locale.getencoding(), "backslashreplace"))
    while left:
        left = left[os.write(terminal, left) :]


def read_hidden(terminal: int, prompt: str, max_bytes: int, too_long: AgentdError) -> bytearray:
    """Read a typed line without echo; the caller wipes it. Only in the main thread.

    Raises:
        click.Abort: the input ended instead.
        AgentdError: `too_long`, if it is longer than `max_bytes`.
    """

    def ask() -> None:
        os.write(terminal, prompt.encode())

    with _woken_by_signals() as woken, _without_echo(terminal, ask):
        ask()
        try:
            return _line(terminal, woken, max_bytes, too_long)
        finally:
            os.write(terminal, b"\n")  # the typed one was not echoed


@contextmanager
def _without_echo(terminal: int, ask: Callable[[], None]) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    silent = list(before)
    # NOFLSH: the handlers of Ctrl-C and Ctrl-Z discard what was typed.
    silent[_LOCAL_MODES] = before[_LOCAL_MODES] & ~termios.ECHO | termios.NOFLSH
    is_paused = False

    def set_modes(modes: list[int | list[bytes | int]]) -> None:
        # Discard what was typed before the question, or is left of a line: it is not an answer and not meant
        # for the shell. TCSAFLUSH would do both, but waits for output, which may be stopped (Ctrl-S).
        with suppress(termios.error):  # the terminal is gone, or another job has it
            termios.tcflush(terminal, termios.TCIFLUSH)
            termios.tcsetattr(terminal, termios.TCSANOW, modes)

    def end(number: int, frame: FrameType | None) -> None:
        set_modes(before)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def pause(number: int, frame: FrameType | None) -> None:
        nonlocal is_paused
        is_paused = True
        set_modes(before)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # returns once the process goes on
        signal.signal(number, pause)
        is_paused = False
        go_on(number, frame)

    def go_on(number: int, frame: FrameType | None) -> None:
        # After SIGSTOP, which cannot be caught, the shell may have turned the echo on.
        if not is_paused:
            set_modes(silent)
            ask()

    handlers = dict.fromkeys(_ENDING, end) | {signal.SIGTSTP: pause, signal.SIGCONT: go_on}
    replaced = {}
    try:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # inherited, and meant to stay
                replaced[number] = signal.signal(number, handler)
        set_modes(silent)
        yield
    finally:
        set_modes(before)
        for number, earlier in replaced.items():
            signal.signal(number, earlier)


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """A descriptor that every signal makes readable; one just before a read would not interrupt it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        os.close(reading)


def _line(terminal: int, woken: int, max_bytes: int, too_long: Exception) -> bytearray:
    room = bytearray(max_bytes + 1)
    size = 0
    poller = select.poll()
    poller.register(terminal, select.POLLIN)
    poller.register(woken, select.POLLIN)
    try:
        with memoryview(room) as view:
            while size < len(view):
                ready = dict(poller.poll())
                if woken in ready:
                    os.read(woken, 4096)  # the handlers have run by now
                if terminal not in ready:
                    continue
                count = os.readv(terminal, [view[size:]])
                if count == 0:
                    raise click.Abort
                size += count
                if view[size - 1] == ord("\n"):
                    return copy(view[: size - 1])
        raise too_long
    finally:
        wipe(room)
