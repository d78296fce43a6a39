"""The thread that commits to disk: which there are, and one that hangs for as long as a test wants it to."""

from __future__ import annotations

import threading

from agentd.store import DB

GATE_SECONDS = 60  # only a broken test waits so long


def committing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "agentd-store-committer"]


async def hold_commits(db: DB) -> threading.Event:
    """Keep the committing thread busy until the event is set: what is handed over meanwhile waits."""
    gate = threading.Event()
    await db.write(lambda view: None)  # what was handed over before is done
    writer = db._writer
    assert writer is not None
    assert not writer._is_busy
    writer._is_busy = True
    writer._committer.run(lambda: gate.wait(GATE_SECONDS), lambda *_: writer._proceed())
    return gate
