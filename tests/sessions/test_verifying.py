from __future__ import annotations

import sys
from base64 import urlsafe_b64encode

import pytest
import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager, verifier
from agentd.sessions.records import SessionRecord, session_path
from agentd.store import DB
from agentd.tokens import TokenError, open_token, parse_token
from agentd_client import PeerIdentity
from agentd_client.errors import InvalidLabelError, InvalidParamsError


async def test_a_session_is_described_as_it_was_opened(manager, clock):
    created = await manager.open_session(60, "a label", PeerIdentity(1000, 42))
    found = (await manager.inspect_token(created.token)).session
    assert found[:5] == (created.id, "a label", clock.wall, clock.wall + 60, PeerIdentity(1000, 42))


async def test_no_repr_shows_a_token(manager):
    created = await manager.open_session()
    assert created.token not in repr(created)


async def test_each_reason_has_its_code(manager, clock):
    revoked, expired = await manager.create_token(), await manager.create_token(5)
    await manager.revoke_token(revoked)
    clock.advance(10)
    assert manager.inspect(revoked).reason == "REVOKED"
    assert manager.inspect(expired).reason == "EXPIRED"
    assert manager.inspect("nonsense").reason == "MALFORMED"
    await manager.reset_key()
    assert manager.inspect(expired).reason == "KEY_RESET"
    valid = manager.inspect(await manager.create_token())
    assert (valid.valid, valid.reason) == (True, None)


async def test_an_expired_session_is_still_described(manager, clock):
    created = await manager.open_session(5, "label")
    clock.advance(10)
    found = await manager.inspect_token(created.token)
    assert (found.valid, found.session.label) == (False, "label")


async def test_the_token_of_a_swept_session_is_reported_as_expired(manager, clock):
    expiring, lasting = await manager.create_token(5), await manager.create_token(50)
    clock.advance(10)
    await manager.sweep()
    assert manager.inspect(expiring).reason == "EXPIRED"
    assert manager.inspect(lasting).valid


async def test_after_an_acknowledged_revoke_no_verify_says_yes(db, manager):
    for by_id in (False, True):
        created = await manager.open_session()
        assert await manager.verify_token(created.token)
        how = {"id": created.id} if by_id else {"token": created.token}
        assert await manager.revoke_token(**how) is True
        assert not await manager.verify_token(created.token)
        assert await manager.revoke_token(**how) is False


async def test_revoking_through_a_tran_counts_when_it_commits(db, manager):
    created, other = await manager.open_session(), await manager.open_session()
    async with db.transaction() as tran:
        assert await manager.revoke_token(created.token, tran=tran)
        assert await manager.revoke_token(id=other.id, tran=tran)
        assert not await manager.verify_token(created.token, tran)
        assert await manager.verify_token(created.token)
    assert not await manager.verify_token(created.token)
    assert not await manager.verify_token(other.token)


@pytest.mark.parametrize("token", ["nonsense", b"bytes", 5, "v4.local.AAAA", "é"])
async def test_revoking_a_malformed_token_ends_nothing(db, manager, token):
    assert await manager.revoke_token(token) is False
    async with db.transaction() as tran:
        assert await manager.revoke_token(token, tran=tran) is False


@pytest.mark.parametrize("id", ["", "x" * 65, 5, b"id", ["id"]])
async def test_revoking_by_an_id_of_another_form_is_refused(manager, id):
    with pytest.raises(InvalidParamsError):
        await manager.revoke_token(id=id)


async def test_revoking_takes_a_token_or_an_id(manager):
    with pytest.raises(InvalidParamsError):
        await manager.revoke_token()
    with pytest.raises(InvalidParamsError):
        await manager.revoke_token("token", id="id")
    assert await manager.revoke_token(id="unknown") is False
    assert await manager.revoke_token(id="nul\0 and \x01") is False


async def test_a_revoked_token_of_an_earlier_key_stays_revoked(manager):
    token = await manager.create_token()
    await manager.reset_key()
    assert await manager.revoke_token(token) is False


async def test_a_clock_set_back_does_not_revive_an_expired_session(db, key_ring, manager, clock):
    token = await manager.create_token(60)
    clock.set_wall(clock.wall + 100)
    assert not await manager.verify_token(token)
    clock.set_wall(clock.wall - 100)
    assert not await manager.verify_token(token)
    await manager.stop()
    another = SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock)
    async with await another as manager:
        assert not await manager.verify_token(token), "and it is remembered after a restart"


async def test_within_one_boot_the_wall_clock_set_back_prolongs_nothing(manager, clock):
    token = await manager.create_token(60)
    clock.advance(30)
    clock.set_wall(clock.wall - 10_000)
    assert await manager.verify_token(token)
    clock.advance(31.5)
    assert not await manager.verify_token(token)


async def test_the_boot_clock_of_another_boot_is_ignored(manager, clock):
    token = await manager.create_token(60)
    clock.reboot()
    clock.boot = 1e9
    assert await manager.verify_token(token)
    clock.set_wall(clock.wall + 61)
    assert not await manager.verify_token(token)


async def test_without_a_boot_id_the_wall_clock_alone_decides(manager, clock):
    clock.boot_id = ""
    token = await manager.create_token(60)
    clock.boot += 1000
    assert await manager.verify_token(token)


async def test_a_token_of_another_agent_is_rejected_with_its_own_reason(tmp_path, manager, clock):
    async with (
        await KeyRing.create_key_ring(keys_path=tmp_path / "keys2") as key_ring,
        await DB.create_db(db_path=tmp_path / "store2", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other,
    ):
        token = await other.create_token()
        assert not await manager.verify_token(token)
        assert manager.inspect(token).reason == "OTHER_AGENT"
        await other.reset_key()
        assert other.inspect(token).reason == "KEY_RESET"


async def test_a_token_opens_under_the_id_of_its_own_agent_only(key_ring, manager):
    token = parse_token(await manager.create_token())
    own, another = (b"agentd:" + agent_id.encode() for agent_id in (key_ring.agent_id, "0" * 32))
    with await manager.setup_key() as key:
        assert open_token(key, token, implicit=own).iss == key_ring.agent_id
        for implicit in (another, b"agentd:", b""):
            with pytest.raises(TokenError):
                open_token(key, token, implicit=implicit)


async def test_a_key_id_without_a_mark_is_of_an_unknown_agent(manager):
    created = await manager.open_session()
    head, body, _ = created.token.rpartition(".")
    old = head + body + urlsafe_b64encode(b'{"kid":"%s"}' % (b"A" * 22)).rstrip(b"=").decode()
    assert manager.inspect(old).reason == "KEY_RESET"


async def test_a_token_two_generations_old_is_rejected(db, manager):
    created = await manager.open_session()
    assert manager.inspect(created.token).valid
    path = session_path(manager.key_id, created.id)
    record = SessionRecord.decode(db.get(path))
    fields = {name: getattr(record, name) for name in SessionRecord.__slots__} | {"generation": 2}
    await db.put(path, SessionRecord(**fields).encode())
    assert not manager.inspect(created.token).valid


async def test_a_token_of_a_generation_that_its_record_does_not_have_is_rejected(db, manager):
    created = await manager.open_session()
    path = session_path(manager.key_id, created.id)
    before = db.get(path)
    renewed = await manager.renew_token(created.token)
    await db.put(path, before)
    assert manager.inspect(renewed.token).reason == "REVOKED"
    assert not await manager.verify_token(renewed.token)
    assert await manager.verify_token(created.token)


async def test_a_record_that_changed_is_read_again(db, manager):
    created = await manager.open_session()
    assert manager.inspect(created.token).valid
    path = session_path(manager.key_id, created.id)
    stored = db.get(path)
    await db.delete(path)
    assert not manager.inspect(created.token).valid
    await db.put(path, stored)
    assert manager.inspect(created.token).valid


async def test_a_first_verification_reads_store_and_clock_once(db, manager, clock, monkeypatch):
    first, second = await manager.create_token(), await manager.create_token()
    assert manager.verify_nowait(first).valid
    readings, times = [], []
    read_store, read_clock = db.sealed, clock.read
    monkeypatch.setattr(db, "sealed", lambda *paths: (readings.append(paths), read_store(*paths))[1])
    monkeypatch.setattr(clock, "read", lambda: (times.append(clock.wall), read_clock())[1])
    assert manager.verify_nowait(second).valid
    assert (len(readings), len(times)) == (1, 1)


async def calls_of(operation) -> list[tuple[str, str]]:
    """The calls of our own functions during an operation, with their modules."""
    calls = []

    def note(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("agentd"):
            calls.append((module, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        await operation()
    finally:
        sys.setprofile(None)
    return calls


async def test_a_first_verification_takes_few_calls(manager):
    first, second = await manager.create_token(), await manager.create_token()
    assert manager.verify_nowait(first).valid

    async def verify():
        assert manager.verify_nowait(second).valid

    calls = await calls_of(verify)
    assert len(calls) <= 50, calls


async def test_opening_a_session_passes_few_modules(manager):
    await manager.create_token()
    modules = {module for module, _ in await calls_of(manager.open_session)}
    assert len({module for module in modules if module.startswith("agentd.sessions.")}) <= 8, modules
    assert len(modules) <= 24, modules


async def test_a_forged_token_is_malformed_while_its_key_is_accepted(manager):
    def forged(token: str) -> str:
        body, _, footer = token.rpartition(".")
        return f"{body[:-4]}AAAA.{footer}"

    token = await manager.create_token()
    assert manager.verify_nowait(token).valid
    assert manager.verify_nowait(forged(token)).reason == "MALFORMED"
    await manager.reset_key()
    assert manager.verify_nowait(forged(token)).reason == "KEY_RESET"


async def test_a_key_replaced_by_another_manager_is_rejected(db, key_ring, manager):
    token, unseen = await manager.create_token(), await manager.create_token()
    assert manager.verify_nowait(token).valid
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring) as other:
        await other.reset_key()  # `manager` still has the earlier key in memory
        assert manager.verify_nowait(unseen).reason == "KEY_RESET"
        assert manager.verify_nowait(await other.create_token()).valid


async def test_the_token_cache_is_bounded(manager, monkeypatch):
    monkeypatch.setattr(verifier, "MAX_CACHED_TOKENS", 3)
    tokens = [await manager.create_token() for _ in range(10)]
    for _ in range(2):
        assert all(manager.inspect(token).valid for token in tokens)
    assert len(manager._verifier._cache) == 3


@pytest.mark.parametrize("part", ["manager", "key ring"])
async def test_no_token_stays_in_memory_after_a_stop(manager, key_ring, part):
    assert await manager.verify_token(await manager.create_token())
    assert len(manager._verifier._cache) == 1
    await {"manager": manager, "key ring": key_ring}[part].stop()
    assert manager._verifier._cache == {}


@pytest.mark.parametrize(
    "label",
    ["x" * 201, "new\nline", "\x1b[31mred", "nul\0", "\u202ereversed", "\u2028", "\ud800", 5, b"bytes"],
)
async def test_labels_unsafe_for_a_terminal_are_refused(manager, label):
    with pytest.raises(InvalidLabelError):
        await manager.open_session(label=label)
    assert manager.session_count == 0


@pytest.mark.parametrize("label", ["", "x" * 200, "naïve café 日本語 🙂", "a\u00a0b"])
async def test_labels_in_any_language_are_kept_as_they_are(manager, label):
    created = await manager.open_session(label=label)
    assert manager.inspect(created.token).session.label == label


async def test_creating_while_the_manager_stops_is_an_error_not_a_dead_token(manager, monkeypatch):
    from agentd_client.errors import SessionManagerNotRunningError

    write = manager._db.write

    async def write_then_stop(change):
        answer = await write(change)
        monkeypatch.undo()
        await manager.stop()
        return answer

    monkeypatch.setattr(manager._db, "write", write_then_stop)
    with pytest.raises(SessionManagerNotRunningError):
        await manager.create_token()


async def test_a_session_opened_while_the_key_is_replaced_is_under_the_new_key(db, manager):
    """The token is made in the operation that stores its record, with the key that is current then."""
    tokens = []

    async def create():
        tokens.append(await manager.create_token())

    async with trio.open_nursery() as nursery:
        db.submit(manager._keys.replace)  # queued before all of them, and not carried out yet
        for _ in range(4):
            nursery.start_soon(create)
    assert [manager.inspect(token).reason for token in tokens] == [None] * 4


async def test_a_str_subclass_does_not_verify(db, manager):
    token = await manager.create_token()
    assert await manager.verify_token(token)

    class Pretender(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return hash(token)

        def __eq__(self, other: object) -> bool:
            return True

    class Unhashable(str):
        __slots__ = ()
        __hash__ = None

    for thing in (Pretender("x"), Unhashable(token)):
        assert await manager.verify_token(thing) is False
        assert await manager.revoke_token(thing) is False
        async with db.transaction() as tran:
            assert await manager.verify_token(thing, tran) is False


@pytest.mark.parametrize(
    "label",
    ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
)
async def test_joiners_in_emoji_and_persian_are_accepted(manager, label):
    created = await manager.open_session(60, label)
    assert manager.inspect(created.token).session.label == label


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("lo\u200dgin", r"U\+200D ZERO WIDTH JOINER \(character 3\)"),
        ("x\u202e", r"U\+202E RIGHT-TO-LEFT OVERRIDE \(character 2\)"),
        ("two\nlines", r"U\+000A \(character 4\)"),
    ],
)
async def test_the_error_names_the_refused_character(manager, label, named):
    with pytest.raises(InvalidLabelError, match=named) as refused:
        await manager.open_session(60, label)
    assert label not in refused.value.sentence
