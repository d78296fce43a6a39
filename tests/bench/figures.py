"""One row of the bench: a thing measured, the yardstick beside it, and the ratio round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

RATE = "/s"


class AbsentError(Exception):
    """What a figure would be taken of is not there; says what is missing."""


class Sample(NamedTuple):
    """One measurement: the figure, and the processor time of one operation.

    Processor time is in the figure's own unit of time, and of a rate in microseconds. Whose it is, the row says.
    """

    value: float
    processor: float | None = None


class Figure(NamedTuple):
    """Medians over the rounds, with the lowest and the highest round."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """`ratio` is ours by theirs, taken in each round, so that a machine that drifts does not move it.

    `aim` is what the ratio should be, or the figure itself where there is nothing beside it: at least, where
    it is a rate, and at the most otherwise. `absent` says why one of the two sides was not measured.
    """

    name: str
    unit: str
    ours: Figure | None
    beside: str = ""
    theirs: Figure | None = None
    ratio: Figure | None = None
    aim: float | None = None
    processor: Figure | None = None
    their_processor: Figure | None = None
    absent: str = ""

    @property
    def is_rate(self) -> bool:
        return self.unit == RATE

    @property
    def found(self) -> Figure | None:
        """What is held against the aim: nothing where the yardstick is absent."""
        return self.ratio if self.beside else self.ours

    @property
    def is_reached(self) -> bool:
        """Whether the median is as good as the aim, or there is no aim, or nothing to hold against it."""
        if self.aim is None or self.found is None:
            return True
        return self.found.median >= self.aim if self.is_rate else self.found.median <= self.aim


def figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def figures(samples: Sequence[Sample]) -> tuple[Figure, Figure | None]:
    """Of the values, and of the processor times where they were taken."""
    processor = [sample.processor for sample in samples if sample.processor is not None]
    return figure([sample.value for sample in samples]), figure(processor) if processor else None


def compare(
    name: str,
    unit: str,
    ours: Callable[[], Sample],
    beside: str,
    theirs: Callable[[], Sample],
    rounds: int,
    *,
    aim: float | None = None,
) -> Row:
    """Measure both in turn, ours and theirs and ours and theirs, after one of each that does not count."""
    ours()
    try:
        theirs()
    except AbsentError as reason:
        mine, processor = figures([ours() for _ in range(rounds)])
        return Row(name, unit, mine, beside, aim=aim, processor=processor, absent=str(reason))
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    mine, processor = figures([sample for sample, _ in pairs])
    other, their_processor = figures([sample for _, sample in pairs])
    ratio = figure([sample.value / yardstick.value for sample, yardstick in pairs])
    return Row(name, unit, mine, beside, other, ratio, aim, processor, their_processor)


def alone(name: str, unit: str, samples: Sequence[Sample], *, aim: float | None = None) -> Row:
    """A figure with nothing to hold beside it."""
    ours, processor = figures(samples)
    return Row(name, unit, ours, aim=aim, processor=processor)


def by_itself(row: Row, name: str, *, aim: float) -> Row:
    """Our side of a row that was measured beside another, held against an aim of its own."""
    return Row(name, row.unit, row.ours, aim=aim, processor=row.processor)


def processor_of(row: Row, name: str, unit: str, *, aim: float) -> Row:
    """The processor time of our side of a row, as a row."""
    return Row(name, unit, row.processor, aim=aim)


def missing(name: str, unit: str, reason: str) -> Row:
    """Nothing was measured, and why."""
    return Row(name, unit, None, absent=reason)
