"""The parts of sharing that need no second process: what a pool does when the process id is another."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agentd_client.errors import ClientClosedError
from agentd_client.transport.connection import MAX_CONNECTIONS, Connection
from agentd_client.transport.pool import Pool, ProcessPools, Waiter
from agentd_client.transport.repeating import Attempts
from tests.calls import calls
from tests.client.scripted import ScriptedAgent


def test_another_process_id_gets_a_pool_of_its_own_and_closes_what_it_inherited(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = ProcessPools(path)
    with ScriptedAgent(path):
        parents = pools.here()
        assert pools.here() is parents
        idle, in_use = parents.take(), parents.take()
        parents.give_back(idle)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert pools.here() is not parents
        assert idle.fileno() == in_use.fileno() == -1
        pools.close()


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_a_relative_path_means_the_folder_of_the_time_when_the_client_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("AGENTD_SOCKET", "a.sock")
    monkeypatch.chdir(tmp_path)
    pools = ProcessPools("a.sock" if given == "argument" else None)
    monkeypatch.chdir("/")
    assert pools.path == str(tmp_path / "a.sock")


def test_closing_closes_what_is_idle_and_what_comes_back(path: Path) -> None:
    pools = ProcessPools(path)
    with ScriptedAgent(path):
        pool = pools.here()
        idle, in_use = pool.take(), pool.take()
        pool.give_back(idle)
        pools.close()
        assert idle.fileno() == -1
        assert in_use.fileno() != -1
        pool.give_back(in_use)
        assert in_use.fileno() == -1
    with pytest.raises(ClientClosedError, match="connect again"):
        pools.here()


def test_closing_in_a_process_that_never_asked_closes_what_it_inherited(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = ProcessPools(path)
    with ScriptedAgent(path):
        in_use = pools.here().take()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        pools.close()
        assert in_use.fileno() == -1


def test_the_connection_last_used_is_taken_first(path: Path) -> None:
    pools = ProcessPools(path)
    with ScriptedAgent(path):
        pool = pools.here()
        first, second = pool.take(), pool.take()
        assert not first.reused
        pool.give_back(first)
        pool.give_back(second)
        assert pool.take() is second
        assert second.reused
        assert pool.take() is first
        pool.drop(first)
        pool.drop(second)


def test_a_socket_that_is_readable_for_nothing_is_waited_for_again() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    call = calls.get_status()
    with ours, theirs:
        attempts = Attempts("/socket", call.method, now=0, timeout=5, patience=None)
        connection = Connection(ours)
        connection.begin(call)
        steps = connection.ask(call, attempts)
        assert next(steps).waited_for is connection
        assert steps.send(True).waited_for is connection
        steps.close()


def _turns(pool: Pool) -> list[Waiter]:
    return [pool.queue_up(), pool.queue_up()]


def test_what_becomes_free_is_handed_to_those_who_wait_in_their_order(path: Path) -> None:
    with ScriptedAgent(path) as agent:
        pool = ProcessPools(path).here()
        in_use = [pool.take() for _ in range(MAX_CONNECTIONS)]
        first, second = _turns(pool)
        assert pool.take() is None
        assert pool.take_served(first) is None, "it has not come"
        given, dropped = in_use.pop(), in_use.pop()
        assert given is not None
        assert dropped is not None
        pool.give_back(given)
        assert pool.take_idle() is None, "who comes later does not get it"
        pool.drop(dropped)
        assert pool.take_served(first) is given
        opened = pool.take_served(second)
        assert opened not in (None, given, dropped)
        assert pool.take_served(second) is None, "once"
        pool.leave(first)
        pool.leave(second)
        for connection in (*in_use, given, opened):
            assert connection is not None
            pool.drop(connection)
        assert agent.connections <= MAX_CONNECTIONS + 1


@pytest.mark.parametrize("becomes", ["idle", "closed"])
def test_what_was_handed_to_somebody_who_has_left_is_the_next_ones(path: Path, becomes: str) -> None:
    with ScriptedAgent(path):
        pool = ProcessPools(path).here()
        in_use = [pool.take() for _ in range(MAX_CONNECTIONS)]
        first, second = _turns(pool)
        freed = in_use.pop()
        assert freed is not None
        (pool.give_back if becomes == "idle" else pool.drop)(freed)
        pool.leave(first)
        in_use.append(pool.take_served(second))
        assert in_use[-1] is not None
        assert (in_use[-1] is freed) == (becomes == "idle")
        pool.leave(second)
        for connection in in_use:
            assert connection is not None
            pool.give_back(connection)
        assert pool.take() is in_use[-1]
        pool.close()
        pool.drop(in_use[-1])


def test_what_is_given_back_before_somebody_stands_in_the_queue_is_not_missed(path: Path) -> None:
    with ScriptedAgent(path):
        pool = ProcessPools(path).here()
        connection = pool.take()
        assert connection is not None
        pool.give_back(connection)
        turn = pool.queue_up()
        assert pool.take_served(turn) is connection
        pool.leave(turn)
        pool.drop(connection)


def test_a_connection_that_cannot_be_opened_leaves_its_room_free(path: Path) -> None:
    pool = ProcessPools(path).here()
    for _ in range(MAX_CONNECTIONS + 1):
        with pytest.raises(FileNotFoundError):
            pool.take()
    with ScriptedAgent(path):
        connection = pool.take()
        assert connection is not None
        pool.drop(connection)
