"""Uses in the audit log, as the setting `audit_uses` has them."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import pytest
import trio

from agentd.sessions import SessionManager, Subscribers, counting
from agentd.sessions.counting import FirstUses, RecordedUses
from agentd.sessions.journal import USES, USES_SHARE, Journal
from agentd.sessions.records import ACTIONS_PATH, REJECTIONS_PATH, USES_PATH, AuditRecord
from agentd.sessions.upkeep import WRITE_INTERVAL_SECONDS
from agentd_client import PeerIdentity
from agentd_client.protocol.results import AuditEntry, SessionInfo, Verification
from tests.disk import hold_commits
from tests.sessions.askers import Program

MAKE = PeerIdentity(1000, 1, "/usr/bin/make")
GIT = PeerIdentity(1000, 2, "/usr/bin/git")
BOUNDS = RecordedUses.bounds


@pytest.fixture
def db(small_db):
    return small_db


@pytest.fixture
def recording(db, key_ring, clock):
    """Managers, one after the other, that record this of the uses."""

    @asynccontextmanager
    async def recording(audit_uses: str):
        async with await SessionManager.create_session_manager(
            db=db, key_ring=key_ring, clock=clock, audit_uses=audit_uses
        ) as manager:
            yield manager

    return recording


@pytest.fixture
async def manager(recording):
    async with recording("all") as manager:
        yield manager


async def everything(manager: SessionManager) -> list[AuditEntry]:
    page = await manager.list_audit()
    found = page.entries
    while page.next is not None:
        page = await manager.list_audit(after=page.next)
        found += page.entries
    return found


async def used(manager: SessionManager) -> list[AuditEntry]:
    return [entry for entry in await everything(manager) if entry.kind == "used"]


def stored(db) -> list[AuditRecord]:
    return [AuditRecord.decode(stored) for _, stored in db.iterate(USES_PATH)]


def verification(number: int = 0) -> Verification:
    return Verification(True, None, SessionInfo(f"session {number}", "", 0.0, None, None))


# --- what is recorded ---


async def test_by_default_no_use_is_recorded(db, key_ring, clock):
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager:
        limited = await manager.open_session(max_uses=2)
        created = await manager.open_session()
        assert manager.verify_nowait(created.token, by=MAKE).valid
        assert (await manager.verify_and_consume(limited.token, by=MAKE)).valid
        assert [entry.kind for entry in await everything(manager)] == ["created", "created"]
    assert stored(db) == []


async def test_uses_are_counted_by_session_asker_and_minute(manager, clock):
    created = await manager.open_session(label="desk")
    other = await manager.open_session(label="other")
    begun = clock.wall
    for _ in range(12):
        assert manager.verify_nowait(created.token, by=MAKE).valid
        clock.advance(4)
    assert manager.verify_nowait(created.token, by=GIT).valid
    assert manager.verify_nowait(other.token, by=MAKE).valid
    clock.advance(20)
    assert manager.verify_nowait(created.token, by=MAKE).valid
    assert await manager.verify_token(created.token)
    now = clock.wall
    assert await used(manager) == [
        AuditEntry(now, now, "used", created.id, "desk", None, None, None, None, 1),
        AuditEntry(now, now, "used", created.id, "desk", None, *MAKE[:3], 1),
        AuditEntry(now - 20, now - 20, "used", other.id, "other", None, *MAKE[:3], 1),
        AuditEntry(now - 20, now - 20, "used", created.id, "desk", None, *GIT[:3], 1),
        AuditEntry(begun, begun + 44, "used", created.id, "desk", None, *MAKE[:3], 12),
    ]


async def test_of_each_asker_only_the_first_use_is_recorded(recording, clock):
    async with recording("first") as manager:
        created, other = await manager.open_session(), await manager.open_session()
        for _ in range(10):
            for by in (MAKE, GIT):
                assert manager.verify_nowait(created.token, by=by).valid
            clock.advance(3600)
        assert manager.verify_nowait(other.token, by=GIT).valid
        assert [(entry.session_id, entry.peer_pid, entry.times) for entry in await used(manager)] == [
            (other.id, GIT.pid, 1),
            (created.id, GIT.pid, 1),
            (created.id, MAKE.pid, 1),
        ]


@pytest.mark.parametrize("audit_uses", ["first", "all"])
async def test_counted_uses_are_recorded_too(recording, audit_uses):
    async with recording(audit_uses) as manager:
        limited = await manager.open_session(max_uses=2)
        assert manager.verify_nowait(limited.token, by=MAKE) is None, "it would take a use"
        assert await used(manager) == []
        for is_valid in (True, True, False):
            assert (await manager.verify_and_consume(limited.token, by=MAKE)).valid is is_valid
        (entry,) = await used(manager)
        assert (entry.session_id, entry.peer_pid) == (limited.id, MAKE.pid)
        assert entry.times == {"first": 1, "all": 2}[audit_uses]


async def test_what_is_refused_or_only_looked_at_is_no_use(manager, db, clock):
    created = await manager.open_session(60, audience=["web"])
    assert not manager.verify_nowait(created.token, by=MAKE).valid
    assert not manager.verify_nowait("nonsense", by=MAKE).valid
    assert manager.inspect(created.token, audience="web").valid
    assert manager.inspect(id=created.id, audience="web").valid
    assert (await manager.inspect_token(created.token)).reason == "WRONG_AUDIENCE"
    renewed = await manager.renew_token(created.token, by=MAKE)
    async with db.transaction() as tran:
        assert await manager.verify_token(renewed.token, tran, audience="web")
    clock.advance(100)
    assert not manager.verify_nowait(renewed.token, audience="web", by=MAKE).valid
    assert await used(manager) == []


async def test_a_use_is_no_event(manager):
    created, limited = await manager.open_session(), await manager.open_session(max_uses=1)
    events = []
    manager.on_event(events.append)
    assert await manager.verify_token(created.token)
    assert await manager.verify_token(limited.token)
    assert len(await used(manager)) == 2
    assert events == []


async def test_a_setting_that_there_is_not_is_refused(db, key_ring):
    with pytest.raises(ValueError, match="none, first, all"):
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, audit_uses="some")


# --- who it was ---


@pytest.mark.parametrize("audit_uses", ["first", "all"])
async def test_a_later_process_with_the_same_pid_has_its_own_entry(recording, audit_uses):
    async with recording(audit_uses) as manager:
        created = await manager.open_session()
        for program in (Program(7, started=1), Program(7, started=2), Program(7, started=1, uid=1001)):
            assert manager.verify_nowait(created.token, by=program).valid
        assert [(entry.peer_uid, entry.peer_pid, entry.peer_exe) for entry in await used(manager)] == [
            (1001, 7, "/bin/1"),
            (1000, 7, "/bin/2"),
            (1000, 7, "/bin/1"),
        ]


@pytest.mark.parametrize("audit_uses", USES)
async def test_an_asker_is_described_once_for_each_entry(recording, clock, audit_uses):
    program = Program(7)
    async with recording(audit_uses) as manager:
        created = await manager.open_session()
        for _ in range(10):
            for _ in range(3):
                assert manager.verify_nowait(created.token, by=program).valid
            clock.advance(BOUNDS.seconds / 5)
    assert program.times_described == {"none": 0, "first": 1, "all": 2}[audit_uses]


# --- bounds ---


async def test_ever_new_processes_end_up_in_one_entry(manager, clock):
    created = await manager.open_session(label="desk")
    programs = [Program(pid) for pid in range(1000)]
    for program in programs:
        assert manager.verify_nowait(created.token, by=program).valid
    others, *named = await used(manager)
    assert (len(named), sum(program.times_described for program in programs)) == (BOUNDS.new,) * 2
    assert others == AuditEntry(
        clock.wall, clock.wall, "used", created.id, "desk", None, 1000, None, None, 1000 - BOUNDS.new
    )
    other = await manager.open_session()
    assert manager.verify_nowait(other.token, by=Program(1, uid=1001)).valid
    assert manager.verify_nowait(created.token, by=programs[0]).valid, "which has an entry"
    others, *named = await used(manager)
    assert (others.session_id, others.label, others.peer_uid) == (None, "", None)
    assert (others.times, named[-1].times) == (1001 - BOUNDS.new, 2)
    clock.advance(BOUNDS.seconds)
    assert manager.verify_nowait(created.token, by=programs[-1]).valid
    assert (await used(manager))[0].peer_pid == 999, "there is room for new entries again"


async def test_a_first_use_that_was_not_recorded_by_name_can_still_be(recording, clock):
    async with recording("first") as manager:
        created = await manager.open_session()
        programs = [Program(pid) for pid in range(BOUNDS.new + 1)]
        for _ in range(2):
            for program in programs:
                assert manager.verify_nowait(created.token, by=program).valid
            clock.advance(BOUNDS.seconds)
        newest, others, *_ = await used(manager)
        assert (newest.peer_pid, newest.times) == (BOUNDS.new, 1)
        assert (others.peer_pid, others.times) == (None, 1)


async def test_only_so_many_first_uses_are_remembered(db, clock, monkeypatch):
    monkeypatch.setattr(counting, "MAX_FIRST_USES", 3)
    log = Journal(db, clock, logging.getLogger("agentd.test"), Subscribers(), audit_uses="first")
    assert isinstance(log.uses, FirstUses)
    for number in (0, 1, 2, 3, 0, 3, 3):
        log.uses.add(verification(number), MAKE)
        assert len(log.uses._known) <= 3
        clock.advance(2 * BOUNDS.seconds)
    await log.flush()
    assert [record.session_id[-1] for record in stored(db)] == ["0", "1", "2", "3", "0"]
    assert len(log.uses._entries) == len(log.uses._latest) == 0


async def test_memory_is_bounded_and_the_oldest_entry_is_written_before_it_is_dropped(db, clock, monkeypatch):
    monkeypatch.setattr(RecordedUses, "bounds", BOUNDS._replace(new=10_000, pending=100))
    log = Journal(db, clock, logging.getLogger("agentd.test"), Subscribers(), audit_uses="all")
    for number in range(105):
        for _ in range(3):
            log.uses.add(verification(number), MAKE)
    assert len(log.uses._entries) == len(log.uses._latest) == 100
    await db.write(lambda view: None)
    assert [record.times for record in stored(db)] == [3] * 5
    await log.flush()
    assert [record.times for record in stored(db)] == [3] * 105


async def test_uses_push_out_neither_actions_nor_rejections_nor_these_uses(db, clock, monkeypatch):
    monkeypatch.setattr(RecordedUses, "bounds", BOUNDS._replace(new=10_000))
    log = Journal(
        db, clock, logging.getLogger("agentd.test"), Subscribers(), max_entries=20, audit_uses="all"
    )
    refused = Verification(False, "MALFORMED", None)
    most = {
        ACTIONS_PATH: 20,
        REJECTIONS_PATH: 5,
        USES_PATH: 20 * USES_SHARE,
    }

    async def act() -> None:
        await db.write(lambda view: log.write(view, "locked"))

    def counts() -> dict[tuple[str, str], int]:
        return {folder: db.count(folder) for folder in most}

    for number in range(most[REJECTIONS_PATH]):
        log.reject(refused, PeerIdentity(1000, number))
    for _ in range(most[ACTIONS_PATH]):
        await act()
    for number in range(3 * most[USES_PATH]):
        log.uses.add(verification(number), MAKE)
    await log.flush()
    await log.trim()
    assert counts() == most
    assert stored(db)[-1].session_id == f"session {3 * most[USES_PATH] - 1}", "the newest are kept"
    oldest = stored(db)[0]
    for number in range(100):
        await act()
        log.reject(refused, PeerIdentity(1001, number))
    await log.flush()
    await log.trim()
    assert counts() == most
    assert stored(db)[0] == oldest


# --- from memory to the store ---


async def test_uses_are_listed_before_they_are_written_and_once(db, manager, clock):
    expected = []
    for number in range(40):
        clock.advance(1)
        created = await manager.open_session(label=str(number))
        assert manager.verify_nowait(created.token, by=MAKE).valid
        expected[:0] = [("used", str(number)), ("created", str(number))]

    async def pages(**between) -> list[tuple[str, str]]:
        page = await manager.list_audit(limit=7)
        found = page.entries
        while page.next is not None:
            if len(found) in between.values():
                await manager._journal.flush()
            page = await manager.list_audit(limit=7, after=page.next)
            found += page.entries
        return [(entry.kind, entry.label) for entry in found]

    assert stored(db) == []
    assert await pages() == expected
    assert await pages(flushed_at=35) == expected
    assert len(stored(db)) == 40
    assert await pages() == expected


async def test_a_use_that_is_written_while_it_is_listed_is_listed_once(db, manager, clock, monkeypatch):
    created = await manager.open_session()
    for number in range(40):
        clock.advance(1)
        assert manager.verify_nowait(created.token, by=PeerIdentity(1000, number)).valid
    found = []
    for place, (_, record) in enumerate(manager._journal.newest_first(None)):
        found.append(record.peer_pid)
        if place == 5:
            await manager._journal.flush()
    assert found == [*range(39, -1, -1), None]


async def test_the_standing_tasks_write_uses_every_minute(db, manager, autojump_clock):
    created = await manager.open_session()
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.run)
        for times in (1, 2):
            assert manager.verify_nowait(created.token, by=MAKE).valid
            for _ in range(10):  # the clock runs on while the disk is written to
                await trio.sleep(WRITE_INTERVAL_SECONDS)
                await db.write(lambda view: None)
            assert [record.times for record in stored(db)] == [times]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("audit_uses", ["first", "all"])
async def test_a_stop_writes_them_and_a_later_manager_lists_them(db, recording, clock, audit_uses):
    async with recording(audit_uses) as manager:
        created = await manager.open_session()
        assert manager.verify_nowait(created.token, by=MAKE).valid
        assert stored(db) == []
    assert len(stored(db)) == 1
    async with recording("none") as manager:
        assert manager.verify_nowait(created.token, by=MAKE).valid
        (entry,) = await used(manager)
        assert (entry.session_id, entry.peer_exe, entry.times) == (created.id, MAKE.exe, 1)


async def test_uses_during_a_flush_are_written_by_the_next(db, manager):
    created = await manager.open_session()
    assert manager.verify_nowait(created.token, by=MAKE).valid
    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager._journal.flush)
        await trio.testing.wait_all_tasks_blocked()
        assert manager.verify_nowait(created.token, by=MAKE).valid
        gate.set()
    assert [record.times for record in stored(db)] == [1]
    await manager._journal.flush()
    assert [record.times for record in stored(db)] == [2]


async def test_verifying_writes_nothing(db, manager):
    created = await manager.open_session()
    revision = db.revision
    for number in range(100):
        assert manager.verify_nowait(created.token, by=PeerIdentity(1000, number)).valid
    await trio.testing.wait_all_tasks_blocked()
    assert db.revision == revision


async def test_uses_stay_counted_while_the_store_is_full(db, manager, clock, full, caplog):
    created = await manager.open_session()
    full(True)
    for _ in range(5):
        assert manager.verify_nowait(created.token, by=MAKE).valid
    await manager._journal.flush()
    assert "uses are missing from the audit log until it can be written" in caplog.text
    assert stored(db) == []
    clock.advance(5 * BOUNDS.seconds)
    assert manager.verify_nowait(created.token, by=MAKE).valid
    assert [entry.times for entry in await used(manager)] == [1, 5]
    full(False)
    await manager._journal.flush()
    assert [record.times for record in stored(db)] == [5, 1]


async def test_what_exceeds_memory_while_the_store_is_full_is_logged(db, clock, full, caplog, monkeypatch):
    monkeypatch.setattr(RecordedUses, "bounds", BOUNDS._replace(pending=2))
    log = Journal(db, clock, logging.getLogger("agentd.test"), Subscribers(), audit_uses="all")
    full(True)
    log.uses.add(verification(1), MAKE)
    await log.flush()
    caplog.clear()
    for number in (2, 3):
        log.uses.add(verification(number), MAKE)
    assert [record.getMessage() for record in caplog.records] == [
        "missing from the audit log: 1 uses by uid=1000 pid=1 (session 1)"
    ]


async def test_a_clock_that_is_set_back_ends_no_entry_before_it_began(manager, clock):
    created = await manager.open_session()
    assert manager.verify_nowait(created.token, by=MAKE).valid
    clock.advance(30)
    assert manager.verify_nowait(created.token, by=MAKE).valid
    clock.set_wall(clock.wall - 20)
    assert manager.verify_nowait(created.token, by=MAKE).valid
    clock.set_wall(clock.wall - 3600)
    assert manager.verify_nowait(created.token, by=MAKE).valid
    later, earlier = await used(manager)
    assert (earlier.until - earlier.at, earlier.times) == (30, 3)
    assert (later.until - later.at, later.times) == (0, 1)


@pytest.mark.parametrize("audit_uses", ["first", "all"])
async def test_no_token_is_in_the_log_or_its_memory(db, recording, caplog, audit_uses):
    caplog.set_level(logging.DEBUG)
    async with recording(audit_uses) as manager:
        created = await manager.open_session(label="desk")
        limited = await manager.open_session(max_uses=1)
        tokens = [created.token, limited.token]
        for token in tokens:
            assert await manager.verify_token(token)
        uses = manager._journal.uses
        held = repr([uses._entries, uses._latest, vars(uses)])
        told = repr(await everything(manager))
    assert len(stored(db)) == 2
    everywhere = held + told + caplog.text + repr(list(db.iterate(("audit",))))
    assert created.id in everywhere
    for token in tokens:
        body = token.removeprefix("v4.local.")
        assert not any(body[at : at + 16] in everywhere for at in range(0, len(body) - 16, 8))


def test_the_bounds_are_those_that_the_documents_tell():
    assert (BOUNDS.seconds, BOUNDS.new, counting.MAX_FIRST_USES) == (60, 256, 4096)
