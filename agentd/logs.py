"""The agent's log, on standard error: for people, for the journal, or for machines. Never a token or a key.

Which form: `<N>` levels (sd-daemon(3)) where standard error is the journal, readable lines elsewhere, and
JSON where it is asked for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from typing import TextIO

from . import systemd

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json")

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
        document: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            document["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(document)


def configure(level: str, form: str = "auto") -> logging.Logger:
    """Send every record of the `agentd` loggers to standard error; returns the root of them."""
    LOGGER.handlers[:] = [_handler(form)]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return LOGGER


def last_words(sentence: str) -> None:
    """Say why this process ends: to machines in the log's form, to people as every command does."""
    if not LOGGER.handlers:  # it ended before the settings were known
        configure("error")
    if any(isinstance(handler.formatter, JsonFormatter | JournalFormatter) for handler in LOGGER.handlers):
        LOGGER.error(sentence)
    elif sys.stderr is not None:
        try:
            print(f"agentd: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - not a log line
        except OSError:
            # Nobody reads any more; the exit code still tells. What is left in the buffer would be tried
            # again at the interpreter's end, which would change that code.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def _handler(form: str) -> logging.Handler:
    if sys.stderr is None:  # closed by whoever started it
        return logging.NullHandler()
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    elif _is_journal(sys.stderr):
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def _is_journal(stream: TextIO) -> bool:
    try:
        return systemd.is_journal(stream.fileno())
    except OSError:  # in a program that put something of its own in the place of standard error
        return False
