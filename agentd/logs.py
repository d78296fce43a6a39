"""The agent's log, on standard error. It never contains a token or a key.

Lines have `<N>` levels (sd-daemon(3)) if standard error is the journal, and are for people otherwise; JSON
has to be set. A thread of its own writes them.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from io import UnsupportedOperation
from typing import TextIO

from . import systemd
from .log_limit import LogLimit

FINISH_SECONDS = 1.0
"""At exit, for a reader to take the rest. A reader that has stopped does not keep the process alive."""

MAX_WAITING_CHARACTERS = 256 * 1024
"""Of text that waits to be written, some 2,500 lines: far more than a start and a stop log."""

LOGGER = logging.getLogger("agentd")
"""The root of the agent's loggers."""

# syslog(3) severities
_SEVERITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class LogWriter:
    """A bounded queue of text, and a thread that writes it, so that no reader delays the event loop.

    Text that finds no room in the queue, or cannot be written, is counted; the count is written in its place
    as soon as writing works again. Any thread may `put`, and none of them waits. The writing thread is a
    daemon and writes to the descriptor: the interpreter would wait at exit for the lock of a stream in use.

    Args:
        stream: written to through its descriptor, if it has one.
        describe_loss: returns the line that says how many are missing.
        between_lines: called in the thread before it waits; returns the seconds until the next call, or None.
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
        # An RLock: a garbage collection can happen here and log something.
        self._changed = threading.Condition(threading.RLock())
        # Texts, and the number of lines that are lost with each if it cannot be written.
        self._waiting: deque[tuple[str, int]] = deque()
        self._characters = 0
        self._lost = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None

    def put(self, line: str, *, must: bool = False) -> None:
        """Queue a line, or count it if there is no room; with `must` there is always room."""
        with self._changed:
            has_room = self._characters + len(line) <= MAX_WAITING_CHARACTERS or not self._waiting
            if not (has_room or must):
                self._lost += 1
                return
            self._append_loss()
            self._append(line, 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentd log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written; False if it is not by then."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._is_writing), seconds)

    def _append(self, line: str, lines: int) -> None:
        self._waiting.append((line + "\n", lines))
        self._characters += len(line)

    def _append_loss(self) -> None:
        if self._lost:
            self._append(self._describe_loss(self._lost), self._lost)
            self._lost = 0

    def _run(self) -> None:
        # Signals are for the main thread. With SIGTTOU blocked, a background job can write to a terminal with
        # `stty tostop`; otherwise the terminal would stop the whole process (termios(3)).
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        while True:
            seconds = self._between_lines()
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting, seconds):
                    continue
                text, lines = self._waiting.popleft()
                self._characters -= len(text) - 1
                self._is_writing = True
            is_written = True
            try:
                self._write(text)
            except (OSError, ValueError):  # no reader, a full disk, a closed stream
                is_written = False
            with self._changed:
                self._is_writing = False
                if not is_written:
                    self._lost += lines
                elif not self._waiting:
                    self._append_loss()
                self._changed.notify_all()


def _writing_to(stream: TextIO) -> Callable[[str], object]:
    try:
        descriptor = stream.fileno()
    except (UnsupportedOperation, OSError, ValueError):  # the embedding program replaced it
        return stream.write

    def write(text: str) -> None:
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # a process that shares the descriptor made it non-blocking
                waiting = select.poll()
                waiting.register(descriptor, select.POLLOUT)
                waiting.poll()

    return write


class JournalFormatter(logging.Formatter):
    """A severity and the message; the journal adds the time. Each line of a traceback has the severity."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        severity = _SEVERITY.get(record.levelno, 6)
        return "\n".join(f"<{severity}>{line}" for line in super().format(record).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970), level, logger, message, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        import json  # only if it is set

        document: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            document["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(document)


class LogHandler(logging.Handler):
    """Limits the lines that peers can cause, and queues them for the writing thread; never waits."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._limit = LogLimit()
        self._writer = LogWriter(stream, self._describe_loss, self._sum_up)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, or count it."""
        try:
            if self._limit.admits(record, time.monotonic()):
                self._writer.put(self.format(record))
        except Exception:  # arguments that do not fit the template; logging itself would print that, and wait
            text = f"a log record could not be formatted: {record.msg!s}"
            self._writer.put(self.format(_record(text, record.levelno, record.name)))

    def say(self, text: str) -> None:
        """Write text as it is, after everything logged before, even if the queue is full."""
        self._writer.put(text, must=True)

    def finish(self, seconds: float) -> None:
        """Write what is queued and what was counted, in that many seconds at most."""
        self._put_due(math.inf)
        self._writer.flush(seconds)

    def _put_due(self, now: float) -> float:
        """Write the counts that are due; returns when the next are."""
        self.acquire()
        try:
            for record in self._limit.due(now):
                self._writer.put(self.format(record))
            return self._limit.next_due()
        finally:
            self.release()

    def _sum_up(self) -> float | None:
        now = time.monotonic()
        try:
            due = self._put_due(now)
        except RuntimeError:  # a garbage collection happened here and logged something
            return 1.0
        return None if due == math.inf else due - now

    def _describe_loss(self, lines: int) -> str:
        text = f"log: {lines} lines are missing here: they could not be written"
        return self.format(_record(text, logging.WARNING))


def configure(level: str, form: str = "auto") -> logging.Logger:
    """Send every record of the `agentd` loggers to standard error; returns their root."""
    finish()
    LOGGER.handlers[:] = [_handler(form)]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return LOGGER


def take_over() -> None:
    """Log warnings, records of other loggers and uncatchable exceptions too: printing could block.

    For a process of its own, not for an embedded core; after `configure`.
    """
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = LOGGER.handlers
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_unraisable


def finish() -> None:
    """Wait until everything logged is written, for `FINISH_SECONDS` at most."""
    for handler in LOGGER.handlers:
        if isinstance(handler, LogHandler):
            handler.finish(FINISH_SECONDS)


def log_fatal(sentence: str, trace: str = "") -> None:
    """Say why this process ends: in the log's form for machines, as every command does for people."""
    if not LOGGER.handlers:  # before the settings are known
        configure("error")
    for handler in LOGGER.handlers:
        if isinstance(handler, LogHandler):
            if trace:
                handler.say(trace)
            if isinstance(handler.formatter, JsonFormatter | JournalFormatter):
                handler.say(handler.format(_record(sentence, logging.ERROR)))
            else:
                handler.say(f"agentd: {sentence}")
    finish()


def _record(text: str, level: int, name: str = LOGGER.name) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, None, None)


def _log_unraisable(unraisable: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> None:
    from .server.log import describe_failure

    if unraisable.exc_value is not None:
        LOGGER.error("uncatchable exception: %s", describe_failure(unraisable.exc_value))


def _handler(form: str) -> logging.Handler:
    if sys.stderr is None:  # closed by the parent
        return logging.NullHandler()
    if form == "json":
        return LogHandler(sys.stderr, JsonFormatter())
    with suppress(OSError):  # the embedding program replaced standard error
        if systemd.is_journal(sys.stderr.fileno()):
            return LogHandler(sys.stderr, JournalFormatter("%(message)s"))
    readable = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    return LogHandler(sys.stderr, readable)
