from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import pytest
import trio
import trio.testing

from agentd_client import AgentUnreachableError, Client, Event, InvalidAudienceError, InvalidScopesError
from agentd_client.ext import cache as caching
from agentd_client.ext.bearer import Denied
from agentd_client.ext.cache import Cache
from agentd_client.ext.guard import Guard
from tests.client.scripted import Peer, ScriptedAgent
from tests.forking import fork, in_child

LONG_SECONDS = 60.0


def wait_until(condition) -> None:
    until = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.001)


@pytest.fixture
def guard(agent):
    guard = Guard(cache=True)
    yield guard
    guard.close()


@pytest.fixture
def calls(monkeypatch):
    """The calls that the agent got."""
    made: list[str] = []
    carry_out = Client._carry_out

    def counted(self, call, *args):
        made.append(call.method.name)
        return carry_out(self, call, *args)

    monkeypatch.setattr(Client, "_carry_out", counted)
    return made


def made_live(guard: Guard) -> Cache:
    cache = guard._cache()
    assert cache is not None
    wait_until(lambda: cache._is_live)
    return cache


def reason(guard: Guard, token: str) -> str | None:
    with pytest.raises(Denied) as raised:
        guard.admit_token(token)
    return raised.value.reason


def test_a_yes_is_kept_and_its_end_is_noticed(agent, guard, calls):
    made_live(guard)
    created = agent.create_token()
    for _ in range(3):
        assert guard.admit_token(created.token).session_id == created.id
    assert calls.count("verifyToken") == 1
    agent.client.revoke_token(id=created.id)
    cache = guard._cache()
    wait_until(lambda: not cache._kept)
    assert reason(guard, created.token) == "REVOKED"


@pytest.mark.parametrize("end", ["parent", "key", "renewal", "lock", "stop", "expiry"])
def test_whatever_ends_a_session_is_noticed(agent, guard, end):
    cache = made_live(guard)
    parent = agent.create_token()
    created = agent.create_token(expiry=600, parent=parent.token)
    assert guard.admit_token(created.token)
    assert cache._kept
    match end:
        case "parent":
            agent.revoke(parent)
        case "key":
            agent.client.reset_key()
        case "renewal":
            agent.client.renew_token(created.token)
        case "lock":
            agent.lock()
        case "stop":
            agent.stop()
        case "expiry":
            agent.advance(700)
            agent.create_token()  # the agent's clock is ahead; this one's own stands for it
    if end == "expiry":
        return
    wait_until(lambda: not cache._kept)
    if end != "renewal":
        assert reason(guard, created.token) in {"REVOKED", "KEY_RESET", "LOCKED", "AGENT_UNREACHABLE"}


def test_a_kept_yes_ends_with_its_session_by_the_clock(agent, guard, monkeypatch, calls):
    made_live(guard)
    created = agent.create_token(expiry=600)
    guard.admit_token(created.token)
    monkeypatch.setattr(caching.time, "time", lambda: created.expires_at)
    guard.admit_token(created.token)
    assert calls.count("verifyToken") == 2


def test_a_clock_that_is_set_back_prolongs_no_kept_yes(agent, guard, monkeypatch, calls):
    made_live(guard)
    created = agent.create_token(expiry=10)
    guard.admit_token(created.token)
    now = caching._boottime()
    monkeypatch.setattr(caching.time, "time", lambda: created.expires_at - 3600)
    monkeypatch.setattr(caching, "_boottime", lambda: now + 10)
    guard.admit_token(created.token)
    assert calls.count("verifyToken") == 2


def test_the_agent_is_asked_again_after_a_while(agent, guard, monkeypatch, calls):
    made_live(guard)
    token = agent.create_token().token
    guard.admit_token(token)
    now = caching._boottime()
    monkeypatch.setattr(caching, "_boottime", lambda: now + caching.LONGEST_SECONDS)
    guard.admit_token(token)
    assert calls.count("verifyToken") == 2


def unreachable():
    raise AgentUnreachableError


def test_without_events_nothing_is_kept(agent, guard, monkeypatch, calls):
    cache = made_live(guard)
    token = agent.create_token().token
    guard.admit_token(token)
    agent.stop()
    wait_until(lambda: not cache._is_live)
    monkeypatch.setattr(cache, "_subscribe", unreachable)
    agent.start()
    for _ in range(3):
        guard.admit_token(token)
    assert calls.count("verifyToken") == 4
    assert not cache._kept


def test_an_answer_that_was_on_its_way_when_something_ended_is_not_kept(agent, guard):
    cache = made_live(guard)
    token = agent.create_token().token
    admission = guard.admit_token(token)
    key = cache.key(token, None, ())
    epoch = cache.epoch
    agent.revoke(agent.create_token())
    wait_until(lambda: cache.epoch != epoch)
    cache.keep(key, admission, epoch)
    assert cache.get(key) is None
    cache.keep(key, admission, cache.epoch)
    assert cache.get(key) == admission


def test_events_that_were_missed_count_as_any_end(agent, guard, monkeypatch):
    cache = made_live(guard)
    guard.admit_token(agent.create_token().token)
    assert cache._kept
    feed = cache._events
    cache._read([Event("created", 1.0, None, "", None, None, missed=1)])
    assert not cache._kept
    cache._events = feed


def test_what_ends_no_session_empties_nothing_and_what_is_unknown_does(agent, guard):
    """Anybody who may ask for a session can cause events of requests."""
    cache = made_live(guard)
    guard.admit_token(agent.create_token().token)
    feed = cache._events

    def events():
        token = agent.create_token().token
        guard.admit_token(token)
        for kind in (
            "refused",
            "requested",
            "approved",
            "denied",
            "requestExpired",
            "withdrawn",
            "forgotten",
        ):
            yield Event(kind, 1.0, None, "", None, None)
            assert cache._kept, kind
        yield Event("something new", 1.0, None, "", None, None)
        assert not cache._kept

    cache._read(events())
    cache._events = feed


def test_limited_uses_and_refusals_are_never_kept(agent, guard, calls):
    made_live(guard)
    limited = agent.create_token(max_uses=2).token
    guard.admit_token(limited)
    guard.admit_token(limited)
    assert reason(guard, limited) == "USED_UP"
    assert reason(guard, "v4.local.x") == "MALFORMED"
    assert reason(guard, "v4.local.x") == "MALFORMED"
    assert calls.count("verifyToken") == 5


def test_a_yes_for_one_question_is_none_for_another(agent, guard):
    made_live(guard)
    token = agent.create_token(scopes=["read"], audience=["notes"]).token
    guard.admit_token(token, scopes=["read"], audience="notes")
    with pytest.raises(Denied):
        guard.admit_token(token, scopes=["write"], audience="notes")
    with pytest.raises(Denied):
        guard.admit_token(token, scopes=["read"], audience="mail")
    with pytest.raises(Denied):
        guard.admit_token(token, scopes=["read"])


def test_no_characters_make_one_question_look_like_another(agent, guard):
    cache = made_live(guard)
    token = agent.create_token(scopes=["read"], audience=["notes"]).token
    guard.admit_token(token, scopes=["read"], audience="notes")
    assert cache._kept
    with pytest.raises(Denied):
        guard.admit_token(f"{token}\0notes", audience="read")
    with pytest.raises(Denied):
        guard.admit_token(f"{token}\0notes\0read")
    unlimited = agent.create_token().token
    guard.admit_token(unlimited)
    with pytest.raises(InvalidAudienceError):
        guard.admit_token(unlimited, audience="")


def test_the_cache_is_bounded_and_holds_no_token(agent, guard, monkeypatch):
    monkeypatch.setattr(caching, "MOST_ENTRIES", 2)
    cache = made_live(guard)
    tokens = [agent.create_token().token for _ in range(3)]
    for token in tokens:
        guard.admit_token(token)
    assert len(cache._kept) == 2
    assert not any(token in repr(cache._kept) for token in tokens)


def test_a_forked_child_asks_for_itself(agent, guard):
    token = agent.create_token().token
    made_live(guard)
    guard.admit_token(token)

    def child() -> None:
        assert guard.admit_token(token)
        made_live(guard)
        assert guard.admit_token(token)

    in_child(child)
    assert guard.admit_token(token), "the parent's connections are its own"


def test_a_descendant_with_the_pid_of_an_ancestor_does_not_use_its_cache(agent, guard, monkeypatch):
    token = agent.create_token().token
    pid = os.getpid()
    made_live(guard)
    guard.admit_token(token)
    reading, writing = os.pipe()

    def child() -> None:
        monkeypatch.setattr(os, "getpid", lambda: pid)
        os.read(reading, 1)
        assert reason(guard, token) == "REVOKED"

    forked = fork(child)
    agent.client.revoke_token(token)
    os.write(writing, b"x")
    assert os.waitpid(forked, 0)[1] == 0


def events_threads() -> int:
    return sum(thread.name == "agentd-guard-events" for thread in threading.enumerate())


def test_the_first_requests_of_many_threads_make_one_thread_for_events(agent, guard):
    before, begin = events_threads(), threading.Barrier(16)

    def ask() -> None:
        begin.wait()
        guard._cache()

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events_threads() == before + 1


def exhausted(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_further_thread_every_request_is_asked_about(agent, guard, monkeypatch, calls):
    token = agent.create_token().token
    with monkeypatch.context() as patch:
        patch.setattr(caching.threading.Thread, "start", exhausted)
        assert guard.admit_token(token)
        assert guard.admit_token(token)
    assert calls.count("verifyToken") == 2
    made_live(guard)


def test_a_guard_that_was_closed_before_its_first_request_leaves_no_thread(agent):
    before = events_threads()
    guard = Guard(cache=True)
    guard.close()
    assert reason(guard, "v4.local.any") == "CLIENT_CLOSED"
    wait_until(lambda: events_threads() == before)


def test_a_guard_that_nobody_uses_leaves_no_thread(agent):
    guard = Guard(cache=True)
    made_live(guard)
    gone = weakref.ref(guard)
    del guard
    gc.collect()
    assert gone() is None
    wait_until(lambda: not any(thread.name == "agentd-guard-events" for thread in threading.enumerate()))


def test_a_closed_guard_admits_nobody(agent, guard):
    token = agent.create_token().token
    made_live(guard)
    guard.admit_token(token)
    guard.close()
    assert reason(guard, token) == "CLIENT_CLOSED"


async def test_it_asks_without_blocking_the_event_loop_as_well(agent, guard):
    token = agent.create_token(label="desk").token
    assert (await guard.admit_async([f"Bearer {token}"])).label == "desk"
    with pytest.raises(Denied) as raised:
        await guard.admit_async([])
    assert raised.value.status == 401


async def test_a_slow_answer_holds_up_no_other_task(tmp_path):
    may_answer, answered = threading.Event(), []

    def slow(peer: Peer) -> None:
        peer.answer(peer.receive())
        for _ in range(2):
            request = peer.receive()
            may_answer.wait(LONG_SECONDS)
            peer.answer(request)

    with ScriptedAgent(tmp_path / "agent.sock", slow) as agent:
        guard = Guard(socket_path=agent.path, timeout=LONG_SECONDS)

        async def ask(token: str) -> None:
            answered.append((await guard.admit_token_async(token)).session_id)

        await ask("good-1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "good-2")
            await trio.testing.wait_all_tasks_blocked()
            may_answer.set()
        await ask("good-3")
        guard.close()
    assert answered == ["good-1", "good-2", "good-3"]


async def test_a_deadline_also_ends_a_wait_that_began_with_a_glance(tmp_path):
    def silent(peer: Peer) -> None:
        peer.answer(peer.receive())
        peer.receive()
        peer.wait_until_gone()

    with ScriptedAgent(tmp_path / "agent.sock", silent) as agent:
        guard = Guard(socket_path=agent.path)
        await guard.admit_token_async("good-1")
        guard._open_async_client().timeout = 0.01
        with pytest.raises(Denied) as raised:
            await guard.admit_token_async("good-2")
        assert (raised.value.status, raised.value.reason) == (503, "AGENT_TIMEOUT")
        guard.close()


async def test_a_session_that_showed_its_token_earlier_is_admitted_by_its_id(agent):
    guard = Guard(scopes=["read"], audience="notes", cache=True)
    created = agent.create_token(600, scopes=["read"], audience=["notes"], max_uses=2, label="desk")
    for _ in range(3):
        admission = await guard.admit_session_async(created.id)
        assert (admission.session_id, admission.label, list(admission.scopes)) == (
            created.id,
            "desk",
            ["read"],
        )
    assert admission.session.uses_left == 2, "it counts as no use"

    agent.client.renew_token(created.token)
    assert await guard.admit_session_async(created.id)
    lacking = agent.create_token(scopes=["write"], audience=["notes"]).id
    elsewhere = agent.create_token(audience=["mail"]).id
    agent.revoke(created)
    for session_id, status in (
        (lacking, 403),
        (elsewhere, 401),
        (created.id, 401),
        ("no id", 401),
        ("", 401),
    ):
        with pytest.raises(Denied) as raised:
            await guard.admit_session_async(session_id)
        assert raised.value.status == status, session_id
    agent.lock()
    with pytest.raises(Denied) as raised:
        await guard.admit_session_async(created.id)
    assert (raised.value.status, raised.value.reason) == (503, "LOCKED")
    agent.unlock()
    explicit = Guard(explicit_scopes=True)
    with pytest.raises(Denied) as raised:
        await explicit.admit_session_async(agent.create_token().id)
    assert raised.value.status == 403
    at_the_verify_socket = Guard(socket_path=agent.verify_socket_path)
    with pytest.raises(Denied) as raised:
        await at_the_verify_socket.admit_session_async(created.id)
    assert raised.value.status == 503


def test_the_servers_own_mistake_is_no_answer_to_a_peer(agent):
    token = agent.create_token().token
    with pytest.raises(InvalidScopesError):
        Guard(scopes=["two words"]).admit_token(token)
    with pytest.raises(TypeError, match="not one string"):
        Guard(scopes="read")


def test_requirements_of_the_guard_and_of_the_request_add_up(agent):
    guard = Guard(scopes=["read"])
    token = agent.create_token(scopes=["read"]).token
    assert guard.admit_token(token, scopes=["read"])
    with pytest.raises(Denied) as raised:
        guard.admit_token(token, scopes=["write"])
    assert 'scope="read write"' in dict(raised.value.headers)["WWW-Authenticate"]


def test_the_verify_socket_tells_scopes_but_no_session_and_nothing_is_kept(agent, calls):
    guard = Guard(cache=True, socket_path=agent.verify_socket_path, agent_uid=os.getuid())
    token = agent.create_token(scopes=["read"], label="desk").token
    for _ in range(2):
        admission = guard.admit_token(token, scopes=["read"])
        assert (list(admission.scopes), admission.session, admission.label) == (["read"], None, "")
    assert calls.count("verifyToken") == 2
