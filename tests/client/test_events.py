"""Events: on a connection of their own, in their order, until one of the two ends closes it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentd_client import Client, Event
from agentd_client.aio import AsyncClient
from agentd_client.errors import (
    AgentTimeoutError,
    AgentUnreachableError,
    ClientClosedError,
    ForeignAgentError,
    ProtocolError,
    UnknownMethodError,
)
from agentd_client.protocol.results import CREATED, REFUSED, STOPPING, Subscribed
from agentd_client.transport import connection
from agentd_client.transport.events import Events
from tests.client.flavours import BACKENDS, all_events, close, next_event, run
from tests.client.scripted import PATIENCE_SECONDS, Peer, Script, ScriptedAgent
from tests.forking import in_child

ONE = Event(CREATED, 1.0, "s-1", "editor", None, 42)
TWO = Event(REFUSED, 2.5, None, "", "EXPIRED", None, 3)
LAST = Event(STOPPING, 3.0, None, "", None, None)


def subscribed(script: Callable[[Peer], None]) -> list[Script]:
    """Scripts: the first connection is left alone, the second agrees to send events and follows the script."""

    def follows(peer: Peer) -> None:
        peer.answer(peer.receive())
        script(peer)

    return [Peer.wait_until_gone, follows]


async def _all(agent: Any) -> list[Event]:
    return await all_events(await agent.subscribe())


def test_events_come_in_their_order_until_the_agent_closes(path: Path, flavour: str) -> None:
    def tells(peer: Peer) -> None:
        for event in (ONE, TWO, LAST):
            peer.send(peer.event_bytes(event))

    with ScriptedAgent(path, *subscribed(tells)) as agent:
        assert run(flavour, path, _all) == [ONE, TWO, LAST]
    assert agent.methods() == ["subscribe"]


def test_events_may_come_before_and_together_with_the_answer(path: Path, flavour: str) -> None:
    def tells_at_once(peer: Peer) -> None:
        request = peer.receive()
        one, two, last = (peer.event_bytes(event) for event in (ONE, TWO, LAST))
        peer.send(one + peer.answer_bytes(request) + two + last)

    with ScriptedAgent(path, Peer.wait_until_gone, tells_at_once):
        assert run(flavour, path, _all) == [ONE, TWO, LAST]


def test_events_are_found_among_whatever_else_comes_and_in_whatever_pieces(path: Path, flavour: str) -> None:
    def mixes(peer: Peer) -> None:
        request = peer.receive()
        other = peer.event_bytes(ONE).replace(b"\xa5event", b"\xa5other")
        late = peer.answer_bytes(request, msgid=77)
        everything = [
            peer.answer_bytes(request),
            late,
            peer.event_bytes(ONE),
            other,
            late,
            peer.event_bytes(TWO),
        ]
        for byte in b"".join(everything):
            peer.send(bytes([byte]))

    with ScriptedAgent(path, Peer.wait_until_gone, mixes):
        assert run(flavour, path, _all) == [ONE, TWO]


def _map(**fields: Any) -> bytes:
    # A notification "event" with these fields, as the test spells them.
    import msgpack

    return bytes(msgpack.packb([2, "event", [fields]]))


MALFORMED = [
    b"\xc1",
    b"\x93\x02\xa5event\x90",
    b"\x93\x02\xa5event\x91\x01",
    _map(kind="created"),
    _map(kind=1, at=1.0, sessionId=None, label="", reason=None, peerPid=None, missed=0),
    b"\x94\x00\x01\xa5hello\x90",
    b"HTTP/1.1 400 Bad Request\r\n",
]


@pytest.mark.parametrize("malformed", MALFORMED)
def test_what_is_no_event_is_an_error_after_the_events_before_it_and_then_the_end(
    path: Path, flavour: str, malformed: bytes
) -> None:
    def tells(peer: Peer) -> None:
        peer.send(peer.event_bytes(ONE) + malformed)
        peer.wait_until_gone()

    async def scenario(agent: Any) -> None:
        events = await agent.subscribe()
        assert await next_event(events) == ONE
        with pytest.raises(ProtocolError):
            await next_event(events)
        assert await next_event(events) is None
        assert events._feed._connection.fileno() == -1, "closed without being asked to"

    with ScriptedAgent(path, *subscribed(tells)):
        run(flavour, path, scenario)


def test_an_end_in_the_middle_of_an_event_is_an_error(path: Path, flavour: str) -> None:
    def breaks_off(peer: Peer) -> None:
        peer.send(peer.event_bytes(ONE) + peer.event_bytes(TWO)[:-1])

    async def scenario(agent: Any) -> None:
        events = await agent.subscribe()
        assert await next_event(events) == ONE
        with pytest.raises(ProtocolError, match="in the middle of a message"):
            await next_event(events)

    with ScriptedAgent(path, *subscribed(breaks_off)):
        run(flavour, path, scenario)


def test_an_agent_that_is_killed_is_an_end_as_well(path: Path, flavour: str) -> None:
    def resets(peer: Peer) -> None:
        assert peer.socket.recv(1, socket.MSG_PEEK)  # closed with bytes unread: the client gets ECONNRESET

    async def scenario(agent: Any) -> None:
        events = await agent.subscribe()
        events._feed._connection._socket.send(b"\x00")
        assert await next_event(events) is None
        assert await next_event(events) is None

    with ScriptedAgent(path, *subscribed(resets)):
        run(flavour, path, scenario)


def test_a_closed_subscription_tells_no_more_and_the_client_goes_on(path: Path, flavour: str) -> None:
    def tells(peer: Peer) -> None:
        peer.send(peer.event_bytes(ONE) + peer.event_bytes(TWO))
        peer.wait_until_gone()

    def calls(peer: Peer) -> None:
        peer.answer(peer.receive())
        peer.wait_until_gone()

    async def scenario(agent: Any) -> None:
        events = await agent.subscribe()
        assert await next_event(events) == ONE
        await close(events)
        await close(events)
        assert await next_event(events) is None
        assert await agent.verify_token("good")

    with ScriptedAgent(path, calls, subscribed(tells)[1]) as agent:
        run(flavour, path, scenario)
    assert [(seen.connection, seen.method) for seen in agent.seen] == [(1, "subscribe"), (0, "verifyToken")]


def test_closing_the_client_leaves_a_subscription_open_and_makes_no_new_one(path: Path, flavour: str) -> None:
    closed = threading.Event()

    def tells_late(peer: Peer) -> None:
        assert closed.wait(PATIENCE_SECONDS)
        peer.send(peer.event_bytes(ONE))

    async def scenario(agent: Any) -> None:
        events = await agent.subscribe()
        await agent.close()
        with pytest.raises(ClientClosedError):
            await agent.subscribe()
        closed.set()
        assert await all_events(events) == [ONE]

    with ScriptedAgent(path, *subscribed(tells_late)):
        run(flavour, path, scenario)


def test_a_subscription_needs_none_of_the_clients_connections(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        subscriptions = [await agent.subscribe() for _ in range(12)]
        assert await agent.verify_token("good")
        for events in subscriptions:
            await close(events)

    with ScriptedAgent(path):
        run(flavour, path, scenario)


def test_an_agent_that_is_not_there_does_not_answer_or_refuses_is_the_error_of_any_call(
    path: Path, flavour: str
) -> None:
    def refuses(peer: Peer) -> None:
        peer.refuse(peer.receive(), [UnknownMethodError.number, "UNKNOWN_METHOD: no method 'subscribe'"])
        peer.wait_until_gone()

    def does_not_agree(peer: Peer) -> None:
        peer.answer_with(peer.receive(), Subscribed(False))
        peer.wait_until_gone()

    def asks_back(peer: Peer) -> None:
        peer.receive()
        peer.send(b"\x94\x00\x01\xa5hello\x90")
        peer.wait_until_gone()

    def says_garbage(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 400 Bad Request\r\n")
        peer.wait_until_gone()

    def silent(peer: Peer) -> None:
        peer.wait_for_unread_bytes()
        peer.receive()
        peer.wait_until_gone()

    async def scenario(agent: Any) -> None:
        with pytest.raises(UnknownMethodError):
            await agent.subscribe()
        with pytest.raises(ProtocolError, match="did not agree"):
            await agent.subscribe()
        with pytest.raises(ProtocolError, match="got a request"):
            await agent.subscribe()
        with pytest.raises(ProtocolError, match="does not answer as agentd does"):
            await agent.subscribe()
        agent.timeout = 0
        with pytest.raises(AgentTimeoutError, match="did not answer subscribe within 0 s"):
            await agent.subscribe()
        listening.vanish()
        with pytest.raises(AgentUnreachableError):
            await agent.subscribe()

    scripts = [Peer.wait_until_gone, refuses, does_not_agree, asks_back, says_garbage, silent]
    with ScriptedAgent(path, *scripts) as listening:
        run(flavour, path, scenario)


def test_a_subscription_whose_answer_is_lost_or_refused_by_a_stopping_agent_is_made_anew(
    path: Path, flavour: str
) -> None:
    def loses(peer: Peer) -> None:
        # An event of a connection that was lost is not one of the next.
        peer.send(peer.event_bytes(ONE))
        peer.receive()

    def stops(peer: Peer) -> None:
        peer.refuse(peer.receive(), [0, "STOPPING: going down"])
        peer.wait_until_gone()

    def tells(peer: Peer) -> None:
        peer.answer(peer.receive())
        peer.send(peer.event_bytes(TWO))

    with ScriptedAgent(path, Peer.wait_until_gone, loses, stops, tells):
        assert run(flavour, path, _all) == [TWO]


def test_an_agent_of_another_user_is_sent_nothing(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(agent: Any) -> None:
        monkeypatch.setattr(connection, "peer_uid", lambda _: os.geteuid() + 1)
        with pytest.raises(ForeignAgentError, match="nothing was sent"):
            await agent.subscribe()

    with ScriptedAgent(path, Peer.wait_until_gone, Peer.wait_until_gone) as agent:
        run(flavour, path, scenario)
    assert not agent.seen


@pytest.fixture
def interrupted_once() -> Iterator[None]:
    """However often SIGINT comes, Python raises for the first alone."""
    raised = False

    def interrupt(*_: object) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_interrupts_the_waiting_and_loses_nothing(path: Path, interrupted_once: None) -> None:
    main = threading.main_thread().ident
    assert main is not None
    waits, interrupted = threading.Event(), threading.Event()

    def interrupts(peer: Peer) -> None:
        peer.send(peer.event_bytes(ONE)[:5])
        assert waits.wait(PATIENCE_SECONDS)
        while not events._turn.locked():
            pass
        # One that comes just before poll(2) does not end it: Python would see it only afterwards.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not interrupted.wait(0.05):
            assert time.monotonic() < deadline
            signal.pthread_kill(main, signal.SIGINT)
        peer.send(peer.event_bytes(ONE)[5:])
        peer.wait_until_gone()

    with ScriptedAgent(path, *subscribed(interrupts)), Client.connect(path, timeout=60) as client:
        with client.subscribe() as events:
            with pytest.raises(KeyboardInterrupt):
                waits.set()
                next(events)
            interrupted.set()
            assert next(events) == ONE
        assert next(events, None) is None


def test_closing_from_another_thread_ends_the_waiting(path: Path) -> None:
    """Also where the other is inside poll(2), which closing a descriptor alone would not end."""
    found: list[Event] = []

    def waits(events: Events) -> None:
        found.extend(events)

    with (
        ScriptedAgent(path, *subscribed(Peer.wait_until_gone)),
        Client.connect(path, timeout=60) as client,
        client.subscribe() as events,
    ):
        thread = threading.Thread(target=waits, args=(events,))
        thread.start()
        while not events._turn.locked():
            pass
        events.close()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert events._feed._connection.fileno() == -1
    assert found == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_task_loses_no_event_and_closing_ends_the_waiting_of_another(
    path: Path, backend: str
) -> None:
    cancelled = threading.Event()

    def tells_late(peer: Peer) -> None:
        peer.send(peer.event_bytes(ONE)[:5])
        assert cancelled.wait(PATIENCE_SECONDS)
        peer.send(peer.event_bytes(ONE)[5:] + peer.event_bytes(TWO))
        peer.wait_until_gone()

    found: list[Event | None] = []

    async def main() -> None:
        async with await AsyncClient.connect(path, timeout=60) as client, await client.subscribe() as events:

            async def take() -> None:
                found.append(await next_event(events))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                tasks.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            assert found == []
            cancelled.set()
            await take()
            await take()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await next_event(events)
            assert scope.cancelled_caught, "a checkpoint"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                await anyio.wait_all_tasks_blocked()
                await events.close()
            assert events._feed._connection.fileno() == -1

    with ScriptedAgent(path, *subscribed(tells_late)):
        anyio.run(main, backend=backend)
    assert found == [ONE, TWO, None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaving_closes_also_in_a_cancelled_task(path: Path, backend: str) -> None:
    async def main() -> None:
        async with await AsyncClient.connect(path, timeout=60) as client:
            with anyio.CancelScope() as scope:
                async with await client.subscribe() as events:
                    scope.cancel()
            assert events._feed._connection.fileno() == -1

    with ScriptedAgent(path, *subscribed(Peer.wait_until_gone)):
        anyio.run(main, backend=backend)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_gets_no_events_and_takes_none_from_its_parent(path: Path) -> None:
    forked = threading.Event()

    def tells_late(peer: Peer) -> None:
        assert forked.wait(PATIENCE_SECONDS)
        peer.send(peer.event_bytes(ONE))

    with (
        ScriptedAgent(path, *subscribed(tells_late)),
        Client.connect(path, timeout=60) as client,
        client.subscribe() as events,
    ):

        def child() -> None:
            assert next(events, None) is None
            events.close()
            assert events._feed._connection.fileno() == -1

        in_child(child)
        forked.set()
        assert list(events) == [ONE]
