from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from agentd.sessions import Subscribers, journal, listing
from agentd.sessions.counting import RejectedTokens
from agentd.sessions.journal import Journal
from agentd.sessions.listing import audit_page
from agentd.sessions.records import ACTIONS_PATH, REJECTIONS_PATH, AuditRecord
from agentd.store import DB
from agentd_client.errors import DBNotRunningError, InvalidParamsError, StoreDamagedError, StoreFullError
from agentd_client.protocol import reasons
from agentd_client.protocol.codec import Encoder
from agentd_client.protocol.limits import (
    MAX_LABEL_CHARACTERS,
    MAX_MESSAGE_BYTES,
    MAX_PAGE_AUDIT,
    MAX_SHOWN_CHARACTERS,
)
from agentd_client.protocol.methods import to_wire
from agentd_client.protocol.results import (
    CREATED,
    KEY_RESET,
    REFUSED,
    REQUESTED,
    REVOKED,
    AuditEntry,
    PeerIdentity,
    SessionInfo,
    Verification,
)
from tests.clocks import ManualClock
from tests.disk import hold_commits
from tests.sessions.askers import Program

PEER = PeerIdentity(1000, 4711, "/usr/bin/git", "user@1000.service")
SESSION = "01890a5d-ac96-774b-bcce-b302099a8057"
MINUTES = 60
BOUNDS = RejectedTokens.bounds


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger("agentd.test")


@pytest.fixture
def new_log(db: DB, clock: ManualClock, logger: logging.Logger) -> Callable[..., Journal]:
    def new(**options: int) -> Journal:
        log = Journal(db, clock, logger, Subscribers(), **options)
        log.start()
        return log

    return new


@pytest.fixture
def log(new_log: Callable[..., Journal]) -> Journal:
    return new_log()


@pytest.fixture
def db(small_db: DB) -> DB:
    return small_db


def write(view, log, kind, *, session_id=None, label="", **details) -> None:
    log.write(view, kind, SimpleNamespace(session_id=session_id, label=label), **details)


async def put(db: DB, log: Journal, kind: str, **details: object) -> None:
    await db.write(lambda view: write(view, log, kind, **details))


async def written(db: DB) -> None:
    """Wait until everything queued is in the store."""
    await db.write(lambda view: None)


async def entries(log: Journal, **arguments: object) -> list[AuditEntry]:
    """The entries of all pages."""
    found = []
    page = await audit_page(log, **arguments)  # type: ignore[arg-type]
    found += page.entries
    while page.next is not None:
        page = await audit_page(log, **{**arguments, "after": page.next})  # type: ignore[arg-type]
        found += page.entries
    return found


def stored(db: DB) -> list[AuditRecord]:
    """The stored rejections, oldest first."""
    return [AuditRecord.decode(stored) for _, stored in db.iterate(REJECTIONS_PATH)]


# --- what was done ---


async def test_an_entry_records_operation_session_and_peer(db, log, clock):
    await put(db, log, CREATED, session_id=SESSION, label="deploy", by=PEER)
    clock.advance(1.5)
    await put(db, log, KEY_RESET, reason="why")
    assert (await audit_page(log)) == (
        [
            AuditEntry(clock.wall, clock.wall, KEY_RESET, None, "", "why", None, None, None, 1),
            AuditEntry(
                *(clock.wall - 1.5, clock.wall - 1.5, CREATED, SESSION, "deploy", None),
                *(PEER.uid, PEER.pid, PEER.exe, 1, PEER.unit),
            ),
        ],
        None,
    )


async def test_an_entry_fails_with_its_operation(db, log, clock):
    def fails(view):
        log.write(view, CREATED)
        raise ValueError

    with pytest.raises(ValueError):
        await db.write(fails)
    assert (await entries(log)) == []


async def test_no_two_entries_share_a_key_and_two_transactions_never_conflict(db, log, clock):
    async with db.transaction() as one, db.transaction() as other:
        log.write(one, CREATED)
        log.write(other, REVOKED)
    assert [entry.kind for entry in (await entries(log))] == [REVOKED, CREATED]


async def test_entries_keep_their_order_when_the_clock_is_set_back(db, new_log, clock):
    log = new_log()
    for seconds in (0, -3600, 0, 7200, -1e9):
        clock.set_wall(clock.wall + seconds)
        await put(db, log, CREATED, label=str(seconds))
    await put(db, new_log(), CREATED, label="another process")
    assert [entry.label for entry in (await entries(log))] == [
        "another process",
        *map(str, (-1e9, 7200, 0, -3600, 0)),
    ]


async def test_entries_are_sealed(db, log, clock):
    await put(db, log, CREATED, label="deploy", by=PEER)
    ((path, _),) = db.iterate(("audit",))
    (sealed,) = db.sealed(path)
    assert sealed is not None
    assert b"deploy" not in sealed
    assert b"git" not in sealed


# --- pages ---


@pytest.mark.parametrize("limit", [1, 3, 7, None])
async def test_pages_list_actions_and_rejections_in_one_order(db, log, clock, limit):
    expected = []
    for number in range(20):
        clock.advance(1)
        if number % 3:
            await put(db, log, CREATED, label=str(number))
        else:
            log.rejected_tokens.add(
                reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, number), label=str(number)
            )
        expected.insert(0, str(number))
    await written(db)
    assert [entry.label for entry in (await entries(log, limit=limit))] == expected
    assert len((await audit_page(log, limit=limit)).entries) == min(20, limit or MAX_PAGE_AUDIT)
    assert (await audit_page(log, limit=20)).next is None


async def test_a_page_continues_after_the_previous_one_despite_writes_and_trimming(db, new_log, clock):
    log = new_log(max_entries=4)
    for number in range(6):
        await put(db, log, CREATED, label=str(number))
    page = await audit_page(log, limit=2)
    assert [entry.label for entry in page.entries] == ["5", "4"]
    for number in range(6, 8):
        await put(db, log, CREATED, label=str(number))
    assert [entry.label for entry in (await audit_page(log, after=page.next)).entries] == ["3", "2", "1", "0"]
    await log.trim()
    assert (await audit_page(log, after=page.next)).entries == []


async def test_since_includes_counted_rejections(db, log, clock):
    start = clock.wall
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await put(db, log, CREATED, label="old")
    for _ in range(9):
        clock.advance(MINUTES)
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
        await put(db, log, CREATED, label=str(clock.wall - start))
    await log.rejected_tokens.flush()
    assert [entry.label for entry in (await entries(log, since=start + 8 * MINUTES))] == [
        "540.0",
        "480.0",
        "",
    ]
    assert (await entries(log, since=start + 9 * MINUTES + 0.5)) == []
    assert len(await entries(log, since=0)) == len(await entries(log)) == 11


@pytest.mark.parametrize("limit", [1, None])
async def test_entries_of_a_kind_or_a_session_are_listed_alone(db, new_log, clock, limit):
    log = new_log(audit_uses="all")
    other = SESSION.replace("0189", "0190")
    for session in (SESSION, other) * 5:
        clock.advance(MINUTES)
        await put(db, log, CREATED, session_id=session)
        log.reject(Verification(False, "MALFORMED", None), PEER)
        log.uses.add(Verification(True, None, SessionInfo(session, "", 0.0, None, None)), PEER)
        await put(db, log, KEY_RESET)
        log.report_request(REQUESTED, "a request", "")
    await written(db)

    async def chosen(**conditions) -> list[tuple[str, str | None]]:
        return [(entry.kind, entry.session_id) for entry in await entries(log, limit=limit, **conditions)]

    for _ in range(2):
        assert len(await chosen()) == 31 + 10, "the rejections of ten minutes share an entry"
        assert await chosen(kind="created") == [("created", other), ("created", SESSION)] * 5
        assert await chosen(kind="used") == [("used", other), ("used", SESSION)] * 5
        assert await chosen(kind="refused") == [("refused", None)]
        assert await chosen(kind="requested") == [("requested", None)] * 10
        assert await chosen(kind="unlocked") == []
        assert await chosen(session=SESSION) == [("used", SESSION), ("created", SESSION)] * 5
        assert await chosen(session="0190", kind="used") == [("used", other)] * 5
        assert await chosen(session="019", since=clock.wall) == [("used", other), ("created", other)]
        assert await chosen(session=SESSION + "0") == []
        await log.flush()


async def test_another_kind_is_not_read(db, new_log, clock):
    log = new_log(audit_uses="all")
    for number in range(300):
        clock.advance(1)
        log.uses.add(Verification(True, None, SessionInfo(str(number), "", 0.0, None, None)), PEER)
    await log.flush()
    await put(db, log, CREATED)
    page = await audit_page(log, kind=CREATED)
    assert ([entry.kind for entry in page.entries], page.next) == ([CREATED], None)


async def test_since_does_not_read_all_older_entries(db, log, clock):
    for _ in range(100):
        clock.advance(MINUTES)
        await put(db, log, CREATED)
    looked_at, iterate = [], db.iterate

    def counting(*arguments, **options):
        found = iterate(*arguments, **options)
        looked_at.extend(found)
        return found

    db.iterate = counting
    assert len((await audit_page(log, since=clock.wall, limit=2)).entries) == 1
    assert len(looked_at) < 20


async def test_a_page_examines_a_limited_number_of_entries_in_slices(db, log, clock, monkeypatch):
    for _ in range(40):
        clock.advance(0.5)
        await put(db, log, CREATED)
    monkeypatch.setattr(listing, "MAX_EXAMINED", 16)
    monkeypatch.setattr(listing.Slices.__init__, "__defaults__", (iter(range(10**6)).__next__,))
    later = clock.wall + BOUNDS.seconds / 2  # nothing matches, so all entries are examined
    turns, scope = 0, trio.CancelScope()

    async def count_turns() -> None:
        nonlocal turns
        with scope:
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        page, pages = await audit_page(log, since=later), 1
        while page.next is not None:
            assert page.entries == []
            page, pages = await audit_page(log, since=later, after=page.next), pages + 1
        scope.cancel()
    assert pages == 3
    assert turns >= 40, "a slice has one entry here"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": MAX_PAGE_AUDIT + 1}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1.0}, "limit"),
        ({"limit": "1"}, "limit"),
        ({"after": ""}, "after"),
        ({"after": "00" * 15}, "after"),
        ({"after": "00" * 17}, "after"),
        ({"after": "zz" * 16}, "after"),
        ({"after": "é" * 32}, "after"),
        ({"after": b"00" * 16}, "after"),
        ({"after": 0}, "after"),
        ({"since": "yesterday"}, "since"),
        ({"since": True}, "since"),
        ({"since": float("nan")}, "since"),
        ({"since": float("inf")}, "since"),
        ({"since": 10**400}, "since"),
        ({"kind": "loud"}, "kind"),
        ({"kind": b"used"}, "kind"),
        ({"kind": ["used"]}, "kind"),
        ({"session": ""}, "session"),
        ({"session": 5}, "session"),
    ],
)
async def test_an_unusable_limit_cursor_or_time_is_refused_by_name(log, arguments, name):
    with pytest.raises(InvalidParamsError, match=name):
        (await audit_page(log, **arguments))


@pytest.mark.parametrize("since", [1e18, 2**62, -1e18, -(2**62)])
async def test_distant_times_are_accepted(db, log, clock, since):
    await put(db, log, CREATED)
    assert len((await audit_page(log, since=since)).entries) == (since < 0)


async def test_the_largest_page_fits_into_one_message(db, log, clock):
    wide = "\U0001f600"
    by = PeerIdentity(2**32 - 2, 2**31 - 1, wide * MAX_SHOWN_CHARACTERS)
    for _ in range(MAX_PAGE_AUDIT + 1):
        await put(
            db, log, REVOKED, session_id=SESSION, label=wide * MAX_LABEL_CHARACTERS, by=by,
            reason=max(reasons.SENTENCES, key=len),
        )  # fmt: skip
    page = await audit_page(log)
    assert len(page.entries) == MAX_PAGE_AUDIT
    assert len(Encoder().result(1, to_wire(page))) <= MAX_MESSAGE_BYTES


async def test_a_damaged_entry_is_an_error(db, log, clock):
    await db.put((*ACTIONS_PATH, bytes(16)), AuditRecord.__name__.encode())
    with pytest.raises(StoreDamagedError):
        (await audit_page(log))


# --- bounds ---


async def test_rejections_do_not_push_out_actions(db, new_log, clock, monkeypatch):
    monkeypatch.setattr(RejectedTokens, "bounds", BOUNDS._replace(new=1000))
    log = new_log(max_entries=40)
    for number in range(100):
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, number))
    for number in range(30):
        await put(db, log, CREATED, label=str(number))
    await log.flush()
    await log.trim()
    assert [entry.label for entry in (await entries(log)) if entry.kind == CREATED] == [
        str(n) for n in range(29, -1, -1)
    ]
    assert [entry.peer_pid for entry in (await entries(log)) if entry.kind == REFUSED] == list(
        range(99, 89, -1)
    )
    for number in range(30, 75):
        await put(db, log, CREATED, label=str(number))
    await log.trim()
    assert [entry.label for entry in (await entries(log)) if entry.kind == CREATED] == [
        str(n) for n in range(74, 34, -1)
    ]
    assert (db.count(ACTIONS_PATH), db.count(REJECTIONS_PATH)) == (40, 10)


async def test_publishing_checks_the_size_only_every_so_many_entries(db, log, monkeypatch):
    asked, count = [], db.count
    monkeypatch.setattr(db, "count", lambda path: asked.append(path) or count(path))
    log.publish(CREATED)
    assert asked, "an earlier process may have left too many"
    asked.clear()
    for _ in range(journal.TRIM_EVERY - 1):
        await put(db, log, CREATED)
        log.publish(CREATED)
    assert asked == []
    await put(db, log, CREATED)
    log.publish(CREATED)
    assert asked


async def test_publishing_deletes_a_bounded_number_of_the_oldest_entries_ahead_of_what_waits(
    db, new_log, monkeypatch
):
    monkeypatch.setattr(journal, "MAX_TRIMMED", 40)
    log, found = new_log(max_entries=10), []
    for _ in range(100):
        await put(db, log, CREATED)
    oldest_first = db.paths(ACTIONS_PATH, limit=100)
    gate = await hold_commits(db)
    db.submit(lambda view: found.extend(path for path, _ in view.iterate(ACTIONS_PATH)))
    log.publish(CREATED)
    gate.set()
    await db.put("last", b"")
    assert found == oldest_first[40:]


async def test_publishing_does_not_delete_the_same_entries_again_before_they_are_gone(
    db, new_log, monkeypatch
):
    log, submitted = new_log(max_entries=1), []
    for _ in range(3):
        await put(db, log, CREATED)
    monkeypatch.setattr(db, "submit", lambda function, *, is_next: submitted.append(function))
    async with db.transaction() as tran:
        log.publish(CREATED)
        assert len(submitted) == 1
        for _ in range(journal.TRIM_EVERY):
            log.write(tran, CREATED)
        log.publish(CREATED)
        assert len(submitted) == 1
    log.publish(CREATED)
    assert len(submitted) > 1


# --- refusals ---


async def test_rejections_of_one_peer_for_one_reason_share_an_entry(db, log, clock):
    start = clock.wall
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER, session_id=SESSION, label="deploy")
    await written(db)
    assert [entry.times for entry in (await entries(log))] == [1]  # the first is written at once
    commits = db.commits
    for _ in range(499):
        clock.advance(1)
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER, session_id=SESSION, label="deploy")
    assert db.commits == commits
    await log.rejected_tokens.flush()
    assert db.commits == commits + 1
    assert (await entries(log)) == [
        AuditEntry(
            *(start, start + 499, REFUSED, SESSION, "deploy", reasons.EXPIRED),
            *(PEER.uid, PEER.pid, PEER.exe, 500, PEER.unit),
        )
    ]
    await log.rejected_tokens.flush()
    assert db.commits == commits + 1  # nothing new, nothing written


async def test_counts_are_listed_before_they_are_written(db, log, clock):
    for _ in range(40):
        clock.advance(1)
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await written(db)
    assert [record.times for record in stored(db)] == [1]
    commits = db.commits
    assert [(entry.times, entry.until) for entry in (await entries(log))] == [(40, clock.wall)]
    assert [entry.times for entry in (await entries(log, since=clock.wall))] == [40]
    assert db.commits == commits, "reading changes nothing"


async def test_values_that_differ_among_counted_rejections_are_left_out(db, log, clock):
    for session in ("one", "two", "one"):
        log.rejected_tokens.add(
            reasons.EXPIRED, clock.read(), by=PEER, session_id=session, label=f"label of {session}"
        )
    await log.rejected_tokens.flush()
    (entry,) = await entries(log)
    assert (entry.session_id, entry.label, entry.times) == (None, "", 3)
    assert (entry.peer_uid, entry.peer_pid, entry.reason) == (PEER.uid, PEER.pid, reasons.EXPIRED)


async def test_another_peer_or_reason_has_another_entry(db, log, clock):
    for peer in (PEER, PEER._replace(pid=1), PEER._replace(uid=0), None):
        for reason in (reasons.EXPIRED, reasons.REVOKED):
            log.rejected_tokens.add(reason, clock.read(), by=peer)
            log.rejected_tokens.add(reason, clock.read(), by=peer and peer._replace(exe=None))
    await log.rejected_tokens.flush()
    assert len(await entries(log)) == 8
    assert {entry.times for entry in (await entries(log))} == {2}
    assert {entry.peer_exe for entry in (await entries(log)) if entry.peer_pid} == {PEER.exe}


@pytest.mark.parametrize("is_set_back", [False, True])
async def test_a_peer_gets_a_new_entry_after_ten_minutes(db, log, clock, is_set_back):
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    clock.advance(BOUNDS.seconds - 1)
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    if is_set_back:
        clock.set_wall(clock.wall - 3600)
    else:
        clock.advance(1)
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await log.rejected_tokens.flush()
    assert [entry.times for entry in (await entries(log))] == [1, 2]
    assert all(0 <= entry.until - entry.at < BOUNDS.seconds for entry in (await entries(log)))


async def test_a_program_with_ever_new_pids_ends_up_in_one_entry(db, log, clock):
    for pid in range(1000):
        log.rejected_tokens.add(
            reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, pid, "/bin/x"), session_id=SESSION
        )
    await log.rejected_tokens.flush()
    others, *named = await entries(log)
    assert len(named) == BOUNDS.new
    assert (others.peer_uid, others.peer_pid, others.peer_exe) == (1000, None, None)
    assert (others.times, others.reason, others.session_id) == (
        1000 - BOUNDS.new,
        reasons.EXPIRED,
        SESSION,
    )
    log.rejected_tokens.add(reasons.REVOKED, clock.read(), by=PeerIdentity(1001, 1))
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, 0))  # this one has an entry
    await log.rejected_tokens.flush()
    others, *named = await entries(log)
    assert (others.times, others.reason, others.peer_uid) == (1001 - BOUNDS.new, None, None)
    assert named[-1].times == 2
    clock.advance(BOUNDS.seconds)
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, 5000))
    await written(db)
    assert (await entries(log))[0].peer_pid == 5000  # there is room for new entries again


async def test_an_asker_is_described_when_its_entry_begins_and_told_from_a_later_one_of_its_pid(
    db, log, clock
):
    first, later = Program(7, started=1), Program(7, started=2)
    for program in (first, later, first, later):
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=program)
    assert [(entry.peer_pid, entry.peer_exe, entry.times) for entry in (await entries(log))] == [
        (7, "/bin/2", 2),
        (7, "/bin/1", 2),
    ]
    assert {entry.peer_unit for entry in (await entries(log))} == {"some.service"}
    assert first.times_described == later.times_described == 1
    for pid in range(100):
        log.rejected_tokens.add(reasons.REVOKED, clock.read(), by=(crowded := Program(pid)))
    assert crowded.times_described == 0, "it has no entry of its own"


async def test_new_entries_are_limited_in_any_ten_minutes(db, log, clock):
    begun = 0
    for step in range(120):
        for number in range(3):
            log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, 10 * step + number))
        clock.advance(20)
    await log.rejected_tokens.flush()
    named = sorted(entry.at for entry in (await entries(log)) if entry.peer_pid is not None)
    for at in named:
        begun = max(begun, sum(at <= other < at + BOUNDS.seconds for other in named))
    assert begun == BOUNDS.new
    assert sum(entry.times for entry in (await entries(log))) == 360


async def test_memory_is_bounded_and_the_oldest_entry_is_written_before_it_is_dropped(
    db, log, clock, monkeypatch
):
    monkeypatch.setattr(RejectedTokens, "bounds", BOUNDS._replace(new=10_000))
    for pid in range(BOUNDS.pending + 5):
        for _ in range(3):
            log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, pid))
    assert len(log.rejected_tokens._entries) == len(log.rejected_tokens._latest) == BOUNDS.pending
    await written(db)
    assert [record.times for record in stored(db)][:6] == [3] * 5 + [1]
    await log.rejected_tokens.flush()
    assert {record.times for record in stored(db)} == {3}
    clock.advance(BOUNDS.seconds)
    await log.rejected_tokens.flush()
    assert len(log.rejected_tokens._entries) == len(log.rejected_tokens._latest) == 0


async def test_rejections_during_a_flush_are_written_by_the_next(db, log, clock):
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.rejected_tokens.flush)
        await trio.testing.wait_all_tasks_blocked()
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
        gate.set()
    assert [record.times for record in stored(db)] == [2]
    await log.rejected_tokens.flush()
    assert [record.times for record in stored(db)] == [3]


# --- when an entry cannot be written ---


async def test_a_full_store_opens_no_session_without_its_entry(db, log, clock, full):
    full(True)

    def open_session(view):
        view.put("session", b"")
        log.write(view, CREATED)

    with pytest.raises(StoreFullError):
        await db.write(open_session)
    assert db.get("session") is None
    assert (await entries(log)) == []


async def test_a_missing_entry_is_logged(log, caplog):
    with caplog.at_level(logging.ERROR, "agentd.test"):
        log.missed(REVOKED, PEER)
        log.missed(KEY_RESET, None)
    assert "revoked by uid=1000 pid=4711" in caplog.text
    assert "keyReset by uid=None" in caplog.text


async def test_rejections_stay_counted_while_the_store_is_full(db, log, clock, full, caplog):
    full(True)
    for _ in range(3):
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    with caplog.at_level(logging.WARNING):
        await log.rejected_tokens.flush()
        assert "missing from the audit log" in caplog.text
        caplog.clear()
        for pid in range(100):
            log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, pid))
        await written(db)
        assert caplog.records == []  # one line per flush, not per rejection
    assert stored(db) == []
    assert sum(entry.times for entry in (await entries(log))) == 103, "they are listed from memory"
    clock.advance(5 * BOUNDS.seconds)
    await log.rejected_tokens.flush()
    full(False)
    await log.rejected_tokens.flush()
    assert sum(entry.times for entry in (await entries(log))) == 103
    assert (await entries(log))[-1].times == 3
    before = len(stored(db))
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await written(db)
    assert [record.peer_pid for record in stored(db)[before:]] == [PEER.pid], "at once again"


async def test_counting_on_in_an_existing_entry_fits_into_a_full_store(db, log, clock, full):
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await written(db)
    full(True)
    for _ in range(99):
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await log.rejected_tokens.flush()
    assert [entry.times for entry in (await entries(log))] == [100]


async def test_entries_that_exceed_memory_are_logged(db, log, clock, full, caplog, monkeypatch):
    monkeypatch.setattr(RejectedTokens, "bounds", BOUNDS._replace(pending=2))
    full(True)
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, 1))
    await log.rejected_tokens.flush()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for pid in (2, 3):
            log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, pid))
    assert [record.getMessage() for record in caplog.records] == [
        "missing from the audit log: 1 rejected tokens by uid=1000 pid=1 (EXPIRED)"
    ]


async def test_a_full_store_can_be_trimmed(db, new_log, clock, full):
    log = new_log(max_entries=10)
    for _ in range(200):
        await put(db, log, CREATED)
    full(True)
    await log.trim()
    assert len(await entries(log)) == 10


async def test_rejecting_raises_nothing_if_the_store_is_not_open(db, log, clock):
    log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PEER)
    await db.stop()
    for pid in (PEER.pid, 1, 2):
        log.rejected_tokens.add(reasons.EXPIRED, clock.read(), by=PeerIdentity(1000, pid))
    await log.rejected_tokens.flush()
    with pytest.raises(DBNotRunningError):
        (await audit_page(log))
    await db.start()
    await log.rejected_tokens.flush()
    assert [entry.times for entry in (await entries(log))] == [1, 1, 2]
