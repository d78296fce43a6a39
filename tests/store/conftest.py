from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentd.store import DB, writer

from .fakes import FakeKeyRing


@pytest.fixture(autouse=True)
def batches_take_all_the_time_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TURN_SECONDS", math.inf)


@pytest.fixture
def key_ring() -> FakeKeyRing:
    return FakeKeyRing()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store"


@pytest.fixture
async def db(store_path: Path, key_ring: FakeKeyRing) -> AsyncIterator[DB]:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        yield db
