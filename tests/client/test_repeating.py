"""Which calls are repeated, and what a call ends in that is not: docs/design.md, "Repeating"."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd_client import Client
from agentd_client.errors import (
    AgentStoppingError,
    AgentTimeoutError,
    AgentUnreachableError,
    InvalidMessageError,
    OutcomeUnknownError,
    ProtocolError,
)
from agentd_client.protocol.codec import Encoder
from tests.client.flavours import run
from tests.client.scripted import PATIENCE_SECONDS, Peer, Script, ScriptedAgent

STOPPING = [AgentStoppingError.number, "STOPPING: going down"]


@pytest.fixture(autouse=True)
def no_agent_of_the_users_own(tmp_path, monkeypatch):
    """Errors name the user's own agent if one runs, as `make run` beside the tests."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def closes_after_reading(peer: Peer) -> None:
    peer.receive()


def closes_unread(peer: Peer) -> None:
    peer.wait_for_unread_bytes()  # the client gets ECONNRESET instead of an end


def stops(peer: Peer) -> None:
    peer.refuse(peer.receive(), STOPPING)
    peer.wait_until_gone()


def says_garbage(peer: Peer) -> None:
    peer.receive()
    peer.send(b"HTTP/1.1 400 Bad Request\r\n")
    peer.wait_until_gone()


def asks_back(peer: Peer) -> None:
    peer.receive()
    peer.send(b"\x94\x00\x01\xa5hello\x90")
    peer.wait_until_gone()


def answers_nonsense(peer: Peer) -> None:
    request = peer.receive()
    peer.send(b"\x94\x01" + bytes([request.msgid]) + b"\xc0\x80")
    peer.wait_until_gone()


def stays_silent(peer: Peer) -> None:
    peer.receive()
    peer.wait_until_gone()


def test_a_connection_that_the_agent_closed_while_it_was_idle_makes_no_call_fail(
    path: Path, flavour: str
) -> None:
    closed = threading.Event()

    def answers_once(peer: Peer) -> None:
        peer.answer(peer.receive())
        peer.socket.close()
        closed.set()

    async def scenario(agent: Any) -> None:
        assert await agent.verify_token("good")
        assert closed.wait(PATIENCE_SECONDS)
        assert (await agent.create_token()).id == "s-1"

    with ScriptedAgent(path, answers_once) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == ["verifyToken", "createToken"]


def test_however_many_connections_the_agent_closed_one_new_one_is_enough(path: Path) -> None:
    both = threading.Barrier(2)
    closed = [threading.Event(), threading.Event()]

    def answers_together(peer: Peer) -> None:
        request = peer.receive()
        both.wait(PATIENCE_SECONDS)
        peer.answer(request)
        peer.socket.close()
        closed[peer.number].set()

    with ScriptedAgent(path, answers_together, answers_together) as agent:
        with Client.connect(path, timeout=60) as client:
            thread = threading.Thread(target=client.verify_token, args=("good-1",))
            thread.start()
            client.verify_token("good-2")
            thread.join()
            assert all(event.wait(PATIENCE_SECONDS) for event in closed)
            client.create_token()
            client.create_token()
        assert agent.connections == 3


@pytest.mark.parametrize("loses", [closes_after_reading, closes_unread])
def test_a_lost_answer_of_a_call_that_changes_nothing_is_asked_for_again(
    path: Path, flavour: str, loses: Script
) -> None:
    async def scenario(agent: Any) -> None:
        assert await agent.verify_token("good")
        assert (await agent.inspect_token("good")).valid
        await agent.hello()
        await agent.get_status()

    with ScriptedAgent(path, loses, loses) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 3


CHANGES: list[Callable[[Any], Any]] = [
    lambda agent: agent.create_token(),
    lambda agent: agent.revoke_token("good"),
    lambda agent: agent.reset_key(),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("loses", "because"),
    [
        (closes_after_reading, "the connection was closed"),
        (closes_unread, "the connection was closed"),
        (says_garbage, "could not be understood"),
        (asks_back, "could not be understood"),
        (answers_nonsense, "could not be understood"),
    ],
)
def test_a_lost_answer_of_a_call_that_changes_something_is_an_unknown_outcome(
    path: Path, flavour: str, change: Callable[[Any], Any], loses: Script, because: str
) -> None:
    async def scenario(agent: Any) -> None:
        with pytest.raises(OutcomeUnknownError, match=f"{because}.*whether it was carried out is unknown"):
            await change(agent)
        assert await agent.verify_token("good"), "the client goes on"

    with ScriptedAgent(path, loses) as agent:
        run(flavour, path, scenario)
    # After it there is the call that follows. The agent whose answer had another form is asked for its version.
    asked = ["hello"] if loses is answers_nonsense else []
    assert [seen.method for seen in agent.seen if seen.connection > 0] == [*asked, "verifyToken"]


@pytest.mark.parametrize("speaks", [says_garbage, asks_back, answers_nonsense])
def test_what_does_not_speak_the_protocol_is_said_and_not_asked_again(
    path: Path, flavour: str, speaks: Script
) -> None:
    async def scenario(agent: Any) -> None:
        with pytest.raises(ProtocolError, match="does not answer as agentd does"):
            await agent.verify_token("good")

    with ScriptedAgent(path, speaks) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == (["verifyToken", "hello"] if speaks is answers_nonsense else ["verifyToken"])


@pytest.mark.parametrize("change", CHANGES)
def test_a_call_that_a_stopping_agent_refuses_is_asked_again_whatever_it_is(
    path: Path, flavour: str, change: Callable[[Any], Any]
) -> None:
    async def scenario(agent: Any) -> None:
        assert await change(agent)

    with ScriptedAgent(path, stops, stops) as agent:
        run(flavour, path, scenario)
    assert [seen.connection for seen in agent.seen] == [0, 1, 2]


LAST = [1, "INVALID_MESSAGE: malformed message: an extension type; the agent closes this connection"]


@pytest.mark.parametrize("msgid", [0, None], ids=["with msgid 0", "with the call's own msgid"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_an_agent_says_before_it_closes_is_the_calls_error_and_the_connection_is_not_used_again(
    path: Path, flavour: str, change: Callable[[Any], Any], msgid: int | None
) -> None:
    def says_why(peer: Peer) -> None:
        request = peer.receive()
        peer.refuse(request if msgid is None else request._replace(msgid=msgid), LAST)
        peer.wait_until_gone()

    async def scenario(agent: Any) -> None:
        with pytest.raises(InvalidMessageError, match="an extension type") as refused:
            await change(agent)
        assert not isinstance(refused.value, OutcomeUnknownError)
        assert await agent.verify_token("good")

    with ScriptedAgent(path, says_why) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 2


def test_what_an_agent_says_is_heard_also_where_it_takes_no_more_of_the_request(
    path: Path, flavour: str, small_send_buffer: None
) -> None:
    def refuses_to_read_on(peer: Peer) -> None:
        peer.wait_for_unread_bytes()
        peer.send(Encoder().error(0, LAST))
        # Closed with bytes unread, as an agent does it that stopped at a malformed one.

    async def scenario(agent: Any) -> None:
        with pytest.raises(InvalidMessageError, match="an extension type"):
            await agent.create_token(label="x" * 60_000)

    with ScriptedAgent(path, refuses_to_read_on) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 1


def test_a_call_that_gets_no_answer_ends_at_its_timeout(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        agent.timeout = 0
        with pytest.raises(AgentTimeoutError, match="did not answer verifyToken within 0 s"):
            await agent.verify_token("good")

    with ScriptedAgent(path, stays_silent):
        run(flavour, path, scenario)


@pytest.mark.parametrize("is_new", [True, False], ids=["connected anew", "on a connection that is there"])
def test_a_deadline_passes_also_while_signals_are_handled_all_the_time(path: Path, is_new: bool) -> None:
    handled = signal.signal(signal.SIGALRM, lambda *_: None)
    with ScriptedAgent(path, stays_silent, stays_silent), Client.connect(path, timeout=0.05) as agent:
        if is_new:
            agent._pools.here()._drop_idle()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            with pytest.raises(AgentTimeoutError, match="did not answer verifyToken within"):
                agent.verify_token("good")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handled)


def test_a_change_that_was_sent_and_got_no_answer_in_time_is_an_unknown_outcome(
    path: Path, flavour: str
) -> None:
    async def scenario(agent: Any) -> None:
        agent.timeout = 0
        with pytest.raises(OutcomeUnknownError, match="no answer came within 0 s"):
            await agent.create_token()

    with ScriptedAgent(path, stays_silent):
        run(flavour, path, scenario)


def test_a_change_that_was_not_sent_whole_in_time_was_not_made(
    path: Path, flavour: str, small_send_buffer: None
) -> None:
    over = threading.Event()

    def does_not_read(peer: Peer) -> None:
        assert over.wait(PATIENCE_SECONDS)

    async def scenario(agent: Any) -> None:
        agent.timeout = 0
        try:
            with pytest.raises(AgentTimeoutError, match="did not take createToken"):
                await agent.create_token(label="x" * 60_000)
        finally:
            over.set()

    with ScriptedAgent(path, does_not_read):
        run(flavour, path, scenario)


def test_a_change_whose_sending_broke_off_is_made_on_a_new_connection(
    path: Path, flavour: str, small_send_buffer: None
) -> None:
    async def scenario(agent: Any) -> None:
        await agent.create_token(label="x" * 60_000)

    with ScriptedAgent(path, closes_unread) as agent:
        run(flavour, path, scenario)
    assert [seen.connection for seen in agent.seen] == [1]


def test_what_was_sent_before_a_refusal_does_not_count_as_sent_again(
    path: Path, flavour: str, small_send_buffer: None
) -> None:
    async def scenario(agent: Any) -> None:
        await agent.create_token(label="x" * 60_000)

    with ScriptedAgent(path, stops, closes_unread) as agent:
        run(flavour, path, scenario)
    assert [seen.connection for seen in agent.seen] == [0, 2]


def test_a_late_answer_never_meets_the_next_call(path: Path, flavour: str) -> None:
    given_up = threading.Event()

    def late(peer: Peer) -> None:
        request = peer.receive()
        assert given_up.wait(PATIENCE_SECONDS)
        peer.answer(request)

    async def scenario(agent: Any) -> None:
        agent.timeout = 0
        with pytest.raises(AgentTimeoutError):
            await agent.verify_token("good-1")
        given_up.set()
        agent.timeout = 60
        assert (await agent.check_token("good-2")).session.id == "good-2"

    with ScriptedAgent(path, late) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 2


def test_other_messages_and_other_answers_before_the_answer_are_passed_over(path: Path, flavour: str) -> None:
    def chats(peer: Peer) -> None:
        request = peer.receive()
        peer.send(b"\x93\x02\xa7stopped\x90")  # a notification
        peer.send(peer.answer_bytes(request, msgid=request.msgid + 1))
        peer.answer(request)
        peer.answer(peer.receive())

    async def scenario(agent: Any) -> None:
        for token in ("good-1", "good-2"):
            assert (await agent.check_token(token)).session.id == token

    with ScriptedAgent(path, chats) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 1


def test_an_agent_that_has_gone_is_unreachable(path: Path, flavour: str) -> None:
    agent = ScriptedAgent(path, closes_after_reading)

    async def scenario(client: Any) -> None:
        agent.vanish()
        client.patience = 0
        with pytest.raises(AgentUnreachableError, match="start one with `agentd serve`"):
            await client.verify_token("good")

    with agent:
        run(flavour, path, scenario)
