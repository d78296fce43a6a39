"""A line typed on a terminal that does not show it. However it ends, the terminal shows what is typed next.

Signals that end the process restore the terminal first, and then end it as they always do. Ctrl-Z restores
it for the shell. Once the process goes on, the question is asked again: what was typed before is thrown away.
"""

from __future__ import annotations

import os
import select
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from ..errors import AgentdError
from ..handed_over import copy, wipe

_LOCAL_MODES = 3
"""Where tcgetattr(3) of Python has c_lflag."""

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""SIGINT raises KeyboardInterrupt, which restores the terminal like every other exception."""


def read_hidden(terminal: int, prompt: str, max_bytes: int, too_long: AgentdError) -> bytearray:
    """What is typed up to the end of the line, which the caller wipes. In the main thread only.

    Raises:
        click.Abort: the input ended instead.
        AgentdError: `too_long`, where it is that.
    """

    def ask() -> None:
        os.write(terminal, prompt.encode())

    with _woken_by_signals() as woken, _without_echo(terminal, ask):
        ask()
        try:
            return _line(terminal, woken, max_bytes, too_long)
        finally:
            os.write(terminal, b"\n")  # the one that was typed is not shown either


@contextmanager
def _without_echo(terminal: int, ask: Callable[[], None]) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    silent = list(before)
    # NOFLSH: Ctrl-C and Ctrl-Z are left to the handlers, which throw away what was typed.
    silent[_LOCAL_MODES] = before[_LOCAL_MODES] & ~termios.ECHO | termios.NOFLSH
    is_paused = False

    def set_modes(modes: list[int | list[bytes | int]]) -> None:
        # What was typed before the question, or is left of a line, is no answer, and nothing for the shell.
        # TCSAFLUSH would do both, but first it waits for the output, which may have been stopped (Ctrl-S).
        with suppress(termios.error):  # the terminal is gone, or another job has it: then it is asked again
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
        # After SIGSTOP, which nobody can catch, the shell may have turned the echo on as well.
        if not is_paused:
            set_modes(silent)
            ask()

    handlers = dict.fromkeys(_ENDING, end) | {signal.SIGTSTP: pause, signal.SIGCONT: go_on}
    replaced = {}
    try:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # who started this wants it ignored
                replaced[number] = signal.signal(number, handler)
        set_modes(silent)
        yield
    finally:
        set_modes(before)
        for number, earlier in replaced.items():
            signal.signal(number, earlier)


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """What becomes readable with every signal: one that comes just before a read does not interrupt it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        os.close(reading)


def _line(terminal: int, woken: int, max_bytes: int, too_long: AgentdError) -> bytearray:
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
