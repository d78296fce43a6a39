"""The checks of the socket and of the agent behind it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentd.doctor.agent import RunningAgent, SocketPlace
from agentd.doctor.system import FILE, FOLDER, SOCKET, Node
from tests.doctor.judging import OPEN, STATUS, judged

LISTENING = SocketPlace(
    "/r/agent.sock", Node("/r", FOLDER, 0o700), Node("/r/agent.sock", SOCKET, 0o600), 1, [7], True, False
)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "socket.listener", "ok"),
        ({"path": "/" + "x" * 107}, "socket.path", "error"),
        ({"path": "/" + "x" * 106}, "socket.path", "ok"),
        ({"folder": Node("/r")}, "socket.folder", "note"),
        ({"folder": Node("/r", FOLDER, 0o755, fault=OPEN)}, "socket.folder", "error"),
        ({"file": Node("/s", SOCKET, 0o666, fault=OPEN)}, "socket.file", "error"),
        ({"file": Node("/s", FILE, 0o600)}, "socket.file", "error"),
        ({"listeners": 2}, "socket.listener", "error"),
        ({"file": Node("/s")}, "socket.listener", "error"),
        ({"file": Node("/s"), "listeners": 0, "serving": []}, "socket.listener", "note"),
        ({"file": Node("/s"), "listeners": 0, "serving": [], "is_enabled": True}, "socket.listener", "note"),
        ({"listeners": 0, "serving": [], "is_taken": False}, "socket.listener", "warning"),
        ({"listeners": 0, "serving": []}, "socket.listener", "ok"),
        ({"listeners": 0, "is_taken": False}, "socket.listener", "note"),
        ({"listeners": 0, "is_taken": None}, "socket.listener", "note"),
    ],
)
def test_the_socket(changed, name, severity):
    assert judged(replace(LISTENING, **changed))[name] == severity


AGENTS = RunningAgent("/r/agent.sock", "/s/store", [7], [7], STATUS, None, "", False)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "agent.alone", "ok"),
        ({}, "agent.answer", "ok"),
        ({}, "agent.version", "ok"),
        ({}, "agent.places", "ok"),
        ({}, "agent.lock", "ok"),
        ({"status": STATUS._replace(locked=True, lock_reason="idle")}, "agent.lock", "note"),
        ({"storing": [8]}, "agent.alone", "error"),
        ({"serving": [], "storing": [8], "status": None}, "agent.alone", "error"),
        ({"status": None, "failure": "no agent answers; start one"}, "agent.answer", "error"),
        ({"status": None, "serving": [], "storing": []}, "agent.answer", "note"),
        ({"status": STATUS._replace(version="0.0.1")}, "agent.version", "warning"),
        ({"status": STATUS._replace(store_path="/t/store")}, "agent.places", "warning"),
        ({"is_enabled": True, "unit": "agentd.service"}, "agent.supervisor", "ok"),
        ({"is_enabled": True, "unit": "session-3.scope"}, "agent.supervisor", "warning"),
    ],
)
def test_agents(changed, name, severity):
    assert judged(replace(AGENTS, **changed))[name] == severity


def test_two_agents_are_both_named():
    found = next(iter(replace(AGENTS, storing=[8]).judge()))
    assert "process 7" in found.says
    assert "process 8" in found.says
    assert "`kill 7 8`" in found.remedy


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({}, "`agentd serve` starts it"),
        ({"is_enabled": True}, "the first connection starts it"),
        ({"is_awaited": True}, "the first connection starts it"),
    ],
)
def test_how_an_agent_that_does_not_run_is_started(changed, starts):
    facts = replace(AGENTS, status=None, serving=[], storing=[], **changed)
    assert [finding.says for finding in facts.judge()] == [f"no agent runs here; {starts}"]


def test_an_agent_without_a_supervisor_is_no_finding():
    assert "agent.supervisor" not in judged(AGENTS)
    assert "agent.supervisor" not in judged(replace(AGENTS, is_enabled=True, unit=None))
    assert "agent.alone" not in judged(replace(AGENTS, storing=[]))
