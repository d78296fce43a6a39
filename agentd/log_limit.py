"""As many log lines as a reader can use, whatever the peers do.

Whoever can connect can cause ten thousand lines a second. Every line of the agent's log passes this limit,
so nobody who adds one has to think of it. A line's kind is its template, which stands in the code; its
subject is what fills the template. Each distinct cause gets a line of its own, and repetitions are counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

QUIET_SECONDS = 10.0
"""After a line, the same one again is counted for so long, and the count is written then."""

LONGEST_QUIET_SECONDS = 640.0
"""What goes on and on is summed up after a time that doubles each time, up to this one."""

MAX_SUBJECTS = 8
"""Different lines of one kind at a time. More are counted together: a peer can make up any number of them."""

SECONDS_PER_SUBJECT = 30.0
"""Of a kind that had `MAX_SUBJECTS` different lines, one more is written after so long."""

MAX_KINDS = 256
"""More than there are templates. Beyond it, lines whose templates were made up count as one kind."""

_SAME = "{} [{} more since the last such line]"
_OTHER = "{} [the last of {} more lines of this kind]"

_OTHERS = None
_MADE_UP = ""


class _Subject:
    """One line that comes again and again: how often since it was written, and until when that is counted.

    It keeps what it takes to write the line again, not the record: that may hold a traceback, and with it the
    values of its frames.
    """

    __slots__ = ("left_out", "level", "logger", "message", "quiet", "until")

    def __init__(self, now: float) -> None:
        self.quiet = QUIET_SECONDS
        self.until = now + QUIET_SECONDS
        self.left_out = 0
        self.logger, self.level, self.message = "", logging.NOTSET, ""

    def count(self, record: logging.LogRecord, message: str) -> None:
        self.left_out += 1
        self.logger, self.level, self.message = record.name, record.levelno, message

    def sum_up(self, template: str) -> logging.LogRecord | None:
        """The line that tells how many were left out; None where none was."""
        if not self.left_out:
            return None
        text = template.format(self.message, self.left_out)
        self.left_out, self.message = 0, ""
        return logging.LogRecord(self.logger, self.level, "", 0, text, None, None)

    def go_on(self, now: float) -> None:
        self.quiet = min(self.quiet * 2, LONGEST_QUIET_SECONDS)
        self.until = now + self.quiet


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
        subject.count(record, text)
        return False

    def sum_up(self, now: float) -> Iterator[logging.LogRecord]:
        for text, subject in list(self.subjects.items()):
            if subject.until > now:
                continue
            told = subject.sum_up(_OTHER if text is _OTHERS else _SAME)
            if told is None:
                del self.subjects[text]
            else:
                subject.go_on(now)
                yield told

    def is_idle(self, now: float) -> bool:
        """Whether it is as good as one that was never there."""
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
    """Decides which records become lines. `now` is monotonic time; calls are the caller's to serialise."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        """Whether to write it; otherwise it was counted, and `due` gives the count."""
        template = str(record.msg)
        kind = self._kinds.get(template)
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                template = _MADE_UP
            kind = self._kinds.setdefault(template, _Kind(now))
        return kind.admits(record, now)

    def due(self, now: float) -> list[logging.LogRecord]:
        """The lines that sum up what was left out until now; what has become quiet is forgotten."""
        told: list[logging.LogRecord] = []
        for template, kind in list(self._kinds.items()):
            told += kind.sum_up(now)
            if kind.is_idle(now):
                del self._kinds[template]
        return told

    def next_due(self) -> float:
        """When to ask `due` again; infinity where nothing is counted."""
        return min(
            (subject.until for kind in self._kinds.values() for subject in kind.subjects.values()),
            default=math.inf,
        )
