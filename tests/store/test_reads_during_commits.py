"""Reads during commits: without LMDB's reader table, only the order of calls protects a snapshot."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable

import pytest
import trio

from agentd.store import DB, View
from agentd.store.environment import Batch

KEYS = 200
TOGETHER = 12
"""Keys that every commit writes with one version, so that a mixture of two states is detected."""

COMMITS = 1000


async def test_a_read_sees_one_consistent_state_during_a_commit(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random changes, of a few bytes to several pages, and reads for as long as each commit takes."""
    draw = random.Random(7)
    in_commit = threading.Event()
    commit = Batch.commit

    def observed(batch: Batch) -> None:
        in_commit.set()
        try:
            commit(batch)
        finally:
            in_commit.clear()

    monkeypatch.setattr(Batch, "commit", observed)
    states: dict[bytes | None, dict[str, bytes]] = {None: {}}
    newest: list[bytes | None] = [None]
    counts = {"reads": 0, "beside a commit": 0}

    def check() -> None:
        name = str(draw.randrange(KEYS))
        before = in_commit.is_set()
        versions = [value for _, value in db.iterate("together")] or [None]
        (version,) = set(versions)  # never a mixture of two states
        if version != newest[0]:
            assert version == list(states)[-1]  # never back to an earlier one
        assert db.get(("random", name)) == states[version].get(name)
        newest[0] = version
        counts["reads"] += 1
        counts["beside a commit"] += before and in_commit.is_set()

    for number in range(COMMITS):
        version = b"%d" % number
        changes = {
            str(draw.randrange(KEYS)): draw.choice([None, draw.randbytes(draw.choice([10, 300, 9000]))])
            for _ in range(20)
        }
        after = states[newest[0]] | {name: value for name, value in changes.items() if value is not None}
        for name in [name for name, value in changes.items() if value is None]:
            after.pop(name, None)
        states = {newest[0]: states[newest[0]], version: after}

        def write(
            view: View,
            version: bytes = version,
            state: dict[str, bytes] = after,
            names: Iterable[str] = tuple(changes),
        ) -> None:
            for number in range(TOGETHER):
                view.put(("together", str(number)), version)
            for name in names:
                if name in state:
                    view.put(("random", name), state[name])
                else:
                    view.delete(("random", name))

        durable = trio.Event()

        async def commit_it(write: Callable[[View], None] = write, durable: trio.Event = durable) -> None:
            await db.write(write)
            durable.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit_it)
            while not durable.is_set():
                check()
                await trio.lowlevel.checkpoint()
        check()
        assert newest[0] == version
    assert db.commits == COMMITS
    assert counts["beside a commit"] > COMMITS / 2, counts


async def test_no_read_sees_a_commit_before_the_event_loop_learns_that_it_is_durable(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, gate = threading.Event(), threading.Event()
    commit = Batch.commit

    def slow(batch: Batch) -> None:
        commit(batch)
        written.set()
        gate.wait(60)

    monkeypatch.setattr(Batch, "commit", slow)
    before = db.revision
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.put, "a", b"1")
        await trio.to_thread.run_sync(written.wait, 60)
        try:
            assert db.get("a") is None
            assert db.iterate() == []
            assert db.revision == before
        finally:
            gate.set()
    assert db.get("a") == b"1"
    assert db.revision != before


async def test_who_is_called_when_a_commit_is_durable_sees_it_and_another_revision(db: DB) -> None:
    before = db.revision
    seen: list[tuple[bytes | None, int | None]] = []
    await db.write(
        lambda view: view.put("a", b"1"), on_durable=lambda: seen.append((db.get("a"), db.revision))
    )
    assert seen == [(b"1", db.revision)]
    assert db.revision != before
