"""`agentctl request`: waiting for a person, and then a token or a command with a session of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest

from agentd_client.errors import (
    InvalidReasonError,
    NotGrantableError,
    RequestDeniedError,
    RequestExpiredError,
    TooManyRequestsError,
    UnknownMethodError,
)
from tests.agentctl.running import COMMAND, in_process, without_coverage
from tests.agentctl.test_exec import LOOK

HINT = (
    "agentctl: waiting for approval of request asked1: `agentctl approve asked1` on another terminal; Ctrl-C "
    "withdraws it\n"
)


@contextmanager
def person(agent, outcome=None, **granted):
    """Somebody who decides about the first request."""

    def decide() -> None:
        assert agent.asked.wait(60)
        agent.decide("asked1", outcome, **granted)

    thread = threading.Thread(target=decide)
    thread.start()
    yield
    thread.join()


@contextmanager
def requesting(*args: str, **options: object):
    """`agentctl request` as a process of its own."""
    with subprocess.Popen(
        [*COMMAND, "request", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as child:
        yield child
        child.kill()


def test_it_says_how_to_approve_it_waits_and_prints_the_token(agent):
    args = ["--scope", "deploy", "--audience", "web", "--ttl", "10m", "--uses", "2", "--label", "nightly"]
    with person(agent):
        ended = in_process("request", *args, "--reason", "release 2.4")
    ((token, session),) = agent.sessions.items()
    assert (ended.code, ended.out) == (0, f"{token}\n")
    assert ended.err == HINT + "agentctl: granted: deploy, ends in 10 min\n"
    assert (session.scopes, session.audience, session.uses_left) == (["deploy"], ["web"], 2)
    assert session.bound_pid is None
    _, asked = next(call for call in agent.calls if call[0] == "requestToken")
    assert (asked["reason"], asked["label"], asked["expiry"]) == ("release 2.4", "nightly", 600)


def test_less_that_was_granted_is_said(agent):
    with person(agent, scopes=["read"], expiry=60):
        ended = in_process("request", "--scope", "read", "--scope", "deploy")
    assert ended.err.endswith("agentctl: granted: read, ends in 1 min\n")


def test_as_json_the_token_comes_with_what_was_granted(agent):
    with person(agent):
        ended = in_process("request", "--scope", "deploy", "--json")
    ((token, session),) = agent.sessions.items()
    assert json.loads(ended.out) == {
        "token": token,
        "id": session.id,
        "expiresAt": session.expires_at,
        "audience": None,
        "scopes": ["deploy"],
        "maxUses": None,
    }
    assert all("message" in json.loads(line) for line in ended.err.splitlines())


def test_a_terminal_is_shown_the_token_only_if_that_is_meant(agent):
    ended = in_process("request", terminal=True)
    assert ended.code == 64
    assert agent.calls == []
    with person(agent):
        ended = in_process("request", "--show", terminal=True)
    assert ended.out == f"{next(iter(agent.sessions))}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestDeniedError(), 77),
        (RequestExpiredError(), 75),
    ],
)
def test_without_a_yes_it_ends_with_the_answers_code(agent, error, code):
    with person(agent, error):
        ended = in_process("request", "--", "true")
    assert (ended.code, ended.out) == (code, "")
    assert error.sentence in ended.err
    assert agent.sessions == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TooManyRequestsError(), 75),
        (NotGrantableError(), 77),
        (InvalidReasonError(), 65),
        (UnknownMethodError(), 76),
    ],
)
def test_what_nobody_is_asked_is_an_error_at_once(agent, error, code):
    agent.refuse("requestToken", error)
    ended = in_process("request")
    assert (ended.code, ended.out) == (code, "")
    assert "waiting" not in ended.err


def test_with_a_wait_of_its_own_it_withdraws_the_request_after_that(agent):
    ended = in_process("request", "--wait", "1")
    assert ended.code == 75
    assert agent.methods[-1] == "withdrawRequest"
    assert agent.requests == {}


@pytest.mark.parametrize("args", [["--wait", "0"], ["--wait", "6m"], ["--wait", "never"], ["--ttl", "0"]])
def test_durations_that_make_no_sense_are_refused_first(agent, args):
    assert in_process("request", *args).code == 64
    assert agent.calls == []


@pytest.mark.parametrize("args", [["--file"], ["--env"], ["--show", "--", "true"]])
def test_options_that_do_not_fit_are_refused_first(agent, args):
    assert in_process("request", *args).code == 64
    assert agent.calls == []


def test_ctrl_c_withdraws_it(agent):
    # Python may see the signal only once a call ends: each waits at most half of the timeout.
    with requesting(env=without_coverage()) as child:
        assert child.stderr.readline() == HINT
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT
    assert agent.methods[-1] == "withdrawRequest"
    assert agent.requests == {}


@pytest.mark.parametrize("way", [[], ["--file"], ["--fd"], ["--env"]])
def test_a_command_gets_the_session_as_exec_hands_it_over(agent, folder, way):
    with requesting("--scope", "deploy", "--ttl", "10m", *way, "--", *LOOK) as child:
        assert agent.asked.wait(60)
        agent.decide("asked1")
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    seen = json.loads(out)
    assert seen["pid"] == child.pid, "agentctl has become the command"
    ((token, session),) = agent.sessions.items()
    assert (session.bound_pid, session.scopes) == (child.pid, ["deploy"])
    assert session.label == os.path.basename(LOOK[0])
    if way == ["--env"]:
        assert seen["variables"] == {"AGENTD_TOKEN": token}
    elif way == ["--fd"]:
        assert seen["in_fd"] == token + "\n"
    else:
        assert seen["in_file"] == token + "\n"


def test_where_there_is_no_place_for_the_file_nobody_is_asked(agent, folder):
    (folder / "exec").write_text("no folder")
    ended = in_process("request", "--", "true")
    assert ended.code == 77
    assert "use --fd" in ended.err
    assert agent.calls == []


def test_a_command_gets_no_other_token(agent, logged_in):
    with requesting("--env", "--", *LOOK, env=os.environ | {"AGENTD_TOKEN": logged_in}) as child:
        assert agent.asked.wait(60)
        agent.decide("asked1")
        out, err = child.communicate(timeout=60)
    assert json.loads(out)["variables"]["AGENTD_TOKEN"] != logged_in, err


def test_a_command_that_is_not_there_is_127_and_the_session_is_ended(agent):
    with person(agent):
        ended = in_process("request", "--", "/no/such/command")
    assert ended.code == 127
    assert agent.sessions == {}


def test_where_the_session_cannot_be_ended_the_reason_is_still_the_commands(agent):
    agent.refuse("revokeToken", UnknownMethodError())  # as the ask socket does
    with person(agent):
        assert in_process("request", "--", "/no/such/command").code == 127


def test_the_arguments_of_the_command_are_its_own(agent):
    with person(agent):
        ended = in_process("request", "--", "/no/such/command", "v4.local.searched-for", "--show")
    assert ended.code == 127


def test_a_token_is_never_an_argument(agent):
    ended = in_process("request", "--reason", "v4.local.secret")
    assert ended.code == 64
    assert "secret" not in ended.err
    assert agent.calls == []


def test_a_token_that_nobody_reads_is_taken_back(agent):
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*COMMAND, "request"], stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, text=True
    ) as child:
        os.close(writing)
        assert agent.asked.wait(60)
        agent.decide("asked1")
        child.communicate(timeout=60)
    assert agent.methods[-1] == "revokeToken"
    assert agent.sessions == {}


def test_without_a_standard_output_nobody_has_the_token(agent):
    with subprocess.Popen(
        [*COMMAND, "request"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(1),
    ) as child:  # fmt: skip
        assert agent.asked.wait(60)
        agent.decide("asked1")
        child.communicate(timeout=60)
    assert agent.sessions == {}
