"""createToken without a socket: the session manager in this process. `manager_calls.py FOLDER`.

Where its time goes is seen from outside, so that every version of agentd can be asked: the processor time of the
event loop's thread is the operation, a commit is a call of LMDB's in another thread, and what is left is waking
that thread and being woken by it.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lmdb
import trio
from asking import Figures, answer, questions

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB


class CommitTimes:
    """Seconds of each LMDB commit: a profile function for threads other than this one (threading.setprofile).

    A `with` block ends a transaction without a call of `commit`.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event not in ("c_call", "c_return") or called.__name__ not in ("commit", "__exit__"):
            return
        if not isinstance(called.__self__, lmdb.Transaction):
            return
        if event == "c_call":
            self._begun = time.perf_counter()
        else:
            self.seconds.append(time.perf_counter() - self._begun)


async def create(manager: SessionManager, commits: CommitTimes, count: int) -> Figures:
    await manager.create_token()
    whole, operations, committing = [], [], []
    processor = time.process_time()
    for _ in range(count):
        commits.seconds.clear()
        begun, used = time.perf_counter(), time.thread_time()
        await manager.create_token()
        operations.append(time.thread_time() - used)
        whole.append(time.perf_counter() - begun)
        committing.append(sum(commits.seconds))
    processor = time.process_time() - processor
    if not any(committing):
        return {"absent": "no commit was seen in another thread"}
    return {
        "value": statistics.median(whole),
        "processor": processor / count,
        "operation": statistics.median(operations),
        "commit": statistics.median(committing),
    }


async def main(folder: Path) -> None:
    commits = CommitTimes()
    threading.setprofile(commits)
    async with (
        await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring,
        await DB.create_db(db_path=folder / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        for _, count in questions():
            answer(await create(manager, commits, count))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
