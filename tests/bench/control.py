"""`python -m tests.bench.control [ROUNDS [MANY]]`: what a person does with 100 and with 100,000 sessions.

The rows of the bench that are about that alone: listing, verifying, resetting the key. A reset waits for the disk,
which others use too: so it is measured once more, one reset here and one there in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import load
from tests.bench.figures import Row, compare
from tests.bench.report import line
from tests.bench.stores import controlling, populated
from tests.bench.subject import Subject, as_in_a_plain_shell

FEW, MANY, ROUNDS = 100, 100_000, 7
PAIRS = 300


def resets_in_turn(subject: Subject, few: int, many: int, pairs: int) -> Iterator[Row]:
    """Single resets; their records stay until they are swept: every reset meets as many as the first."""
    request = [load.request(1, "resetKey", {})]
    with ExitStack() as stack:
        one, other = (stack.enter_context(subject.serving(home)) for home in populated(stack, few, many))
        yield compare(
            f"{pairs} resetKey in turn, {many:,}", "µs",
            lambda: other.one_by_one(request), f"the same with {few:,} sessions",
            lambda: one.one_by_one(request), pairs,
        )  # fmt: skip


def main(rounds: int = ROUNDS, many: int = MANY) -> None:
    as_in_a_plain_shell()
    subject = Subject(Path(sys.executable).parent)
    print(f"medians of {rounds} rounds (lowest to highest)", flush=True)
    for rows in (controlling(subject, FEW, many, rounds), resets_in_turn(subject, FEW, many, PAIRS)):
        for row in rows:
            print(line(row), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
