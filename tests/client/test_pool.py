"""The parts of sharing that need no second process: what a pool does when the process id is another."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agentd_client.attempts import Attempts
from agentd_client.connection import Connection
from agentd_client.errors import ClientClosedError
from agentd_client.pool import MAX_CONNECTIONS, ProcessPools
from agentd_client.protocol import calls
from tests.client.scripted import ScriptedAgent


def test_another_process_id_gets_a_pool_of_its_own_and_closes_what_it_inherited(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = ProcessPools(path, int)
    with ScriptedAgent(path):
        parents = pools.here()
        assert pools.here() is parents
        assert parents.slots == MAX_CONNECTIONS
        idle, in_use = parents.take(), parents.take()
        parents.give_back(idle)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert pools.here() is not parents
        assert idle._socket.fileno() == in_use._socket.fileno() == -1
        pools.close()


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_a_relative_path_means_the_folder_of_the_time_when_the_client_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("AGENTD_SOCKET", "a.sock")
    monkeypatch.chdir(tmp_path)
    pools = ProcessPools("a.sock" if given == "argument" else None, int)
    monkeypatch.chdir("/")
    assert pools.path == str(tmp_path / "a.sock")


def test_closing_closes_what_is_idle_and_what_comes_back(path: Path) -> None:
    pools = ProcessPools(path, int)
    with ScriptedAgent(path):
        pool = pools.here()
        idle, in_use = pool.take(), pool.take()
        pool.give_back(idle)
        pools.close()
        assert idle._socket.fileno() == -1
        assert in_use._socket.fileno() != -1
        pool.give_back(in_use)
        assert in_use._socket.fileno() == -1
    with pytest.raises(ClientClosedError, match="connect anew"):
        pools.here()


def test_closing_in_a_process_that_never_asked_closes_what_it_inherited(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = ProcessPools(path, int)
    with ScriptedAgent(path):
        in_use = pools.here().take()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        pools.close()
        assert in_use._socket.fileno() == -1


def test_the_connection_last_used_is_taken_first(path: Path) -> None:
    pools = ProcessPools(path, int)
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
        steps = Connection(ours).ask(call, attempts)
        assert next(steps).socket is ours
        assert steps.send(True).socket is ours
        steps.close()
