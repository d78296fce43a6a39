"""What the doctor reports: one finding each, with a stable name, a severity, a sentence and what to do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from ..exit_codes import ERRORS, STOPPED, WARNINGS

_LEAST_ROOM = 40
"""Columns for the text beside the name; if there are fewer, the text goes below it."""

_NARROW_INDENT = 2


class Severity(IntEnum):
    """How much it matters.

    OK: as it should be. NOTE: nothing is wrong, but good to know. WARNING: it works, and something is weaker
    or closer to failing than it has to be. ERROR: the agent cannot serve, or a promise does not hold.
    """

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """As it is shown."""
        return self.name.lower()


_HEADINGS = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.NOTE: ("note", "notes"),
    Severity.OK: ("in order", "in order"),
}


class Finding(NamedTuple):
    """One finding; `name` is stable, `says` and `remedy` are for people and hold no secret."""

    name: str
    severity: Severity
    says: str
    remedy: str = ""


def ok(name: str, says: str) -> Finding:
    """As it should be."""
    return Finding(name, Severity.OK, says)


def note(name: str, says: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(name, Severity.NOTE, says, remedy)


def warning(name: str, says: str, remedy: str) -> Finding:
    """Better fixed."""
    return Finding(name, Severity.WARNING, says, remedy)


def error(name: str, says: str, remedy: str) -> Finding:
    """Has to be fixed."""
    return Finding(name, Severity.ERROR, says, remedy)


def refused(name: str, sentence: str) -> Finding:
    """An error in the words of the agent or client that would refuse it: reasons first, the remedy last."""
    says, separator, remedy = sentence.rpartition("; ")
    return error(name, says, remedy) if separator else error(name, remedy, "fix that")


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity; OK if there are no findings."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 up to notes, 1 if the worst is a warning, 2 if there is an error."""
    return {Severity.WARNING: WARNINGS, Severity.ERROR: ERRORS}.get(worst(findings), STOPPED)


def as_lines(findings: Sequence[Finding], width: int | None) -> Iterator[tuple[Severity | None, str]]:
    """Each finding with its remedy below it, the worst first, and the counts.

    Args:
        findings: at least one.
        width: of the terminal; None for one line each, however long.

    Yields lines, the first one of a finding with its severity.
    """
    names = max(len(finding.name) for finding in findings)
    words = max(len(severity.word) for severity in Severity)
    for finding in sorted(findings, key=lambda finding: -finding.severity):
        head = f"{finding.severity.word:{words}}  {finding.name:{names}}  "
        is_narrow = width is not None and width - len(head) < _LEAST_ROOM
        indent = _NARROW_INDENT if is_narrow else len(head)
        lines = _wrapped(finding.says, width, indent)
        yield finding.severity, head.rstrip() if is_narrow else f"{head}{lines.pop(0)}"
        if finding.remedy:
            lines += _wrapped(f"→ {finding.remedy}", width, indent)
        for line in lines:
            yield None, f"{'':{indent}}{line}"
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _HEADINGS}
    shown = (f"{count} {_HEADINGS[severity][count != 1]}" for severity, count in counts.items() if count)
    yield None, ", ".join(shown)


def _wrapped(text: str, width: int | None, indent: int) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width - indent, 1), break_long_words=False, break_on_hyphens=False)


def as_json(findings: Sequence[Finding]) -> str:
    """One object: the worst severity, and the findings in the order of the checks."""
    shown = [
        finding._asdict() | {"severity": finding.severity.word, "remedy": finding.remedy or None}
        for finding in findings
    ]
    return json.dumps({"severity": worst(findings).word, "findings": shown})
