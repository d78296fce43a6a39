"""`python -m tests.bench.control [ROUNDS [MANY]]`: what a person does with 100 and with 100,000 sessions.

The rows of the bench that are about that alone: listing, verifying, resetting the key. A reset waits for the disk,
which others use too: so it is measured once more, one reset here and one there in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import trio

from tests.bench import load
from tests.bench.__main__ import line
from tests.bench.figures import Row, compare
from tests.bench.suites import MICROSECONDS, controlling, populate
from tests.e2e.daemon import Daemon, scratch_home, serving

FEW, MANY, ROUNDS = 100, 100_000, 7
PAIRS = 300


def resets_in_turn(few: int, many: int, pairs: int) -> Iterator[Row]:
    """Single resets; their records stay until they are swept: every reset meets as many as the first."""
    request = [load.request(1, "resetKey", {})]

    def reset(daemon: Daemon) -> float:
        return load.one_client(str(daemon.home.socket), request)[0] * MICROSECONDS

    with scratch_home() as small, scratch_home() as large:
        trio.run(populate, small, few)
        trio.run(populate, large, many)
        with serving(small) as one, serving(large) as other:
            yield compare(
                f"{pairs} resetKey in turn, {many:,}", "µs",
                lambda: reset(other), f"the same with {few:,} sessions", lambda: reset(one), pairs,
            )  # fmt: skip


def main(rounds: int = ROUNDS, many: int = MANY) -> None:
    print(f"medians of {rounds} rounds (lowest to highest)", flush=True)
    for rows in (controlling(FEW, many, rounds), resets_in_turn(FEW, many, PAIRS)):
        for row in rows:
            print(line(row), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
