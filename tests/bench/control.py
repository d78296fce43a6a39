"""`python -m tests.bench.control [ROUNDS [MANY]]`: what a person does with 100 and with 100,000 sessions.

The rows of the bench that are about that alone: listing, verifying, resetting the key.
"""

from __future__ import annotations

import sys

from tests.bench.__main__ import line
from tests.bench.suites import controlling

FEW, MANY, ROUNDS = 100, 100_000, 7


def main(rounds: int = ROUNDS, many: int = MANY) -> None:
    print(f"medians of {rounds} rounds (lowest to highest)", flush=True)
    for row in controlling(FEW, many, rounds):
        print(line(row), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
