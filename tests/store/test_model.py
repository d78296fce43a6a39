"""The store compared with a dict, over random operations, transactions, failures and restarts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.store import DB, Transaction, View
from agentd_client.errors import TransactionConflictError, TransactionEndedError

from .fakes import FakeKeyRing

Path = tuple[bytes, ...]
SLOTS = 2

PARTS = st.sampled_from([b"a", b"b", b"\0", b"a\1"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(tuple)
PREFIXES = st.lists(PARTS, max_size=2).map(tuple)
VALUES = st.binary(max_size=3)
LIMITS = st.none() | st.integers(0, 3)
SLOT = st.integers(0, SLOTS - 1)
OPTIONS = st.fixed_dictionaries(
    {"prefix": PREFIXES, "after": st.none() | PATHS, "reverse": st.booleans(), "limit": LIMITS}
)
CHANGE = st.one_of(
    st.tuples(st.just("put"), PATHS, VALUES),
    st.tuples(st.just("delete"), PATHS),
    st.tuples(st.just("clear"), PREFIXES),
)
STEP = st.one_of(
    CHANGE,
    st.tuples(st.just("write"), st.lists(CHANGE, max_size=4), st.booleans()),
    st.tuples(st.just("iterate"), OPTIONS),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("tran"), SLOT, st.just("get"), PATHS),
    st.tuples(st.just("tran"), SLOT, st.just("iterate"), OPTIONS),
    st.tuples(st.just("tran"), SLOT, st.just("change"), CHANGE),
    st.tuples(st.just("commit"), SLOT),
    st.tuples(st.just("rollback"), SLOT),
)


class Model:
    """Values with the number of the write that set them, so that writing the same value counts as a change."""

    def __init__(self) -> None:
        self.entries: dict[Path, tuple[int, bytes]] = {}
        self._writes = 0

    def put(self, path: Path, value: bytes) -> None:
        self._writes += 1
        self.entries[path] = (self._writes, value)

    def change(self, change: tuple[Any, ...]) -> object:
        kind, path, *rest = change
        if kind == "put":
            self.put(path, *rest)
            return None
        if kind == "delete":
            return self.entries.pop(path, None) is not None
        gone = [known for known in self.entries if known[: len(path)] == path]
        for known in gone:
            del self.entries[known]
        return len(gone)

    def count(self, parent: Path) -> int:
        return sum(path[:-1] == parent for path in self.entries)


def selected(entries: dict[Path, Any], options: dict[str, Any]) -> list[tuple[Path, Any]]:
    prefix, after, reverse = options["prefix"], options["after"], options["reverse"]
    found = sorted(
        (item for item in entries.items() if item[0][: len(prefix)] == prefix),
        key=lambda item: item[0],
        reverse=reverse,
    )
    if after is not None:
        found = [item for item in found if (item[0] < after if reverse else item[0] > after)]
    return found[: options["limit"]]


class ModelTransaction:
    def __init__(self, model: Model) -> None:
        self._model = model
        self.writes: dict[Path, bytes | None] = {}
        self.checks: list[Callable[[], object]] = []
        self._seen: list[object] = []
        self._first: dict[Path, tuple[int, bytes] | None] = {}

    def _record(self, check: Callable[[], object]) -> None:
        self.checks.append(check)
        self._seen.append(check())

    def get(self, path: Path) -> bytes | None:
        if path in self.writes:
            return self.writes[path]
        if path not in self._first:
            self._record(lambda: self._model.entries.get(path))
            self._first[path] = self._model.entries.get(path)
        found = self._first[path]
        return None if found is None else found[1]

    def iterate(self, options: dict[str, Any]) -> list[tuple[Path, bytes]]:
        if options["limit"] == 0:
            return []
        merged: dict[Path, bytes | None] = {path: value for path, (_, value) in self._model.entries.items()}
        merged.update(self.writes)
        visible = {path: value for path, value in merged.items() if value is not None}
        found = selected(visible, options)
        last = found[-1][0] if len(found) == options["limit"] else None

        def in_store() -> object:
            items = selected(self._model.entries, {**options, "limit": None})
            if last is None:
                return items
            return [item for item in items if (item[0] >= last if options["reverse"] else item[0] <= last)]

        self._record(in_store)
        return found

    def change(self, change: tuple[Any, ...]) -> object:
        kind, path, *rest = change
        if kind == "put":
            self.writes[path] = rest[0]
            return None
        if kind == "delete":
            found = self.get(path) is not None
            if found:
                self.writes[path] = None
            return found
        everything = self.iterate({"prefix": path, "after": None, "reverse": False, "limit": None})
        self.writes.update(dict.fromkeys((known for known, _ in everything), None))
        return len(everything)

    def commit(self) -> bool:
        if self.writes and [check() for check in self.checks] != self._seen:
            return False
        for path, value in self.writes.items():
            if value is None:
                self._model.entries.pop(path, None)
            else:
                self._model.put(path, value)
        return True


def apply(view: View, change: tuple[Any, ...]) -> object:
    kind, *arguments = change
    return getattr(view, kind)(*arguments)


class Comparison:
    def __init__(self, db: DB) -> None:
        self.db = db
        self.model = Model()
        self.open: dict[int, tuple[Transaction, ModelTransaction]] = {}

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("put" | "delete" | "clear" as kind, *arguments):
                assert await getattr(self.db, kind)(*arguments) == self.model.change(step)
            case ("write", changes, fails):
                await self.write(changes, fails)
            case ("iterate", options):
                expected = [(path, value) for path, (_, value) in selected(self.model.entries, options)]
                assert self.db.iterate(**options) == expected
            case ("reopen",):
                await self.db.stop()
                await self.db.start()
                for tran, _ in self.open.values():
                    with pytest.raises(TransactionEndedError, match="started again"):
                        tran.get("a")
                    await tran.__aexit__(LookupError, LookupError(), None)
                self.open.clear()
            case ("tran", slot, kind, argument):
                await self.use(slot, kind, argument)
            case ("commit", slot) if slot in self.open:
                await self.commit(*self.open.pop(slot))
            case ("rollback", slot) if slot in self.open:
                tran, _ = self.open.pop(slot)
                await tran.__aexit__(LookupError, LookupError(), None)

    async def write(self, changes: list[tuple[Any, ...]], fails: bool) -> None:
        def function(view: View) -> list[object]:
            found = [apply(view, change) for change in changes]
            if fails:
                raise LookupError
            return found

        if fails:
            with pytest.raises(LookupError):
                await self.db.write(function)
        else:
            assert await self.db.write(function) == [self.model.change(change) for change in changes]

    async def use(self, slot: int, kind: str, argument: Any) -> None:
        if slot not in self.open:
            self.open[slot] = (await self.db.transaction().__aenter__(), ModelTransaction(self.model))
        tran, model = self.open[slot]
        if kind == "get":
            assert tran.get(argument) == model.get(argument)
        elif kind == "iterate":
            assert tran.iterate(**argument) == model.iterate(argument)
        else:
            assert apply(tran, argument) == model.change(argument)

    async def commit(self, tran: Transaction, model: ModelTransaction) -> None:
        if model.commit():
            await tran.__aexit__(None, None, None)
        else:
            with pytest.raises(TransactionConflictError):
                await tran.__aexit__(None, None, None)

    def compare(self) -> None:
        expected = sorted((path, value) for path, (_, value) in self.model.entries.items())
        assert self.db.iterate() == expected
        parents = {path[:-1] for path, _ in expected} | {(), (b"a",), (b"a", b"b")}
        assert {parent: self.db.count(parent) for parent in parents} == {
            parent: self.model.count(parent) for parent in parents
        }


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=10, max_size=60))
async def test_the_store_behaves_like_a_dict(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = DB(f"{folder}/store", FakeKeyRing(), map_bytes=128 * 1024)
        await db.start()
        async with db:
            comparison = Comparison(db)
            for step in steps:
                await comparison.step(step)
                comparison.compare()
            for opened in comparison.open.values():
                await comparison.commit(*opened)
            comparison.compare()
