"""One row of the bench: a thing measured, the yardstick beside it, and the ratio round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

RATE = "/s"


class Figure(NamedTuple):
    """Medians over the rounds, with the lowest and the highest round."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """`ratio` is ours by theirs, taken in each round, so that a machine that drifts does not move it.

    `aim` is what the ratio should be, or the figure itself where there is nothing beside it: at least, where
    it is a rate, and at the most otherwise.
    """

    name: str
    unit: str
    ours: Figure
    beside: str
    theirs: Figure | None
    ratio: Figure | None
    aim: float | None = None

    @property
    def is_rate(self) -> bool:
        return self.unit == RATE

    @property
    def is_reached(self) -> bool:
        """Whether there is no aim, or the median is as good."""
        if self.aim is None:
            return True
        found = (self.ratio or self.ours).median
        return found >= self.aim if self.is_rate else found <= self.aim


def figure(values: list[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def compare(
    name: str,
    unit: str,
    ours: Callable[[], float],
    beside: str,
    theirs: Callable[[], float],
    rounds: int,
    *,
    aim: float | None = None,
) -> Row:
    """Measure both in turn, ours and theirs and ours and theirs, after one of each that does not count."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return Row(
        name,
        unit,
        figure([mine for mine, _ in pairs]),
        beside,
        figure([other for _, other in pairs]),
        figure([mine / other for mine, other in pairs]),
        aim,
    )


def alone(name: str, unit: str, ours: Callable[[], float], rounds: int, *, aim: float | None = None) -> Row:
    """A figure with nothing to hold beside it."""
    return Row(name, unit, figure([ours() for _ in range(rounds)]), "", None, None, aim)
