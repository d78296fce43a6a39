"""Records, ids and paths as they are stored, and the clock that they are made with."""

from __future__ import annotations

import uuid

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentd.keys import KeyRing
from agentd.sessions import SessionManager, SystemClock
from agentd.sessions import clock as clock_module
from agentd.sessions.records import (
    TIMESTAMPED_FOLDERS,
    KeyRecord,
    SessionRecord,
    is_of_another_agent,
    key_id,
    session_id,
    session_path,
    timestamp_in_path,
)
from agentd.store import DB, check_offline
from agentd_client.errors import StoreDamagedError
from tests.clocks import ManualClock

OLDER = {
    "session_id": "an id",
    "label": "",
    "made": 1_750_000_000.0,
    "expires": 1_750_000_060.0,
    "boot_id": "boot-1",
    "boot_expires": 1_060.0,
    "opened_uid": 1000,
    "opened_pid": 42,
    "generation": 0,
}
"""A record as it was before audiences, scopes, uses and parents existed."""


def test_defaults_are_not_stored():
    record = SessionRecord.decode(msgpack.packb(OLDER))
    assert set(msgpack.unpackb(record.encode())) == set(OLDER) - {"generation"}
    assert SessionRecord.decode(record.encode()) == record


def test_fields_keep_their_names_on_disk():
    record = SessionRecord.decode(msgpack.packb(OLDER))
    assert (record.created_at, record.expires_at) == (OLDER["made"], OLDER["expires"])
    stored = {"lasts": 60.0, "max_expires": 1.0, "renewed": 2.0, "last_used": 3.0, "superseded": 4.0}
    record = SessionRecord.decode(msgpack.packb(OLDER | stored))
    assert (record.ttl, record.max_expires_at, record.renewed_at) == (60.0, 1.0, 2.0)
    assert (record.last_used_at, record.superseded_at) == (3.0, 4.0)
    assert msgpack.unpackb(record.encode()).items() >= stored.items()
    key = {"key_id": "an id", "wrapped": b"w", "made": 1.0}
    assert msgpack.unpackb(KeyRecord.decode(msgpack.packb(key)).encode()) == key


def test_every_field_comes_back_as_it_was():
    record = replace(
        SessionRecord.decode(msgpack.packb(OLDER)),
        audience=[],
        scopes=["read"],
        uses_left=0,
        ancestors=["a", "b"],
        superseded_at=0.0,
        last_used_at=0.0,
    )
    assert SessionRecord.decode(record.encode()) == record


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xc0",
        b"\x80",
        msgpack.packb(OLDER | {"unknown": 1}),
        msgpack.packb(OLDER | {"label": 1}),
        msgpack.packb(OLDER).replace(b"session_id", b"session_i\xff"),
    ],
)
def test_an_unknown_form_is_damage(stored):
    for kind in (SessionRecord, KeyRecord):
        with pytest.raises(StoreDamagedError):
            kind.decode(stored)


async def test_a_record_of_the_older_form_verifies_and_is_renewed_by_its_first_lifetime(db, manager, clock):
    created = await manager.open_session(60)
    path = session_path(manager.key_id, created.id)
    older = {name: value for name, value in msgpack.unpackb(db.get(path)).items() if name in OLDER}
    await db.put(path, msgpack.packb(older))
    assert await manager.verify_token(created.token)
    clock.advance(30)
    renewed = await manager.renew_token(created.token)
    assert renewed.expires_at == pytest.approx(clock.wall + 60)


# --- ids and paths ---


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**48 - 1))
def test_session_ids_are_uuids_of_version_7(random: bytes, milliseconds: int):
    found = uuid.UUID(session_id(random, milliseconds / 1000))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert abs((found.int >> 80) - milliseconds) <= 1


def test_session_ids_sort_by_time():
    ids = [session_id(bytes([255 - at] * 16), at) for at in range(100)]
    assert ids == sorted(ids)


def test_session_ids_sort_by_time_within_a_millisecond_too():
    ids = [session_id(bytes([255 - at] * 16), 1_800_000_000 + at * 1e-6) for at in range(200)]
    assert ids == sorted(ids)
    assert len({id[:13] for id in ids}) == 1


def test_an_agent_knows_the_ids_of_its_own_keys_and_those_of_other_agents():
    own = key_id(bytes(12), "one")
    assert len(own) == 24
    assert own.startswith("A" * 16)
    assert not is_of_another_agent(own, "one")
    assert is_of_another_agent(own, "two")
    assert not is_of_another_agent("A" * 22, "two"), "created before ids had a mark"


@pytest.mark.parametrize("length", [0, 1, 22, 23, 24, 25, 64])
def test_key_ids_of_any_form_can_be_checked_for_their_agent(length):
    for character in "A-_z9":
        is_of_another_agent(character * length, "one")


def test_the_system_clock_reads_both_clocks(monkeypatch):
    first, second = SystemClock().read(), SystemClock().read()
    assert first.wall > 1_700_000_000
    assert second.boot >= first.boot > 0
    assert uuid.UUID(first.boot_id)
    monkeypatch.setattr(clock_module, "boot_id", lambda: "")
    assert SystemClock().read().boot_id == ""


def test_a_sessions_path_contains_its_creation_time():
    path = tuple(part.encode() for part in session_path("k", session_id(bytes(16), 1_750_000_000.123)))
    assert timestamp_in_path(path) == 1_750_000_000.123


def test_other_paths_contain_no_time():
    assert timestamp_in_path((b"sessions", b"k", b"not a uuid")) is None
    assert timestamp_in_path((b"sessions", b"k", b"00000000-0000-4000-8000-000000000000")) is None
    assert timestamp_in_path((b"sessions", b"k", b"\xff")) is None


async def test_the_newest_paths_of_a_store_contain_their_times(tmp_path):
    clock = ManualClock()
    async with (
        await KeyRing.create_key_ring(keys_path=tmp_path / "keys") as key_ring,
        await DB.create_db(db_path=tmp_path / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager,
    ):
        for _ in range(3):
            clock.advance(60)
            await manager.create_token()
        newest = check_offline(tmp_path / "store", None, newest_below=TIMESTAMPED_FOLDERS).newest
    moments = [timestamp_in_path(path) for path in newest]
    assert len(moments) == 2
    assert all(moment is not None and abs(moment - clock.wall) < 0.01 for moment in moments)
