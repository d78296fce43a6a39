"""The agent's log, on standard error: for people, for the journal, or for machines. Never a token or a key.

Which form: `<N>` levels (sd-daemon(3)) where standard error is the journal, readable lines elsewhere, and
JSON where it is asked for.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from typing import TextIO

from . import systemd
from .log_limit import LogLimit
from .log_writer import LogWriter

FINISH_SECONDS = 1.0
"""At the end, for a reader to take what is left. One that has stopped does not keep the process alive."""

LOGGER = logging.getLogger("agentd")
"""The root of the agent's loggers."""

# syslog(3) severities
_SEVERITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalFormatter(logging.Formatter):
    """A severity and the message; the journal knows the time. Every line of a traceback gets its severity."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        severity = _SEVERITY.get(record.levelno, 6)
        return "\n".join(f"<{severity}>{line}" for line in super().format(record).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970), level, logger, message, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        import json  # which nobody needs who has not asked for it

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
    """Limits what peers can cause, and hands the lines to the thread that writes them: it never waits."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._limit = LogLimit()
        self._writer = LogWriter(stream, self._describe_loss, self._sum_up)

    def emit(self, record: logging.LogRecord) -> None:
        """Have it written, or counted."""
        try:
            if self._limit.admits(record, time.monotonic()):
                self._writer.put(self.format(record))
        except (
            Exception
        ):  # a template and arguments that do not fit; logging's own way is to print, and to wait
            template = f"a line of the log could not be made: {record.msg!s}"
            self._writer.put(
                self.format(logging.LogRecord(record.name, record.levelno, "", 0, template, None, None))
            )

    def say(self, text: str) -> None:
        """Have text written as it is, after all that was logged, however full the queue."""
        self._writer.put(text, must=True)

    def finish(self, seconds: float) -> None:
        """Write what waits and what was counted, in that many seconds at most."""
        self.acquire()
        try:
            for record in self._limit.due(math.inf):
                self._writer.put(self.format(record))
        finally:
            self.release()
        self._writer.flush(seconds)

    def _sum_up(self) -> float | None:
        self.acquire()
        try:
            now = time.monotonic()
            for record in self._limit.due(now):
                self._writer.put(self.format(record))
            due = self._limit.next_due() - now
        except RuntimeError:  # garbage was collected in the middle, and what that found was logged
            return 1.0
        finally:
            self.release()
        return None if due == math.inf else due

    def _describe_loss(self, lines: int) -> str:
        text = f"log: {lines} lines are missing here: nothing took them"
        return self.format(logging.LogRecord(LOGGER.name, logging.WARNING, "", 0, text, None, None))


def configure(level: str, form: str = "auto") -> logging.Logger:
    """Send every record of the `agentd` loggers to standard error; returns the root of them."""
    finish()
    LOGGER.handlers[:] = [_handler(form)]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return LOGGER


def take_over() -> None:
    """Send what else is written to standard error by itself the same way: it must not hold up the event loop.

    That is warnings, records of other loggers, and exceptions that nobody can catch. For a process of its
    own; after `configure`.
    """
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = LOGGER.handlers
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_unraisable


def finish() -> None:
    """Wait until all that was logged is written, for `FINISH_SECONDS` at most."""
    for handler in LOGGER.handlers:
        if isinstance(handler, LogHandler):
            handler.finish(FINISH_SECONDS)


def log_fatal(sentence: str, trace: str = "") -> None:
    """Say why this process ends: to machines in the log's form, to people as every command does."""
    if not LOGGER.handlers:  # it ended before the settings were known
        configure("error")
    for handler in LOGGER.handlers:
        if isinstance(handler, LogHandler):
            if trace:
                handler.say(trace)
            if isinstance(handler.formatter, JsonFormatter | JournalFormatter):
                record = logging.LogRecord(LOGGER.name, logging.ERROR, "", 0, sentence, None, None)
                handler.say(handler.format(record))
            else:
                handler.say(f"agentd: {sentence}")
    finish()


def _log_unraisable(unraisable: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> None:
    from .server.log import describe_failure

    if unraisable.exc_value is not None:
        LOGGER.error("an exception that nobody could catch: %s", describe_failure(unraisable.exc_value))


def _handler(form: str) -> logging.Handler:
    if sys.stderr is None:  # closed by whoever started it
        return logging.NullHandler()
    if form == "json":
        return LogHandler(sys.stderr, JsonFormatter())
    if _is_journal(sys.stderr):
        return LogHandler(sys.stderr, JournalFormatter("%(message)s"))
    readable = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    return LogHandler(sys.stderr, readable)


def _is_journal(stream: TextIO) -> bool:
    try:
        return systemd.is_journal(stream.fileno())
    except OSError:  # in a program that put something of its own in the place of standard error
        return False
