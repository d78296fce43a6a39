"""One client, many threads, tasks and processes; and those of them that give up."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from agentd_client import Client
from agentd_client.aio import AsyncClient
from agentd_client.transport.connection import MAX_CONNECTIONS
from tests.client.flavours import BACKENDS
from tests.client.scripted import PATIENCE_SECONDS, Peer, ScriptedAgent, answers
from tests.forking import in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

CALLERS, CALLS = 2 * MAX_CONNECTIONS, 25  # so that they have to wait for each other


def test_many_threads_share_one_client_and_each_gets_its_own_answers(path: Path) -> None:
    start = threading.Barrier(CALLERS)

    def calls(client: Client, caller: int) -> None:
        start.wait(PATIENCE_SECONDS)
        for number in range(CALLS):
            token = f"good-{caller}-{number}"
            session = client.check_token(token).session
            assert session is not None
            assert session.id == token

    with ScriptedAgent(path) as agent, Client.connect(path, timeout=60) as client:
        with ThreadPoolExecutor(CALLERS) as threads:
            for done in [threads.submit(calls, client, caller) for caller in range(CALLERS)]:
                done.result()
        assert 1 <= agent.connections <= MAX_CONNECTIONS
        assert len(agent.seen) == CALLERS * CALLS


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_tasks_share_one_client_and_each_gets_its_own_answers(path: Path, backend: str) -> None:
    async def calls(client: AsyncClient, caller: int) -> None:
        for number in range(CALLS):
            token = f"good-{caller}-{number}"
            session = (await client.check_token(token)).session
            assert session is not None
            assert session.id == token

    async def main() -> None:
        async with (
            await AsyncClient.connect(path, timeout=60) as client,
            anyio.create_task_group() as tasks,
        ):
            for caller in range(CALLERS):
                tasks.start_soon(calls, client, caller)

    with ScriptedAgent(path) as agent:
        anyio.run(main, backend=backend)
    assert agent.connections == MAX_CONNECTIONS
    assert len(agent.seen) == CALLERS * CALLS


def test_an_interrupted_call_closes_its_connection_and_the_client_goes_on(path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    gone = threading.Event()

    def interrupts(peer: Peer) -> None:
        peer.receive()
        signal.pthread_kill(main, signal.SIGINT)
        peer.wait_until_gone()
        gone.set()

    with ScriptedAgent(path, interrupts) as agent, Client.connect(path, timeout=60) as client:
        # The traceback keeps every frame alive: the connection is closed on purpose, not by the collector.
        with pytest.raises(KeyboardInterrupt) as caught:
            client.create_token()
        assert gone.wait(PATIENCE_SECONDS)
        assert caught.tb is not None
        assert client.verify_token("good")
    assert agent.connections == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_call_closes_its_connection_and_no_other(path: Path, backend: str) -> None:
    received = threading.Event()

    def silent(peer: Peer) -> None:
        peer.receive()
        received.set()
        peer.wait_until_gone()

    async def main() -> None:
        async with await AsyncClient.connect(path, timeout=60) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.create_token)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(received.wait, PATIENCE_SECONDS)
                assert await client.verify_token("good-1"), "a call beside it"
                tasks.cancel_scope.cancel()
            assert await client.verify_token("good-2"), "a call after it"

    with ScriptedAgent(path, silent) as agent:
        anyio.run(main, backend=backend)
    assert [(seen.connection, seen.method) for seen in agent.seen] == [
        (0, "createToken"),
        (1, "verifyToken"),
        (1, "verifyToken"),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_async_method_is_a_checkpoint(path: Path, backend: str) -> None:
    async def main() -> None:
        async with await AsyncClient.connect(path, timeout=60) as client:
            for call in (client.hello, client.close):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.verify_token(None)
            assert scope.cancelled_caught

    with ScriptedAgent(path):
        anyio.run(main, backend=backend)


def test_a_forked_child_connects_anew_and_leaves_the_parents_connection_alone(path: Path) -> None:
    with ScriptedAgent(path) as agent, Client.connect(path, timeout=60) as client:
        assert client.verify_token("good-parent-1")

        def child() -> None:
            assert client.verify_token("good-child-1")
            assert client.verify_token("good-child-2")
            client.close()

        in_child(child)
        assert client.verify_token("good-parent-2")
    assert [(seen.connection, seen.params["token"]) for seen in agent.seen] == [
        (0, "good-parent-1"),
        (1, "good-child-1"),
        (1, "good-child-2"),
        (0, "good-parent-2"),
    ]


def test_a_child_forked_in_the_middle_of_a_call_lets_go_of_the_parents_connection(path: Path) -> None:
    received, forked = threading.Event(), threading.Event()

    def late(peer: Peer) -> None:
        request = peer.receive()
        received.set()
        assert forked.wait(PATIENCE_SECONDS)
        peer.answer(request)
        answers(peer)

    results: list[bool] = []
    with ScriptedAgent(path, late) as agent, Client.connect(path, timeout=60) as client:
        thread = threading.Thread(target=lambda: results.append(client.verify_token("good-parent")))
        thread.start()
        assert received.wait(PATIENCE_SECONDS)

        def child() -> None:
            (inherited,) = next(iter(client._pools._pools.values()))._open
            assert client.verify_token("good-child")
            assert inherited.fileno() == -1

        in_child(child)
        forked.set()
        thread.join()
    assert results == [True]
    assert [(seen.connection, seen.params["token"]) for seen in agent.seen] == [
        (0, "good-parent"),
        (1, "good-child"),
    ]


def test_closing_in_a_child_closes_what_it_inherited(path: Path) -> None:
    with ScriptedAgent(path), Client.connect(path, timeout=60) as client:
        client.verify_token("good")

        def child() -> None:
            (inherited,) = next(iter(client._pools._pools.values()))._open
            client.close()
            assert inherited.fileno() == -1

        in_child(child)
        assert client.verify_token("good")
