"""The findings in two forms: lines for people, one JSON object for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from .finding import Finding, Severity, worst

_LEAST_ROOM = 40
"""Beside the name; where there is less, the text stands below it."""

_NARROW_INDENT = 2
_HEADINGS = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.NOTE: ("note", "notes"),
    Severity.OK: ("in order", "in order"),
}


def as_lines(findings: Sequence[Finding], width: int | None) -> Iterator[tuple[Severity | None, str]]:
    """What each finding says, the worst first, what to do below it, and the sum.

    Args:
        findings: at least one.
        width: where to begin a new line; None for one line each.

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
    yield None, _sum(findings)


def _wrapped(text: str, width: int | None, indent: int) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width - indent, 1), break_long_words=False, break_on_hyphens=False)


def as_json(findings: Sequence[Finding]) -> str:
    """One object: the worst severity, and the findings in the order of the checks."""
    return json.dumps(
        {
            "severity": worst(findings).word,
            "findings": [
                {
                    "name": finding.name,
                    "severity": finding.severity.word,
                    "says": finding.says,
                    "remedy": finding.remedy or None,
                }
                for finding in findings
            ],
        }
    )


def _sum(findings: Sequence[Finding]) -> str:
    counts = {
        severity: sum(finding.severity == severity for finding in findings) for severity in reversed(Severity)
    }
    return ", ".join(
        f"{count} {_HEADINGS[severity][count != 1]}" for severity, count in counts.items() if count
    )
