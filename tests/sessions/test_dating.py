"""When a record was written, by its path."""

from __future__ import annotations

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.sessions.records import TIMESTAMPED_FOLDERS, session_id, session_path, timestamp_in_path
from agentd.store import DB, check_offline
from tests.clocks import ManualClock


def test_a_session_tells_when_it_was_opened():
    path = tuple(part.encode() for part in session_path("k", session_id(bytes(16), 1_750_000_000.123)))
    assert timestamp_in_path(path) == 1_750_000_000.123


def test_what_names_no_time_has_none():
    assert timestamp_in_path((b"sessions", b"k", b"not a uuid")) is None
    assert timestamp_in_path((b"sessions", b"k", b"00000000-0000-4000-8000-000000000000")) is None
    assert timestamp_in_path((b"sessions", b"k", b"\xff")) is None


async def test_the_newest_records_of_a_store_tell_when_they_were_written(tmp_path):
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
