"""The histories by hand, with numbers as large as one likes."""

from __future__ import annotations

import argparse
import logging
import sys

from tests.histories import agent, core
from tests.signals import as_in_a_foreground_job

KILLS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, default=1000, help="histories of the manager in this process")
    parser.add_argument("--agent", type=int, default=100, help="histories over the socket")
    parser.add_argument("--killed", type=int, default=50, help=f"histories with {KILLS} kill -9 in each")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)  # superseded tokens are used all the time here
    faults = core.check(range(wanted.seed, wanted.seed + wanted.core))
    print(f"{wanted.core} histories of the core: {len(faults)} unexplained", flush=True)
    for count, kills in ((wanted.agent, 0), (wanted.killed, KILLS)):
        found = agent.check(range(wanted.seed, wanted.seed + count), kills)
        faults += found.faults
        print(
            f"{count} histories over the socket, {count * kills} kills: {found.operations} operations, "
            f"{found.lost} answers lost, {len(found.faults)} unexplained",
            flush=True,
        )
        for what, looked_at in found.promises.looked_at.items():
            print(f"  {found.promises.broken[what]} of {looked_at} {what}")
    print(*faults, sep="\n\n")
    return 1 if faults else 0


if __name__ == "__main__":
    as_in_a_foreground_job()
    sys.exit(main())
