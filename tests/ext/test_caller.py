from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentd_client import Client, InvalidTokenError, OriginNotAllowedError, Session, TokenFileError
from agentd_client.aio import AsyncClient
from agentd_client.ext.caller import Caller, Origin, require_direct
from agentd_client.token_file.renewal import Known, sendable
from tests.forking import in_child


@pytest.fixture
def session(agent) -> Session:
    return Session.create_session(session_token=agent.create_token(600).token)


@pytest.fixture
def caller(agent, session) -> Caller:
    return made(agent)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What the agent is asked from now on about sending tokens."""
    made: list[str] = []
    for client in (Client, AsyncClient):

        def counted(self, call, *args, _carry_out=client._carry_out):
            if call.method.name in ("inspectToken", "renewToken"):
                made.append(call.method.name)
            return _carry_out(self, call, *args)

        monkeypatch.setattr(client, "_carry_out", counted)
    return made


def made(agent, **options) -> Caller:
    return Caller(clock=lambda: agent.clock.read().wall, **options)


def test_the_agent_is_asked_once_about_a_token_however_often_it_is_sent(caller, session, calls):
    token = session.read_token()
    assert [caller.token() for _ in range(5)] == [token] * 5
    assert calls == ["inspectToken"]


def test_a_session_in_use_is_renewed_after_two_thirds_of_its_lifetime(agent, caller, session, calls):
    first = caller.token()
    agent.advance(399)
    assert caller.token() == first
    agent.advance(2)
    second = caller.token()
    assert second not in (None, first)
    assert session.read_token() == second
    assert calls == ["inspectToken", "renewToken"]
    agent.advance(590)
    third = caller.token()
    assert third not in (None, second)
    assert agent.client.verify_token(third)


def test_renewing_consumes_no_use_and_needs_no_audience(agent, session):
    created = agent.create_token(600, max_uses=2, audience=["notes"])
    session.write_token(created.token)
    caller = made(agent)
    for _ in range(3):
        token = caller.token()
        agent.advance(450)
    assert token != created.token
    assert [agent.client.verify_token(token, audience="notes") for _ in range(3)] == [True, True, False]


def test_a_session_that_has_ended_is_not_asked_about_again(agent, caller, session, calls):
    agent.advance(700)
    expired = session.read_token()
    assert [caller.token() for _ in range(3)] == [expired] * 3
    assert calls == ["inspectToken"]


def test_a_session_that_ended_since_it_was_asked_about_is_not_renewed(agent, caller, session, calls):
    token = caller.token()
    agent.advance(700)
    assert caller.token() == token
    assert calls == ["inspectToken"]


def test_a_token_that_was_superseded_is_not_renewed(agent, caller, session, calls):
    successor = agent.client.renew_token(session.read_token()).token
    assert agent.client.verify_token(successor)
    agent.advance(450)
    calls.clear()
    assert caller.token() == session.read_token()
    assert calls == ["inspectToken"]


def test_another_token_in_the_file_is_sent_from_then_on(agent, caller, session, calls):
    caller.token()
    other = agent.create_token(600).token
    session.write_token(other)
    assert caller.token() == other
    assert calls.count("inspectToken") == 2


@pytest.mark.parametrize("away", ["stop", "lock"])
def test_while_the_agent_cannot_be_asked_the_present_token_is_sent(agent, caller, session, calls, away):
    token = session.read_token()
    getattr(agent, away)()
    calls.clear()
    assert [caller.token() for _ in range(3)] == [token] * 3
    assert len(calls) == 1, "it is not asked for every request"
    (agent.start if away == "stop" else agent.unlock)()
    agent.advance(450)
    caller.token()  # about the token
    assert session.read_token() != token


def test_an_agent_that_is_away_when_the_renewal_is_due_does_not_stop_a_request(agent, caller, session):
    token = caller.token()
    agent.advance(450)
    agent.stop()
    assert caller.token() == token
    agent.start()
    agent.advance(60)
    assert caller.token() not in (None, token)


def test_without_a_login_there_is_no_token(agent):
    caller = made(agent)
    assert caller.token() is None
    Path(agent.token_path).write_text("")
    os.chmod(agent.token_path, 0o600)
    assert caller.token() is None


def test_a_token_file_that_is_refused_is_an_error(agent, caller):
    os.chmod(agent.token_path, 0o644)
    with pytest.raises(TokenFileError, match="chmod"):
        caller.token()


def test_a_token_that_was_handed_over_precedes_the_file_and_is_never_replaced(agent, session, monkeypatch):
    caller = made(agent)
    monkeypatch.setenv("AGENTD_TOKEN", given := agent.create_token(600).token)
    agent.advance(450)
    assert caller.token() == given
    assert caller.successor(given) is None
    assert made(agent, session=session).token() != given, "the caller named a session"
    monkeypatch.setenv("AGENTD_TOKEN", "one\r\nX-Other: two")
    with pytest.raises(InvalidTokenError):
        caller.token()


def test_the_successor_of_a_token_is_another_one_in_the_file(agent, caller, session):
    sent = caller.token()
    assert caller.successor(sent) is None
    session.write_token(other := agent.create_token().token)
    assert caller.successor(sent) == other
    os.unlink(agent.token_path)
    assert caller.successor(sent) is None


def test_concurrent_requests_ask_once_and_renew_once(agent, caller, session, calls):
    caller.token()
    agent.advance(450)
    barrier = threading.Barrier(8)

    def token() -> str | None:
        barrier.wait()
        return caller.token()

    with ThreadPoolExecutor(8) as pool:
        tokens = {future.result() for future in [pool.submit(token) for _ in range(8)]}
    assert all(agent.client.verify_token(token) for token in tokens)
    assert calls.count("renewToken") == 1


async def test_it_does_the_same_without_blocking_the_event_loop(agent, caller, session, calls):
    first = await caller.token_async()
    assert await caller.token_async() == first
    agent.advance(450)
    second = await caller.token_async()
    assert session.read_token() == second != first
    assert await caller.successor_async(first) == second
    assert calls == ["inspectToken", "renewToken"]


def test_a_request_that_is_given_up_leaves_the_question_open(agent, session):
    known = Known()
    steps = sendable(session, known, lambda: agent.clock.read().wall)
    token = next(steps)()
    steps.send(token)  # the agent would be asked now
    steps.close()
    assert known.is_new(token)


def test_other_libraries_take_the_headers_for_a_url(caller, session):
    assert caller.headers("http://127.0.0.1:8000/notes") == {
        "Authorization": f"Bearer {session.read_token()}"
    }
    with pytest.raises(OriginNotAllowedError):
        caller.headers("http://127.0.0.1@notes.example/")
    for url in (
        "http://127.0.0.1:8000\\@notes.example/",
        "http://127.0.0.1\t/",
        "http://ⓛocalhost/",
        "http://[/",
    ):
        with pytest.raises(ValueError):
            caller.headers(url)
    assert Caller(session=Session("/nowhere/token")).headers("http://localhost/") == {}


def test_a_token_that_was_handed_over_needs_no_place_for_a_file(agent, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", given := agent.create_token().token)
    for variable in ("AGENTD_SOCKET", "AGENTD_SESSION_TOKEN_PATH", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert Caller().token() == given


def test_a_caller_works_after_a_fork(caller, session):
    token = caller.token()

    def child() -> None:
        assert caller.token() == token

    in_child(child)
    assert caller.token() == token


def test_a_caller_that_nobody_uses_is_collected(agent, session):
    caller = made(agent)
    caller.token()
    gone = weakref.ref(caller)
    del caller
    gc.collect()
    assert gone() is None


def test_a_closed_caller_still_sends_and_does_not_renew(agent, caller, session):
    token = caller.token()
    caller.close()
    agent.advance(450)
    assert caller.token() == token


@pytest.mark.parametrize(
    ("scheme", "host"),
    [
        ("http", "localhost"),
        ("https", "LOCALHOST"),
        ("ws", "127.0.0.1"),
        ("wss", "127.255.0.3"),
        ("http", "::1"),
        ("http", "[::1]"),
        ("http", "0:0:0:0:0:0:0:1"),
        ("http+unix", "%2Frun%2Fnotes.sock"),
    ],
)
def test_loopback_and_unix_sockets_get_the_token(caller, scheme, host):
    caller.require(Origin.of(scheme, host, 8000))


@pytest.mark.parametrize(
    ("scheme", "host"),
    [
        ("http", "localhost.example"),
        ("http", "notes.localhost"),
        ("http", "localhost."),
        ("http", "127.0.0.1.example"),
        ("http", "127.1"),
        ("http", "2130706433"),
        ("http", "0x7f000001"),
        ("http", "0.0.0.0"),
        ("http", "::"),
        ("http", "169.254.169.254"),
        ("http", ""),
        ("ftp", "localhost"),
        ("file", ""),
    ],
)
def test_others_do_not(caller, scheme, host):
    with pytest.raises(OriginNotAllowedError):
        caller.require(Origin.of(scheme, host, 8000))


def test_more_origins_are_named_exactly(agent):
    caller = made(agent, origins=["https://notes.example", "http://10.0.0.2:8080/", "wss://[FD00::1]:9"])
    assert caller.allows(Origin.of("https", "Notes.Example", 443))
    assert caller.allows(Origin.of("http", "10.0.0.2", 8080))
    assert caller.allows(Origin.of("https", "fd00::1", 9))
    assert not caller.allows(Origin.of("http", "notes.example", None))
    assert not caller.allows(Origin.of("https", "notes.example", 8443))
    assert not caller.allows(Origin.of("https", "evil.notes.example", None))
    with pytest.raises(OriginNotAllowedError, match=r"origins=\['http://10.0.0.2'\]"):
        caller.require(Origin.of("http", "10.0.0.2", 80))


@pytest.mark.parametrize(
    "text",
    [
        *("notes.example", "//notes.example", "ftp://notes.example", "https://", "https://*.example", "*"),
        *(
            "https://notes.example/path",
            "https://user@notes.example",
            "https://notes.example?a",
            "http://a:b",
        ),
        *("https://nötes.example", "http://[::1", "", "https://notes.example#a", "http://a:99999"),
    ],
)
def test_what_is_not_an_origin_is_refused(agent, text):
    with pytest.raises(ValueError, match="not an origin"):
        Caller(origins=[text])


def test_one_string_is_not_a_list_of_origins(agent):
    with pytest.raises(TypeError, match="not one string"):
        Caller(origins="https://notes.example")


def test_a_proxy_in_the_environment_does_not_get_the_token_of_a_local_server(monkeypatch):
    local = Origin.of("http", "127.0.0.1", 8000)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    require_direct(local)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    with pytest.raises(OriginNotAllowedError, match="NO_PROXY"):
        require_direct(local)
    require_direct(Origin.of("https", "127.0.0.1", 8000))
    require_direct(Origin.of("http", "notes.example", 8000))
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    require_direct(local)
