"""What the doctor says: one finding each, with a name that stays, a severity, a sentence and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from ..exit_codes import ERRORS, STOPPED, WARNINGS


class Severity(IntEnum):
    """How much it matters.

    OK: as it should be. NOTE: nothing is wrong, and it is good to know. WARNING: it works, and something is
    weaker or nearer to failing than it need be. ERROR: the agent cannot serve, or a promise does not hold.
    """

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """As it is shown."""
        return self.name.lower()


class Finding(NamedTuple):
    """One finding; `name` is stable, `says` and `remedy` are for people and hold no secret."""

    name: str
    severity: Severity
    says: str
    remedy: str = ""


def ok(name: str, says: str) -> Finding:
    """All is well with it."""
    return Finding(name, Severity.OK, says)


def note(name: str, says: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(name, Severity.NOTE, says, remedy)


def warning(name: str, says: str, remedy: str) -> Finding:
    """Better mended."""
    return Finding(name, Severity.WARNING, says, remedy)


def error(name: str, says: str, remedy: str) -> Finding:
    """Has to be mended."""
    return Finding(name, Severity.ERROR, says, remedy)


def refused(name: str, sentence: str) -> Finding:
    """What the agent or a client would refuse, in the words of that refusal: reasons, and last the remedy."""
    says, separator, remedy = sentence.rpartition("; ")
    return error(name, says, remedy) if separator else error(name, remedy, "put that right")


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity; OK where there are no findings."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 up to notes, 1 where the worst is a warning, 2 where there is an error."""
    return {Severity.WARNING: WARNINGS, Severity.ERROR: ERRORS}.get(worst(findings), STOPPED)
