"""What the clients of a history do next, drawn at random; what they know they share."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from tests.histories.model import DONE, Operation

FREQUENCIES = {
    "create": 4, "verify": 10, "inspect": 3, "look": 3, "renew": 5, "revoke": 1, "end": 1, "reset": 1,
}  # fmt: skip
TIMED = {"tidy": 1}
GRACES = (None, 30, 300)
LEAPS = (1, 4, 11, 30)


@dataclass
class History:
    """One history as it is recorded.

    tokens, ids: what was answered, by the number of the operation that made it.
    """

    draw: random.Random
    timed: bool = False
    operations: list[Operation] = field(default_factory=list)
    tokens: dict[int, str] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    _ticks: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self, kind: str | None = None, subject: int | None = None) -> Operation:
        """The next operation, invoked now."""
        number = len(self.operations)
        operation = self._drawn(number) if kind is None else Operation(number, kind, subject)
        if kind == "advance":
            operation.lasts = self.draw.choice(LEAPS)
        self.operations.append(operation)
        operation.invoked = next(self._ticks)
        return operation

    def answered(self, operation: Operation, answer: object, made: tuple[str, str] | None = None) -> None:
        """An operation was answered; `made` is the token and the session's id that came with it."""
        operation.answer = answer
        operation.answered = next(self._ticks)
        if made is not None:
            assert answer == DONE
            self.tokens[operation.number], self.ids[operation.number] = made

    def lost(self) -> None:
        """What is not answered by now will never be."""
        for operation in self.operations:
            if not operation.answered:
                operation.answered = next(self._ticks)

    def _drawn(self, number: int) -> Operation:
        frequencies = FREQUENCIES | (TIMED if self.timed else {})
        if not self.tokens:
            frequencies = {"create": 1}
        (kind,) = self.draw.choices(list(frequencies), list(frequencies.values()))
        operation = Operation(number, kind)
        if kind in ("verify", "inspect", "renew", "revoke"):
            operation.subject = self._known(list(self.tokens))
        elif kind in ("look", "end"):
            created = [at for at in self.ids if self.operations[at].kind == "create"]
            operation.subject = self._known(created)
        elif kind == "create":
            if self.tokens and self.draw.random() < 0.4:
                operation.subject = self._known(list(self.tokens))
            operation.uses = self.draw.choice((None, None, 1, 3, 6))
            operation.lasts = self.draw.choice((None, 5, 20, 60)) if self.timed else None
        elif kind == "reset":
            operation.lasts = self.draw.choice(GRACES if self.timed else (None, 300))
        return operation

    def _known(self, numbers: list[int]) -> int:
        # Mostly the newest: clients that never meet prove nothing.
        return numbers[-1 - min(int(self.draw.expovariate(0.5)), len(numbers) - 1)]
