"""Random histories of a manager and its transactions, compared with a model of a few dictionaries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client.errors import TransactionConflictError
from tests.clocks import ManualClock

which = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("create"), st.sampled_from([None, 5, 50]), st.booleans()),
    st.tuples(st.just("revoke"), which, st.booleans()),
    st.tuples(st.just("reset"), st.none(), st.booleans()),
    st.tuples(st.just("verify"), which, st.booleans()),
    st.tuples(st.just("advance"), st.sampled_from([1, 4, 20, 60]), st.none()),
    st.tuples(st.just("begin"), st.none(), st.none()),
    st.tuples(st.just("commit"), st.none(), st.none()),
    st.tuples(st.just("roll back"), st.none(), st.none()),
    st.tuples(st.just("sweep"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


@dataclass
class Entry:
    token: str
    key: int
    ends: float | None


@dataclass
class Pending:
    """A transaction: its writes, and the versions of what it read."""

    tran: Any
    reads: dict[object, tuple[object, int]] = field(default_factory=dict)
    writes: dict[object, object] = field(default_factory=dict)


class Model:
    """`stored` maps "key" to the current key's number, and a session's number to whether it is stored."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stored: dict[object, object] = {"key": 0}
        self.versions: dict[object, int] = {}
        self.entries: list[Entry] = []
        self.pending: Pending | None = None
        self.keys_drawn = 0
        self.seen_expired: set[int] = set()

    def read(self, what: object, through: bool) -> object:
        present = self.stored.get(what, False)
        if not through:
            return present
        if what in self.pending.writes:
            return self.pending.writes[what]
        return self.pending.reads.setdefault(what, (present, self.versions.get(what, 0)))[0]

    def write(self, what: object, value: object, through: bool) -> None:
        if through:
            self.pending.writes[what] = value
        else:
            self.stored[what] = value
            self.versions[what] = self.versions.get(what, 0) + 1

    def alive(self, number: int) -> bool:
        ends = self.entries[number].ends
        return ends is None or self.now < ends + 1

    def there(self, number: int, through: bool) -> bool:
        return self.entries[number].key == self.read("key", through) and bool(self.read(number, through))


def tran_of(model: Model, through: bool) -> Any:
    return model.pending.tran if through else None


async def create(model: Model, manager: SessionManager, expiry: int | None, through: bool) -> None:
    token = await manager.create_token(expiry, tran_of(model, through))
    number = len(model.entries)
    ends = None if expiry is None else model.now + expiry
    model.entries.append(Entry(token, model.read("key", through), ends))
    model.write(number, True, through)


async def revoke(model: Model, manager: SessionManager, number: int, through: bool) -> None:
    expected = model.there(number, through)
    revoked = await manager.revoke_token(model.entries[number].token, tran=tran_of(model, through))
    assert revoked == expected
    if expected:
        model.write(number, False, through)


async def reset(model: Model, manager: SessionManager, through: bool) -> None:
    await manager.reset_key(tran_of(model, through))
    model.keys_drawn += 1
    model.write("key", model.keys_drawn, through)


async def verify(model: Model, manager: SessionManager, number: int, through: bool) -> None:
    answer = await manager.verify_token(model.entries[number].token, tran_of(model, through))
    there = model.there(number, through)
    assert answer == (there and model.alive(number))
    if there and not model.alive(number):
        model.seen_expired.add(number)


async def end(model: Model, commit: bool) -> None:
    pending, model.pending = model.pending, None
    changed = any(model.versions.get(what, 0) != version for what, (_, version) in pending.reads.items())
    if not commit:
        assert not await pending.tran.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
    elif changed and pending.writes:
        with pytest.raises(TransactionConflictError):
            await pending.tran.__aexit__(None, None, None)
    else:
        await pending.tran.__aexit__(None, None, None)
        for what, value in pending.writes.items():
            model.write(what, value, through=False)


def delete(model: Model, doomed: Callable[[int], bool]) -> None:
    for number in range(len(model.entries)):
        if model.stored.get(number) and doomed(number):
            model.write(number, False, through=False)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(steps, min_size=20, max_size=60))
async def test_manager_and_transactions_do_what_the_model_does(history):
    model, clock = Model(), ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            await KeyRing.create_key_ring(keys_path=f"{folder}/keys") as key_ring,
            await DB.create_db(db_path=f"{folder}/store", key_ring=key_ring) as db,
            await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager,
        ):
            for kind, what, through in history:
                through = bool(through) and model.pending is not None
                number = what % len(model.entries) if model.entries and isinstance(what, int) else None
                if kind == "create":
                    await create(model, manager, what, through)
                elif kind in ("revoke", "verify") and number is not None:
                    await {"revoke": revoke, "verify": verify}[kind](model, manager, number, through)
                elif kind == "reset":
                    await reset(model, manager, through)
                elif kind == "advance":
                    model.now += what
                    clock.advance(what)
                elif kind == "begin" and model.pending is None:
                    tran = await db.transaction(max_life_seconds=3600).__aenter__()
                    model.pending = Pending(tran)
                elif kind in ("commit", "roll back") and model.pending is not None:
                    await end(model, kind == "commit")
                elif kind == "sweep" and model.pending is None:
                    await manager.sweep()
                    delete(model, lambda n: model.entries[n].key != model.stored["key"] or not model.alive(n))
                elif kind == "restart" and model.pending is None:
                    await manager.stop()
                    await manager.start()
                    delete(model, model.seen_expired.__contains__)
            if model.pending is not None:
                await end(model, commit=False)
            for number in range(len(model.entries)):
                await verify(model, manager, number, through=False)
