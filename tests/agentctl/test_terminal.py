"""What only a real terminal, a real pipe and a real signal show."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from agentd_client.errors import AgentTimeoutError
from tests.agentctl.running import COMMAND, on_terminal, process, without_coverage

QUESTION = b"[y/N]: "


def test_reset_key_asks_on_a_terminal_and_does_it_on_yes(agent, logged_in):
    ended = on_terminal("reset-key", asked=QUESTION, typed=b"y\n")
    assert ended.code == 0
    assert "End every session of this agent? [y/N]" in ended.shown
    assert agent.methods == ["resetKey"]


def test_reset_key_changes_nothing_on_no(agent, logged_in):
    ended = on_terminal("reset-key", asked=QUESTION, typed=b"n\n")
    assert ended.code == 1
    assert "nothing was changed" in ended.shown
    assert agent.calls == []


def test_reset_key_changes_nothing_where_the_answer_is_the_end_of_input(agent):
    assert on_terminal("reset-key", asked=QUESTION, typed=b"\x04").code == 130
    assert agent.calls == []


def test_a_token_typed_on_a_terminal_is_asked_for(agent, logged_in):
    ended = on_terminal("verify", "-", asked=b"Token: ", typed=logged_in.encode() + b"\n", NO_COLOR="1")
    assert ended.code == 0
    assert logged_in not in ended.shown, "what is typed is not shown"
    assert 'valid: session session-1, label "desk"' in ended.shown


def test_a_token_is_not_shown_on_a_terminal(agent, logged_in):
    refused = on_terminal("token")
    assert refused.code == 64
    assert logged_in not in refused.shown
    assert on_terminal("token", "--show").shown == logged_in + "\n"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environ(request):
    return os.environ | {"PYTHONUNBUFFERED": request.param}


def test_a_pipe_that_nobody_reads_ends_quietly_and_never_as_an_answer(agent, logged_in, environ):
    ours, theirs = os.pipe()
    os.close(ours)
    with subprocess.Popen(
        [*COMMAND, "verify"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environ,
    ) as child:
        os.close(theirs)
        assert child.stderr.read() == b""
        assert child.wait(60) == 141


def test_a_full_disk_under_the_output_is_an_error_in_one_line(agent, logged_in, environ):
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, "token"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environ,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (
        71,
        "agentctl: standard output: No space left on device\n",
    )


def test_streams_that_the_shell_closed_are_no_fault(agent, logged_in):
    def closed(command: str) -> tuple[int, str]:
        script = f'"$@" {command}'
        ended = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *COMMAND],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    assert closed("verify >&-") == (0, "")
    assert closed("verify - <&-") == (1, "invalid MALFORMED\n")
    assert closed("reset-key <&- 2>&-") == (64, "")
    assert closed("verify --socket '' 2>&-") == (64, "")
    agent.refuse("verifyToken", AgentTimeoutError("not now"))
    code, err = closed("verify >&-")
    assert (code, err.splitlines()[0]) == (75, "agentctl: not now")


def test_ctrl_c_ends_it_quietly(agent, logged_in):
    asked, let_go = threading.Event(), threading.Event()

    def hang(params):
        asked.set()
        let_go.wait(60)
        return agent._verifyToken(params)

    agent.script["verifyToken"] = hang
    with subprocess.Popen(
        [*COMMAND, "--timeout", "60", "verify"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_coverage(),
    ) as child:
        assert asked.wait(60)
        child.send_signal(signal.SIGINT)
        let_go.set()  # it may have come just before the wait, which then would last: the answer ends it
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_at_a_question_changes_nothing_and_ends_its_line(agent):
    ended = on_terminal("reset-key", asked=QUESTION, interrupted=True)
    assert ended.code == 130
    assert ended.shown == "End every session of this agent? [y/N]: \n"
    assert agent.calls == []


def test_an_agent_that_never_answers_is_a_timeout(agent, logged_in):
    let_go = threading.Event()

    def hang(params):
        let_go.wait(60)
        return agent._verifyToken(params)

    agent.script["verifyToken"] = hang
    ended = process("--timeout", "0.1", "verify")
    let_go.set()
    assert (ended.returncode, ended.stdout) == (75, "")
    assert "--timeout" in ended.stderr
