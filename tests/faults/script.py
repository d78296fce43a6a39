"""A short life of a store and its sessions, told line by line: what is acknowledged here has to be true ever after.

`python -m tests.faults.script FOLDER` waits for a line on standard input, so that a tracer can attach, and
ends with 0, or with 74 where the store refused to start.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import AgentdError

STORE_FAILED = 74


def tell(*words: str) -> None:
    print(*words, flush=True)


async def attempt(what: str, operation: Callable[[], Awaitable[object]], *subject: str) -> object:
    """Carry out one operation between two lines: what is about to happen, and how it went."""
    tell("trying", what, *subject)
    try:
        result = await operation()
    except AgentdError as error:
        tell("refused", what, error.code, error.sentence)
        return None
    tell("done", what, *subject, *([result] if isinstance(result, str) else []))
    return result


async def live(folder: Path) -> int:
    try:
        async with await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring:
            db = DB(folder / "store", key_ring, map_bytes=1024 * 1024)
            async with db:
                await db.start()
                await use(db, await SessionManager.create_session_manager(db=db, key_ring=key_ring))
    except AgentdError as error:
        tell("refused", "start", error.code, error.sentence)
        return STORE_FAILED
    return 0


async def use(db: DB, manager: SessionManager) -> None:
    tell("done", "start")
    made = [await attempt("create", manager.create_token) for _ in range(3)]
    if isinstance(made[0], str):
        token = made[0]
        await attempt("revoke", lambda: manager.revoke_token(token), token)
    await attempt("reset", manager.reset_key)
    await attempt("create", manager.create_token)
    await attempt("stop", manager.stop)
    await attempt("close", db.stop)


def main(folder: str) -> int:
    logging.basicConfig(stream=sys.stderr)
    tell("ready")
    sys.stdin.readline()
    return trio.run(live, Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
