"""The limit on log lines that peers can cause.

A program that can connect can cause ten thousand lines a second. Every record passes this limit, so a new log
call needs no limit of its own. A record's template, from the code, is its kind; the formatted text is its
subject. Each distinct subject is logged once, and repetitions are counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

INTERVAL_SECONDS = 10.0
"""For this long after a line, the same line is only counted; then the count is written."""

MAX_INTERVAL_SECONDS = 640.0
"""The interval between counts of a line that goes on doubles each time, up to this one."""

MAX_SUBJECTS = 8
"""Per kind at a time. More are counted together, because a peer can make up any number of them."""

SECONDS_PER_SUBJECT = 30.0
"""A kind that has used up its `MAX_SUBJECTS` lines gets one more after this time."""

MAX_KINDS = 256
"""More than there are templates in the code. Beyond it, all other templates count as one kind."""

_SAME = "{} [{} more since the last such line]"
_OTHER = "{} [the last of {} more lines of this kind]"

_OTHERS = None
_REST = ""


class _Subject:
    """A line that repeats: the count since it was last written, and when to write that.

    It keeps the text of the line and not the record, which may have a traceback with the values of its
    frames.
    """

    __slots__ = ("interval", "level", "logger", "message", "suppressed", "until")

    def __init__(self, now: float) -> None:
        self.interval = INTERVAL_SECONDS
        self.until = now + INTERVAL_SECONDS
        self.suppressed = 0
        self.logger, self.level, self.message = "", logging.NOTSET, ""


class _Kind:
    """The lines of one template."""

    def __init__(self, now: float) -> None:
        self.subjects: dict[str | None, _Subject] = {}
        self._lines = float(MAX_SUBJECTS)
        self._as_of = now

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        text = record.getMessage()
        subject = self.subjects.get(text)
        if subject is None and self._take_line(now):
            self.subjects[text] = _Subject(now)
            return True
        if subject is None:
            subject = self.subjects.setdefault(_OTHERS, _Subject(now))
        subject.suppressed += 1
        subject.logger, subject.level, subject.message = record.name, record.levelno, text
        return False

    def sum_up(self, now: float) -> Iterator[logging.LogRecord]:
        for text, subject in list(self.subjects.items()):
            if subject.until > now:
                continue
            if not subject.suppressed:
                del self.subjects[text]
                continue
            line = (_OTHER if text is _OTHERS else _SAME).format(subject.message, subject.suppressed)
            yield logging.LogRecord(subject.logger, subject.level, "", 0, line, None, None)
            subject.suppressed, subject.message = 0, ""
            subject.interval = min(subject.interval * 2, MAX_INTERVAL_SECONDS)
            subject.until = now + subject.interval

    def is_idle(self, now: float) -> bool:
        """Whether it can be dropped: a new one would behave the same."""
        self._refill(now)
        return not self.subjects and self._lines == MAX_SUBJECTS

    def _take_line(self, now: float) -> bool:
        self._refill(now)
        if self._lines < 1 or len(self.subjects) > MAX_SUBJECTS:
            return False
        self._lines -= 1
        return True

    def _refill(self, now: float) -> None:
        self._lines = min(self._lines + (now - self._as_of) / SECONDS_PER_SUBJECT, MAX_SUBJECTS)
        self._as_of = now


class LogLimit:
    """Decides which records become lines. `now` is monotonic time. Not thread-safe."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        """Whether to write the record; if not, it is counted, and `due` returns the count."""
        template = str(record.msg)
        kind = self._kinds.get(template)
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                template = _REST
            kind = self._kinds.setdefault(template, _Kind(now))
        return kind.admits(record, now)

    def due(self, now: float) -> list[logging.LogRecord]:
        """The lines with the counts that are due; drops lines and kinds that have stopped."""
        summaries: list[logging.LogRecord] = []
        for template, kind in list(self._kinds.items()):
            summaries += kind.sum_up(now)
            if kind.is_idle(now):
                del self._kinds[template]
        return summaries

    def next_due(self) -> float:
        """When to call `due` again; infinity if nothing is counted."""
        return min(
            (subject.until for kind in self._kinds.values() for subject in kind.subjects.values()),
            default=math.inf,
        )
