"""One row of the bench: a thing measured, the yardstick beside it, and the ratio round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Figure(NamedTuple):
    """Medians over the rounds, with the lowest and the highest round."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """`ratio` is ours by theirs, taken in each round, so that a machine that drifts does not move it."""

    name: str
    unit: str
    ours: Figure
    beside: str
    theirs: Figure | None
    ratio: Figure | None


def figure(values: list[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def compare(
    name: str,
    unit: str,
    ours: Callable[[], float],
    beside: str,
    theirs: Callable[[], float],
    rounds: int,
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
    )


def alone(name: str, unit: str, ours: Callable[[], float], rounds: int) -> Row:
    """A figure with nothing to hold beside it."""
    return Row(name, unit, figure([ours() for _ in range(rounds)]), "", None, None)
