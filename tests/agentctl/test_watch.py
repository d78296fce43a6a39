from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from agentd_client.cli.commands.watch import _lines
from agentd_client.cli.table import width_of
from agentd_client.protocol.results import Event
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import COMMAND, in_process, on_terminal, without_coverage

ID = "0197043e-2c40-7abc-8000-000000000000"
CREATED = Event("created", NOW, ID, "desk", None, 4712)
STOPPING = Event("stopping", NOW, None, "", None, None)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def watching(agent):
    """`agentctl watch` in a pipe, subscribed."""
    children = []

    def start(*args: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen([*COMMAND, "watch", *args], text=True, **(pipes | options))
        children.append(child)
        assert agent.subscribed.wait(60)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def telling(agent, *events: Event) -> threading.Thread:
    """Sends them to the first who subscribes, and hangs up."""

    def tell() -> None:
        assert agent.subscribed.wait(60)
        agent.tell(*events)
        agent.hang_up()

    thread = threading.Thread(target=tell)
    thread.start()
    return thread


def test_in_a_pipe_each_event_is_an_object_on_a_line_at_once(agent, watching):
    child = watching()
    agent.tell(CREATED)
    assert json.loads(child.stdout.readline()) == {  # it comes while the agent is still there
        "kind": "created",
        "at": NOW,
        "sessionId": ID,
        "label": "desk",
        "reason": None,
        "peerPid": 4712,
        "missed": 0,
        "requestId": None,
    }
    agent.tell(CREATED._replace(kind="revoked", missed=3), STOPPING)
    agent.hang_up()
    out, err = child.communicate(timeout=60)
    assert [(told["kind"], told["missed"]) for told in map(json.loads, out.splitlines())] == [
        ("revoked", 3),
        ("stopping", 0),
    ]
    assert (child.returncode, err) == (0, "agentctl: the agent has stopped\n")


def test_on_a_terminal_each_event_is_a_line_and_what_was_missed_is_said(agent):
    thread = telling(
        agent,
        CREATED,
        CREATED._replace(kind="refused", reason="SUPERSEDED", label="", missed=1),
        Event("keyReset", NOW, None, "", None, 4713, missed=12),
        Event("locked", NOW, None, "", "screen lock", None),
        Event("locked", NOW, None, "", None, 4713),
        Event("unlocked", NOW, None, "", None, 4713),
        Event("passphraseChanged", NOW, None, "", None, 4713),
        Event("missed", NOW, None, "", None, None, missed=3),
        STOPPING,
    )
    ended = in_process("watch", terminal=True)
    thread.join()
    assert (ended.code, ended.err) == (0, "agentctl: the agent has stopped\n")
    assert ended.out == (
        "15:06:40  created     0197043e-2c40  desk  pid 4712\n"
        "you missed 1 event\n"
        "15:06:40  refused     0197043e-2c40  SUPERSEDED  pid 4712\n"
        "you missed 12 events\n"
        "15:06:40  keyReset                   pid 4713\n"
        "15:06:40  locked                     the screen was locked\n"
        "15:06:40  locked                     pid 4713\n"
        "15:06:40  unlocked                   pid 4713\n"
        "15:06:40  passphrase                 changed  pid 4713\n"
        "you missed 3 events\n"
        "15:06:40  stopping\n"
    )


def test_requests_are_named_and_the_askers_words_stand_in_quotes(agent):
    asked = Event("requested", NOW, None, 'night"ly', None, 4712, request_id="k7m2qd")
    thread = telling(
        agent,
        asked,
        asked._replace(kind="approved", session_id=ID, peer_pid=4713),
        asked._replace(kind="denied", peer_pid=4713),
        asked._replace(kind="requestExpired", label="", peer_pid=None),
        asked._replace(kind="withdrawn", label=""),
        asked._replace(kind="forgotten", label="", reason="LOCKED", peer_pid=None),
        STOPPING,
    )
    ended = in_process("watch", terminal=True)
    thread.join()
    assert ended.out == (
        '15:06:40  requested                  "night\'ly"  request k7m2qd  pid 4712\n'
        '15:06:40  approved    0197043e-2c40  "night\'ly"  request k7m2qd  pid 4713\n'
        '15:06:40  denied                     "night\'ly"  request k7m2qd  pid 4713\n'
        "15:06:40  unanswered                 request k7m2qd\n"
        "15:06:40  withdrawn                  request k7m2qd  pid 4712\n"
        "15:06:40  forgotten                  LOCKED  request k7m2qd\n"
        "15:06:40  stopping\n"
    )


def test_json_is_json_on_a_terminal_too(agent):
    thread = telling(agent, STOPPING)
    ended = in_process("watch", "--json", terminal=True)
    thread.join()
    assert json.loads(ended.out)["kind"] == "stopping"
    assert json.loads(ended.err) == {"message": "the agent has stopped"}


@pytest.mark.parametrize("label", ["x" * 200, "夜間" * 100])
def test_a_line_fits_into_80_columns(label):
    (line,) = _lines(Event("refused", NOW, ID, label, "WRONG_AUDIENCE", 4_194_304), 80)
    assert width_of(line) <= 80
    assert "WRONG_AUDIENCE" in line
    assert "…" in line


def test_what_an_event_says_cannot_steer_the_terminal(monkeypatch):
    hostile = "\x1b]0;x\x07\u202e\n"
    assert all(line.isprintable() for line in _lines(Event(hostile, NOW, hostile, hostile, hostile, 1), 80))


def test_an_agent_that_goes_without_a_word_is_an_error(agent):
    thread = telling(agent, CREATED)
    ended = in_process("watch")
    thread.join()
    assert ended.code == 69
    assert "the connection to the agent was lost" in ended.err


def test_without_an_agent_there_is_nothing_to_watch(folder):
    assert in_process("--timeout", "0.01", "watch").code == 69


def test_ctrl_c_ends_it_with_0_and_without_a_word(agent, watching):
    child = watching(env=without_coverage())
    agent.tell(CREATED)
    child.stdout.readline()  # it is waiting for the next one
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 0


def test_ctrl_c_on_a_terminal_too(agent):
    thread = threading.Thread(target=lambda: agent.subscribed.wait(60) and agent.tell(CREATED))
    thread.start()
    ended = on_terminal("watch", asked=b"created", interrupted=True)
    thread.join()
    assert ended.code == 0
    assert "agentctl:" not in ended.shown


def test_a_pipe_that_nobody_reads_any_more_ends_it_quietly(agent, watching):
    ours, theirs = os.pipe()
    child = watching(stdout=theirs)
    os.close(theirs)
    os.close(ours)
    agent.tell(CREATED)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")


def test_its_imports_are_made_when_it_is_called():
    program = (
        "import sys; from agentd_client.cli.run import run; run(['verify'])\n"
        "print([name for name in sys.modules if name.endswith(('.events', '.table', '.listing', '.exec'))])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines()[-1] == "[]"
