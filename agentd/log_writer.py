"""Writes the log in a thread of its own: a stopped terminal or a full pipe holds up nobody else.

The queue is bounded, and what finds no room in it, or cannot be written, is counted. The count stands in the
log where the lines are missing, as soon as it can be written again.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from io import UnsupportedOperation
from typing import TextIO

MAX_WAITING_CHARACTERS = 256 * 1024
"""Text that waits to be written, some 2,500 lines: far more than a start and a stop have to say."""


class LogWriter:
    """A bounded queue of text, and the thread that writes it to a stream.

    Any thread may `put`, and none of them waits. The thread begins with the first text and ends with the
    process, however long a write takes: it is a daemon, and writes to the descriptor itself, because Python's
    end would wait for the lock of a stream in use.

    Args:
        stream: where to; its descriptor where it has one.
        describe_loss: the line that says how many were left out.
        between_lines: called in the thread before it waits; gives the seconds after which to call it again,
            or None.
    """

    def __init__(
        self,
        stream: TextIO,
        describe_loss: Callable[[int], str],
        between_lines: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._write = _writing_to(stream)
        self._describe_loss = describe_loss
        self._between_lines = between_lines
        # An RLock: the interpreter may collect garbage anywhere, and what it finds may be logged.
        self._changed = threading.Condition(threading.RLock())
        # Texts, and how many lines are lost with each where it cannot be written.
        self._waiting: deque[tuple[str, int]] = deque()
        self._characters = 0
        self._left_out = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None

    def put(self, line: str, *, must: bool = False) -> None:
        """Have a line written, or count it where there is no room; `must` makes it stay in any case."""
        with self._changed:
            has_room = self._characters + len(line) <= MAX_WAITING_CHARACTERS or not self._waiting
            if not (has_room or must):
                self._left_out += 1
                return
            self._append_loss()
            self._append(line, 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentd log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, at most so long; False where something is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._is_writing), seconds)

    def _append(self, line: str, lines: int) -> None:
        self._waiting.append((line + "\n", lines))
        self._characters += len(line)

    def _append_loss(self) -> None:
        if self._left_out:
            self._append(self._describe_loss(self._left_out), self._left_out)
            self._left_out = 0

    def _run(self) -> None:
        # Signals are for the main thread. With SIGTTOU blocked, a job in the background may write to a
        # terminal with `stty tostop` instead of being stopped, event loop and all (termios(3)).
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        while True:
            seconds = self._between_lines()
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting, seconds):
                    continue
                text, lines = self._waiting.popleft()
                self._characters -= len(text) - 1
                self._is_writing = True
            is_written = self._try_to_write(text)
            with self._changed:
                self._is_writing = False
                if not is_written:
                    self._left_out += lines
                elif not self._waiting:
                    self._append_loss()
                self._changed.notify_all()

    def _try_to_write(self, text: str) -> bool:
        try:
            self._write(text)
        except (OSError, ValueError):  # nobody reads, the disk is full, the stream was closed
            return False
        return True


def _writing_to(stream: TextIO) -> Callable[[str], object]:
    try:
        descriptor = stream.fileno()
    except (UnsupportedOperation, OSError, ValueError):  # a program put something of its own in its place
        return stream.write

    def write(text: str) -> None:
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                waiting = select.poll()
                waiting.register(descriptor, select.POLLOUT)
                waiting.poll()

    return write
