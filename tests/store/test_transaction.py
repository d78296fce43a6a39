from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import trio
import trio.testing

from agentd.store import DB, Transaction, View
from agentd_client.errors import TransactionConflictError, TransactionEndedError
from tests.disk import hold_commits

Path = tuple[bytes, ...]


async def fill(db: DB, *names: str) -> None:
    for name in names:
        await db.put(("a", name), name.encode())


def names(view: View, **options: object) -> list[str]:
    return [path[-1].decode() for path, _ in view.iterate("a", **options)]  # type: ignore[arg-type]


async def test_only_it_reads_its_own_writes_before_it_commits(db: DB) -> None:
    await fill(db, "1")
    async with db.transaction() as tran:
        tran.put(("a", "2"), b"new")
        assert tran.get(("a", "2")) == b"new"
        assert tran.delete(("a", "1")) is True
        assert tran.delete(("a", "1")) is False
        assert tran.get(("a", "1")) is None
        assert db.get(("a", "2")) is None
        assert db.get(("a", "1")) == b"1"
    assert db.iterate() == [((b"a", b"2"), b"new")]
    assert db.count("a") == 1


async def test_an_exception_rolls_back_and_is_passed_on(db: DB) -> None:
    with pytest.raises(LookupError):
        async with db.transaction() as tran:
            tran.put("a", b"1")
            raise LookupError
    assert db.iterate() == []
    with pytest.raises(TransactionEndedError, match="over"):
        tran.get("a")


async def test_a_transaction_and_the_writers_view_follow_one_protocol(db: DB) -> None:
    def rule(view: View) -> tuple[bool, int, list[tuple[Path, bytes]]]:
        view.put(("a", "1"), b"1")
        view.put(("a", "2"), b"2")
        view.put(("a", "3"), b"3")
        return view.delete(("a", "1")), view.clear(("a", "2")), view.iterate()

    async with db.transaction() as tran:
        through_the_overlay = rule(tran)
    await db.clear()
    assert await db.write(rule) == through_the_overlay == (True, 1, [((b"a", b"3"), b"3")])


async def test_pending_deletes_do_not_use_up_the_limit(db: DB) -> None:
    await fill(db, "1", "2", "3", "4")
    async with db.transaction() as tran:
        tran.delete(("a", "1"))
        tran.delete(("a", "4"))
        assert names(tran, limit=1) == ["2"]
        assert names(tran, limit=2, reverse=True) == ["3", "2"]


async def test_iterate_merges_overlay_and_store_in_either_direction_and_within_a_limit(db: DB) -> None:
    await fill(db, "2", "4", "6")
    async with db.transaction() as tran:
        tran.put(("a", "1"), b"new")
        tran.put(("a", "4"), b"over")
        tran.put(("a", "5"), b"new")
        tran.delete(("a", "2"))
        assert names(tran) == ["1", "4", "5", "6"]
        assert names(tran, reverse=True) == ["6", "5", "4", "1"]
        assert names(tran, limit=2) == ["1", "4"]
        assert names(tran, limit=2, reverse=True) == ["6", "5"]
        assert names(tran, limit=2, after=("a", "2")) == ["4", "5"]
        assert names(tran, limit=0) == []
        assert dict(tran.iterate("a"))[b"a", b"4"] == b"over"
        with pytest.raises(ValueError, match="limit"):
            tran.iterate(limit=-1)


def conflict_if(expected: bool) -> AbstractContextManager[object]:
    return pytest.raises(TransactionConflictError, match="changed meanwhile") if expected else nullcontext()


KEY = ("a", "2")


@pytest.mark.parametrize(
    ("inside", "between", "expected"),
    [
        (lambda tran: tran.get(KEY), lambda view: view.put(KEY, b"new"), True),
        (lambda tran: tran.get(KEY), lambda view: view.put(KEY, b"2"), True),  # rewritten with the same value
        (lambda tran: tran.get(KEY), lambda view: view.delete(KEY), True),
        (lambda tran: tran.get("none"), lambda view: view.put("none", b""), True),
        (lambda tran: tran.get(KEY), lambda view: view.put(("a", "3"), b""), False),
        (lambda tran: tran.delete(KEY), lambda view: view.put(KEY, b"new"), True),
        (lambda tran: tran.delete("none"), lambda view: view.put("none", b""), True),
        (lambda tran: tran.put(KEY, b""), lambda view: view.put(KEY, b"new"), False),  # the last one wins
        (lambda tran: tran.clear("a"), lambda view: view.put(("a", "3"), b""), True),
        (lambda tran: tran.clear("a"), lambda view: view.delete(KEY), True),
        (lambda tran: tran.clear("a"), lambda view: view.put("b", b""), False),
        (lambda tran: tran.iterate("a"), lambda view: view.put(("a", "9"), b""), True),
        (lambda tran: tran.iterate("a"), lambda view: view.put(KEY, b"new"), True),
        (lambda tran: tran.iterate("none"), lambda view: view.put(("none", "1"), b""), True),
        (lambda tran: tran.iterate("a", limit=1), lambda view: view.put(("a", "3"), b""), False),
        (lambda tran: tran.iterate("a", limit=1), lambda view: view.put(("a", "0"), b""), True),
        (lambda tran: tran.iterate("a", limit=1), lambda view: view.delete(KEY), True),
        (lambda tran: tran.iterate("a", limit=1, reverse=True), lambda view: view.put(("a", "5"), b""), True),
        (
            lambda tran: tran.iterate("a", limit=1, reverse=True),
            lambda view: view.put(("a", "3"), b""),
            False,
        ),
        (lambda tran: tran.iterate("a", reverse=True), lambda view: view.put("b", b""), False),
        (lambda tran: tran.iterate("a", after=KEY), lambda view: view.delete(KEY), False),
        (lambda tran: tran.iterate("a", limit=5), lambda view: view.put(("a", "9"), b""), True),
    ],
)
async def test_only_a_change_of_something_it_read_is_a_conflict(
    db: DB, inside: Callable[[View], object], between: Callable[[View], object], expected: bool
) -> None:
    await fill(db, "2", "4")
    with conflict_if(expected):
        async with db.transaction() as tran:
            inside(tran)
            tran.put("result", b"1")
            await db.write(between)
    assert (db.get("result") is None) is expected


async def test_a_conflict_writes_nothing_and_names_the_path(db: DB) -> None:
    with pytest.raises(TransactionConflictError, match="a/1 was changed"):
        async with db.transaction() as tran:
            tran.put("written", b"")
            tran.get(("a", "1"))
            await fill(db, "1")
    assert [path for path, _ in db.iterate()] == [(b"a", b"1")]


async def test_of_two_that_wrote_without_reading_the_last_wins(db: DB) -> None:
    async with db.transaction() as first:
        first.put("a", b"first")
        async with db.transaction() as second:
            second.put("a", b"second")
    assert db.get("a") == b"first"


async def test_reading_twice_gives_the_same_even_if_another_wrote_between(db: DB) -> None:
    await fill(db, "1")
    async with db.transaction() as tran:
        assert tran.get(("a", "1")) == b"1"
        await db.put(("a", "1"), b"2")
        assert tran.get(("a", "1")) == b"1"


async def test_one_that_only_read_commits_without_the_writer_or_a_conflict(db: DB) -> None:
    await fill(db, "1")
    before = db.commits
    async with db.transaction() as tran:
        tran.get(("a", "1"))
        tran.iterate()
        await db.delete(("a", "1"))
    assert db.commits == before + 1


async def test_it_has_a_maximum_life_for_use_and_for_commit(db: DB, autojump_clock: object) -> None:
    with pytest.raises(TransactionEndedError, match="outlived its 60 seconds"):
        async with db.transaction() as tran:
            tran.put("a", b"1")
            await trio.sleep(60)
    with pytest.raises(TransactionEndedError, match="outlived its 2 seconds"):
        async with db.transaction(max_life_seconds=2) as tran:
            await trio.sleep(1)
            tran.put("a", b"1")
            await trio.sleep(1)
            tran.get("a")
    assert db.iterate() == []


@pytest.mark.parametrize("life", [0, -1, float("inf"), float("nan")])
async def test_a_maximum_life_is_a_finite_number_above_0(db: DB, life: float) -> None:
    with pytest.raises(ValueError, match="maximum life"):
        db.transaction(max_life_seconds=life)


USES = [
    lambda tran: tran.get("a"),
    lambda tran: tran.put("a", b""),
    lambda tran: tran.delete("a"),
    lambda tran: tran.clear(),
    lambda tran: tran.iterate(),
]


@pytest.mark.parametrize("use", USES)
async def test_it_is_used_between_its_beginning_and_its_end_only(
    db: DB, use: Callable[[View], object]
) -> None:
    tran = db.transaction()
    with pytest.raises(TransactionEndedError, match="not begun"):
        use(tran)
    async with tran:
        pass
    with pytest.raises(TransactionEndedError, match="over"):
        use(tran)
    with pytest.raises(TransactionEndedError, match="only once"):
        async with tran:
            pass


async def test_a_value_is_bytes(db: DB) -> None:
    async with db.transaction() as tran:
        with pytest.raises(TypeError, match="not str"):
            tran.put("a", "text")  # type: ignore[arg-type]


async def test_cancelled_before_its_commit_it_is_rolled_back(db: DB) -> None:
    with trio.CancelScope() as scope:
        async with db.transaction() as tran:
            tran.put("a", b"1")
            scope.cancel()
    assert scope.cancelled_caught
    await db.put("b", b"1")
    assert db.get("a") is None


async def test_cancelled_while_its_commit_is_under_way_it_is_committed_all_the_same(db: DB) -> None:
    gate = await hold_commits(db)

    async def commit(scope: trio.CancelScope) -> None:
        with scope:
            async with db.transaction() as tran:
                tran.put("a", b"1")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(commit, scope)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    gate.set()
    await db.put("b", b"1")
    assert db.get("a") == b"1"


async def test_it_lives_across_waiting_without_a_transaction_of_lmdbs(db: DB) -> None:
    async with db.transaction() as tran:
        assert isinstance(tran, Transaction)
        tran.get("a")
        await db.put("b", b"1")
        assert tran.get("b") == b"1"  # each path is read when it is first used: not a snapshot
