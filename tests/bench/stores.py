"""What is measured with few and with many sessions in the store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import trio

from agentd.crypto import random_bytes
from agentd.keys import KeyRing
from agentd.sessions import SessionManager, SystemClock
from agentd.sessions.records import SessionRecord, session_id, session_path
from agentd.sessions.rules import ends_after, to_milliseconds
from agentd.store import DB, View
from tests.bench import load
from tests.bench.figures import Row, Sample, compare
from tests.bench.load import Server
from tests.bench.rows import CALLS, verifications
from tests.bench.subject import Subject, run
from tests.e2e.daemon import Home, scratch_home

EXPIRY_SECONDS = 8 * 3600
STEP = 500  # records in one transaction while a store is filled


async def populate(home: Home, count: int) -> None:
    """Open `count` sessions straight in the store; nobody needs their tokens.

    By this checkout's agentd, whichever is measured: what is on disk is the same.
    """
    clock = SystemClock()
    async with (
        await KeyRing.create_key_ring(keys_path=home.state / "keys") as key_ring,
        await DB.create_db(db_path=home.state / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        key_id = manager.key_id
        for start in range(0, count, STEP):
            now = clock.read()
            expires, boot_expires = ends_after(EXPIRY_SECONDS, now)
            records = [
                SessionRecord(
                    session_id(random_bytes(16), at), "bench", to_milliseconds(now.wall), expires, now.boot_id,
                    boot_expires, opened_uid=0, opened_pid=1, ttl=EXPIRY_SECONDS,
                )
                for at in range(start, min(start + STEP, count))
            ]  # fmt: skip

            def put(view: View, records: list[SessionRecord] = records) -> None:
                for record in records:
                    view.put(session_path(key_id, record.session_id), record.encode())

            await db.write(put)


def populated(stack: ExitStack, *counts: int) -> list[Home]:
    """Homes with so many sessions each, until the stack is left."""
    homes = [stack.enter_context(scratch_home()) for _ in counts]
    for home, count in zip(homes, counts, strict=True):
        trio.run(populate, home, count)
    return homes


def scaling(subject: Subject, few: int, many: int, rounds: int) -> Iterator[Row]:
    """The same questions with few and with many sessions in the store."""
    with ExitStack() as stack:
        small, large = populated(stack, few, many)
        beside = f"the same with {few:,} sessions"
        yield compare(
            f"start to ready, {many:,} sessions", "ms", lambda: subject.start_to_ready(large),
            beside, lambda: subject.start_to_ready(small), rounds * 2, aim=1.1,
        )  # fmt: skip
        one, other = (stack.enter_context(subject.serving(home)) for home in (small, large))

        def verify(agent: Server) -> Callable[[], Sample]:
            known = verifications(agent, 100) * (CALLS // 100)
            return lambda: agent.one_by_one(known)

        yield compare(
            f"verifyToken p50, {many:,} sessions", "µs", verify(other), beside, verify(one), rounds, aim=1.05
        )


def controlling(subject: Subject, few: int, many: int, rounds: int) -> Iterator[Row]:
    """What a person does with few and with many sessions in the store. The reset comes last: it ends them."""
    with ExitStack() as stack:
        small, large = populated(stack, few, many)
        beside = f"the same with {few:,} sessions"
        one, other = (stack.enter_context(subject.serving(home)) for home in (small, large))

        def listing(home: Home) -> Callable[[], Sample]:
            return lambda: run(subject.agentctl, "list", "--limit", "20", environ=home.environ)

        def verify(agent: Server) -> Callable[[], Sample]:
            known = verifications(agent) * CALLS
            return lambda: agent.one_by_one(known)

        def reset(agent: Server) -> Callable[[], Sample]:
            # Their records stay until they are swept: every reset meets as many as the first.
            return lambda: agent.one_by_one([load.request(1, "resetKey", {})] * 20)

        yield compare(
            f"agentctl list --limit 20, {many:,}", "ms", listing(large), beside, listing(small), rounds * 3
        )
        yield compare(f"verifyToken p50, {many:,} sessions", "µs", verify(other), beside, verify(one), rounds)
        yield compare(f"resetKey p50, {many:,} sessions", "µs", reset(other), beside, reset(one), rounds)


def file_system() -> str:
    """Of the folder that all stores are made in, and those of the neighbours."""
    folder, found = os.path.realpath(tempfile.gettempdir()), ("", "unknown")
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, place, kind, *_ = line.split()
            if os.path.commonpath([folder, place]) == place and len(place) >= len(found[0]):
                found = place, kind
    return found[1]
