from __future__ import annotations

import os

import pytest
import trio

from agentd.store import DB, View
from agentd_client.errors import InvalidPathError, TransactionEndedError, WrongLoopError

PATHS = [("a",), ("a", "x"), ("a", "y"), ("a", "y", "z"), ("ab",), ("b", "x")]


def as_bytes(*paths: tuple[str, ...]) -> list[tuple[bytes, ...]]:
    return [tuple(part.encode() for part in path) for path in paths]


async def fill(db: DB) -> None:
    def write(view: View) -> None:
        for path in PATHS:
            view.put(path, "/".join(path).encode())

    await db.write(write)


async def test_a_value_is_read_as_it_was_put_until_it_is_deleted(db: DB) -> None:
    assert db.get("a") is None
    await db.put("a", b"1")
    assert db.get("a") == db.get((b"a",)) == b"1"
    await db.put("a", b"")
    assert db.get("a") == b""
    assert await db.delete("a") is True
    assert await db.delete("a") is False
    assert db.get("a") is None


async def test_the_longest_path_can_be_written_and_gone_on_from(db: DB) -> None:
    longest = "x" * 509
    await db.put(longest, b"1")
    assert db.get(longest) == b"1"
    assert db.iterate(after=longest) == db.iterate(after=longest, reverse=True) == []


async def test_a_value_is_bytes_and_nothing_else(db: DB) -> None:
    with pytest.raises(TypeError, match="not str"):
        await db.put("a", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not bytearray"):
        await db.write(lambda view: view.put("a", bytearray(b"1")))  # type: ignore[arg-type]


async def test_iterate_gives_a_prefix_itself_and_what_is_below_it_in_order(db: DB) -> None:
    await fill(db)
    assert [path for path, _ in db.iterate()] == as_bytes(*PATHS)
    assert db.iterate(("a", "y")) == [((b"a", b"y"), b"a/y"), ((b"a", b"y", b"z"), b"a/y/z")]
    assert [path for path, _ in db.iterate("a")] == as_bytes(*PATHS[:4])
    assert db.iterate("nothing") == []


async def test_iterate_goes_on_after_a_path_that_need_not_exist_and_backwards_and_stops_at_a_limit(
    db: DB,
) -> None:
    await fill(db)

    def paths(*arguments: object, **options: object) -> list[tuple[bytes, ...]]:
        return [path for path, _ in db.iterate(*arguments, **options)]  # type: ignore[arg-type]

    assert paths(after=("a", "y")) == as_bytes(*PATHS[3:])
    assert paths(after=("a", "xx")) == as_bytes(*PATHS[2:])
    assert paths("a", after="b") == []
    assert paths("b", after="a") == as_bytes(PATHS[5])
    assert paths(reverse=True) == as_bytes(*reversed(PATHS))
    assert paths("a", reverse=True, limit=2) == as_bytes(PATHS[3], PATHS[2])
    assert paths(reverse=True, after=("a", "y")) == as_bytes(PATHS[1], PATHS[0])
    assert paths("b", reverse=True, after="a") == []
    assert paths("a", reverse=True, after="b") == as_bytes(*reversed(PATHS[:4]))
    assert paths(limit=2) == as_bytes(*PATHS[:2])
    assert paths(limit=0) == []
    with pytest.raises(ValueError, match="limit"):
        db.iterate(limit=-1)


async def test_a_write_view_reads_its_own_writes(db: DB) -> None:
    await fill(db)

    def rule(view: View) -> None:
        view.put(("a", "w"), b"new")
        assert view.get(("a", "w")) == b"new"
        assert view.get("nothing") is None
        assert view.delete(("a", "x")) is True
        assert view.delete(("a", "x")) is False
        assert [value for _, value in view.iterate("a", limit=2)] == [b"a", b"new"]
        assert [value for _, value in view.iterate("a", reverse=True, after=("a", "y"))] == [b"new", b"a"]
        assert view.clear("a") == 4

    await db.write(rule)
    assert [path for path, _ in db.iterate()] == as_bytes(*PATHS[4:])


async def test_clear_removes_a_prefix_itself_and_what_is_below_it_only(db: DB) -> None:
    await fill(db)
    assert await db.clear("a") == 4
    assert [path for path, _ in db.iterate()] == as_bytes(("ab",), ("b", "x"))
    assert await db.clear() == 2
    assert await db.clear() == 0
    with pytest.raises(InvalidPathError):
        await db.clear(("",))


async def test_count_follows_every_put_delete_clear_and_rollback(db: DB) -> None:
    assert db.count() == db.count("a") == 0
    await fill(db)
    assert (db.count(), db.count("a"), db.count(("a", "y")), db.count("b")) == (2, 2, 1, 1)
    await db.put(("a", "x"), b"again")
    assert db.count("a") == 2
    await db.delete(("a", "x"))
    await db.delete(("a", "x"))
    assert db.count("a") == 1

    def fails(view: View) -> None:
        view.put(("a", "more"), b"")
        view.clear("b")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.write(fails)
    assert (db.count("a"), db.count("b")) == (1, 1)
    await db.clear()
    assert [db.count(parent) for parent in ((), "a", ("a", "y"), "b")] == [0, 0, 0, 0]
    assert db._writer is not None
    assert not db._writer.counts, "what is gone takes no memory"


async def test_counts_and_the_header_are_hidden_from_reading_and_clearing(db: DB) -> None:
    await db.put(("a", "x"), b"1")
    assert len(db.iterate()) == 1
    assert await db.clear() == 1
    await db.stop()
    await db.start()  # the header is still there


async def test_sealed_gives_the_stored_bytes_and_unseal_opens_them(db: DB) -> None:
    await db.put("a", b"value")
    (sealed, missing) = db.sealed("a", ["b"])
    assert missing is None
    assert sealed is not None
    assert b"value" not in sealed
    assert db.unseal("a", sealed) == b"value"
    assert db.sealed("a") == [sealed]
    await db.put("a", b"value")
    assert db.sealed("a") != [sealed]


async def test_the_store_is_read_on_the_event_loops_thread_only(db: DB) -> None:
    with pytest.raises(WrongLoopError, match="event loop of another thread"):
        await trio.to_thread.run_sync(db.get, "a")


async def test_a_view_refuses_after_its_operation(db: DB) -> None:
    kept: list[View] = []
    await db.write(kept.append)
    with pytest.raises(TransactionEndedError, match="over"):
        kept[0].get("a")
    with pytest.raises(TransactionEndedError):
        kept[0].put("a", b"")


async def test_no_value_stands_in_the_data_file_in_clear(db: DB) -> None:
    secret = os.urandom(16)
    await db.put("a", secret)
    assert secret not in (db.path / "data.mdb").read_bytes()
    assert db.size_bytes == (db.path / "data.mdb").stat().st_size
