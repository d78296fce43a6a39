"""Writers and readers on one token file: `python -m tests.faults.token_file_stress --seconds 10`.

Every read must be one whole token that some writer wrote. Exits 1 where one was not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.queues import Queue

from agentd_client import Session

TOKEN_CHARACTERS = 400


def token_of(writer: int, number: int) -> str:
    """A token that shows whether it is whole: its head says what the rest must be."""
    head = f"{writer}.{number}."
    return head + str((writer * 7919 + number) % 10) * (TOKEN_CHARACTERS - len(head))


def is_whole(token: str | None) -> bool:
    if token is None:
        return False
    writer, number, _ = token.split(".", 2)
    return token == token_of(int(writer), int(number))


def write(path: str, writer: int, until: float, done: Queue) -> None:
    session, number = Session.create_session(session_token_path=path), 0
    while time.monotonic() < until:
        session.write_token(token_of(writer, number))
        number += 1
    done.put(("written", number))


def read(path: str, until: float, done: Queue) -> None:
    session, whole = Session.create_session(session_token_path=path), 0
    while time.monotonic() < until:
        token = session.read_token()
        if not is_whole(token):
            done.put(("torn", repr(token)))
            return
        whole += 1
    done.put(("read", whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=8)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/session-token"
        Session.create_session(session_token_path=path, session_token=token_of(0, 0))
        done: Queue = multiprocessing.Queue()
        until = time.monotonic() + wanted.seconds
        processes = [
            multiprocessing.Process(target=write, args=(path, number, until, done))
            for number in range(wanted.writers)
        ] + [multiprocessing.Process(target=read, args=(path, until, done)) for _ in range(wanted.readers)]
        for process in processes:
            process.start()
        told = [done.get(timeout=wanted.seconds + 30) for _ in processes]
        for process in processes:
            process.join()
    torn = [what for kind, what in told if kind == "torn"]
    totals = {kind: sum(int(what) for found, what in told if found == kind) for kind in ("written", "read")}
    print(
        f"{wanted.writers} writers, {wanted.readers} readers, {wanted.seconds:g} s: "
        f"{totals['written']} tokens written, {totals['read']} whole tokens read, {len(torn)} torn"
    )
    sys.exit(1 if torn else 0)


if __name__ == "__main__":
    main()
