"""The checks of the socket and of the agent behind it."""

from __future__ import annotations

import socket

import pytest

from agentd.doctor.agent import check_agent, check_socket
from agentd.doctor.installation import Answer
from tests.doctor.judging import STATUS, judged, with_facts


@pytest.fixture
def bound(tmp_path):
    """A socket at the agent's path."""
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "agent.sock"))
        (tmp_path / "agent.sock").chmod(0o600)
        yield tmp_path


def judged_socket(folder, **facts) -> dict[str, str]:
    nobody = {"listeners": 0, "serving": [], "is_taken": None, "is_enabled": False}
    return judged(check_socket(with_facts(folder, **nobody | facts)))


LISTENING = {"listeners": 1, "serving": [7], "is_taken": True}


def test_a_socket_with_a_listener(bound):
    assert judged_socket(bound, **LISTENING) == {
        "socket.path": "ok",
        "socket.folder": "ok",
        "socket.file": "ok",
        "socket.listener": "ok",
    }


@pytest.mark.parametrize(("bytes_", "severity"), [(108, "error"), (107, "ok")])
def test_the_length_of_the_path(tmp_path, bytes_, severity):
    folder = tmp_path / ("x" * (bytes_ - len(f"{tmp_path}//agent.sock")))
    found = judged_socket(folder)
    assert (found["socket.path"], found["socket.folder"]) == (severity, "note")


@pytest.mark.parametrize(
    ("path", "mode", "name"), [(".", 0o755, "socket.folder"), ("agent.sock", 0o666, "socket.file")]
)
def test_what_is_open_to_others_is_an_error(bound, path, mode, name):
    (bound / path).chmod(mode)
    assert judged_socket(bound, **LISTENING)[name] == "error"


def test_a_file_in_the_place_of_the_socket_is_an_error(tmp_path):
    (tmp_path / "agent.sock").touch(0o600)
    assert judged_socket(tmp_path, **LISTENING)["socket.file"] == "error"


@pytest.mark.parametrize(
    ("facts", "severity"),
    [
        (LISTENING, "error"),
        ({"serving": [7]}, "error"),
        ({}, "note"),
        ({"is_enabled": True}, "note"),
    ],
)
def test_without_a_socket_nobody_may_listen(tmp_path, facts, severity):
    assert judged_socket(tmp_path, **facts)["socket.listener"] == severity


@pytest.mark.parametrize(
    ("changed", "severity"),
    [
        ({"listeners": 2}, "error"),
        ({"listeners": 0, "serving": [], "is_taken": False}, "warning"),
        ({"listeners": 0, "serving": []}, "ok"),
        ({"listeners": 0, "is_taken": False}, "note"),
        ({"listeners": 0, "is_taken": None}, "note"),
    ],
)
def test_who_listens_at_a_socket(bound, changed, severity):
    assert judged_socket(bound, **LISTENING | changed)["socket.listener"] == severity


@pytest.fixture
def find(tmp_path):
    """What is found of an agent that runs, with some facts changed."""

    running = STATUS._replace(store_path=f"{tmp_path}/state/store")

    def find(status=running, failure=None, **changed):
        facts = {
            "serving": [7],
            "storing": [7],
            "storing_at": "",
            "unit": "",
            "is_taken": False,
            "is_enabled": False,
            "answer": Answer(status, failure),
        }
        return list(check_agent(with_facts(tmp_path, **facts | changed)))

    return find


def test_an_agent_that_runs(find):
    assert judged(find()) == dict.fromkeys(
        ("agent.alone", "agent.answer", "agent.version", "agent.places", "agent.lock"), "ok"
    )


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
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
def test_agents(find, changed, name, severity):
    assert judged(find(**changed))[name] == severity


def test_two_agents_are_both_named(find):
    found = find(storing=[8])[0]
    assert "process 7" in found.says
    assert "process 8" in found.says
    assert "`kill 7 8`" in found.remedy


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({}, "`agentd serve` starts it"),
        ({"is_enabled": True}, "the first connection starts it"),
        ({"is_taken": True}, "the first connection starts it"),
    ],
)
def test_how_an_agent_that_does_not_run_is_started(find, changed, starts):
    found = find(status=None, serving=[], storing=[], unit=None, **changed)
    assert [finding.says for finding in found] == [f"no agent runs here; {starts}"]


def test_an_agent_without_a_supervisor_is_no_finding(find):
    assert "agent.supervisor" not in judged(find())
    assert "agent.supervisor" not in judged(find(is_enabled=True, unit=None))


def test_that_it_is_alone_is_not_said_of_an_agent_without_a_store(find):
    assert "agent.alone" not in judged(find(storing=[]))
