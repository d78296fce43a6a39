"""Records as they are stored."""

from __future__ import annotations

import msgpack
import pytest
from msgspec.structs import replace

from agentd.sessions.records import KeyRecord, SessionRecord, session_path
from agentd_client.errors import StoreDamagedError

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
"""All that a record had before there were audiences, scopes, uses and parents."""


def test_what_is_as_by_default_takes_no_room():
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
def test_a_form_that_is_unknown_is_damage(stored):
    for kind in (SessionRecord, KeyRecord):
        with pytest.raises(StoreDamagedError):
            kind.decode(stored)


async def test_a_session_of_the_older_form_goes_on_and_is_renewed_by_its_first_lifetime(db, manager, clock):
    created = await manager.open_session(60)
    path = session_path(manager.key_id, created.id)
    older = {name: value for name, value in msgpack.unpackb(db.get(path)).items() if name in OLDER}
    await db.put(path, msgpack.packb(older))
    assert await manager.verify_token(created.token)
    clock.advance(30)
    renewed = await manager.renew_token(created.token)
    assert renewed.expires_at == pytest.approx(clock.wall + 60)
