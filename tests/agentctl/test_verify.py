from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from agentd_client.cli.current_token import token_from_stdin
from agentd_client.cli.options import DEFAULT_PATIENCE_SECONDS, DEFAULT_TIMEOUT_SECONDS
from agentd_client.errors import AgentLockedError, AgentUnreachableError, InvalidTokenError
from agentd_client.protocol.limits import MAX_TOKEN_CHARACTERS
from agentd_client.protocol.results import Verification
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process

HEAVY = "trio anyio asyncio lmdb nacl logging json dataclasses platformdirs agentd"


def test_a_valid_token_is_exit_code_0(agent, logged_in):
    assert in_process("verify") == (0, "valid\n", "")


def test_an_ended_session_is_exit_code_1_with_the_reason(agent, logged_in):
    in_process("revoke", "session-1")
    assert in_process("verify") == (1, "invalid REVOKED\n", "")


def test_not_logged_in_is_exit_code_1(agent):
    assert in_process("verify") == (1, "invalid NOT_LOGGED_IN\n", "")
    assert agent.calls == []


@pytest.mark.parametrize("stdin", [b"", b"garbage", b"\xff\xfe", b"two\ntokens", b"x" * 16_384])
def test_whatever_stands_on_standard_input_gets_an_answer(agent, stdin):
    assert in_process("verify", "-", stdin=stdin) == (1, "invalid MALFORMED\n", "")


def test_a_token_on_standard_input_may_have_white_space_around_it(agent, logged_in):
    assert in_process("verify", "-", stdin=f"  {logged_in}\r\n".encode()).code == 0


def test_standard_input_is_read_no_further_than_a_token_can_be_long(monkeypatch):
    endless = io.BytesIO(b"x" * 10_000_000)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(endless))
    with pytest.raises(InvalidTokenError, match="more than 16384 bytes"):
        token_from_stdin()
    assert endless.tell() == 2 * MAX_TOKEN_CHARACTERS + 1


def test_a_part_of_standard_input_is_never_judged_as_the_whole(agent, logged_in):
    room = 2 * MAX_TOKEN_CHARACTERS - len(logged_in)
    assert in_process("verify", "-", stdin=logged_in.encode() + b" " * room).code == 0
    ended = in_process("verify", "-", stdin=logged_in.encode() + b" " * room + b"JUNK")
    assert (ended.code, ended.out) == (65, "")
    assert "standard input holds more than" in ended.err


@pytest.mark.parametrize(
    ("args", "timeout", "patience"),
    [
        ([], DEFAULT_TIMEOUT_SECONDS, DEFAULT_PATIENCE_SECONDS),
        (["--timeout", "10"], 10, None),
        (["--timeout", "0.1"], 0.1, None),
    ],
)
def test_only_who_gives_a_timeout_waits_all_of_it_for_an_absent_agent(monkeypatch, args, timeout, patience):
    seen = []

    def connect(socket, agent_uid, **waiting):
        seen.append(waiting)
        raise AgentUnreachableError

    monkeypatch.setattr("agentd_client.blocking.Client.connect", connect)
    assert in_process(*args, "verify").code == 69
    assert in_process("verify", *args).code == 69
    assert seen == [{"timeout": timeout, "patience": patience}] * 2


def test_without_an_agent_nobody_can_know_logged_in_or_not(folder, token_file):
    assert in_process("--timeout", "0.01", "verify").code == 69
    token_file.write_text("v4.local.token\n")
    token_file.chmod(0o600)
    ended = in_process("--timeout", "0.01", "verify")
    assert (ended.code, ended.out) == (69, "")
    assert "agentd serve" in ended.err
    assert "systemctl --user start agentd" in ended.err


def test_a_locked_agent_cannot_know_either(agent, logged_in):
    agent.refuse("verifyToken", AgentLockedError())
    ended = in_process("verify")
    assert (ended.code, ended.out) == (69, "")


def test_verify_asks_for_an_audience_and_for_scopes(agent, logged_in, monkeypatch):
    args = ["--audience", "ci", "--scope", "read", "--scope", "write"]
    asked = {"audience": "ci", "scopes": ["read", "write"]}
    assert in_process("verify", *args).code == 0
    assert in_process("verify", "-", *args, stdin=logged_in.encode()).code == 0
    monkeypatch.setenv("AGENTD_TOKEN", logged_in)
    assert in_process("verify", *args).code == 0
    assert agent.calls == [("verifyToken", {"token": logged_in, **asked})] * 3


def test_a_session_for_others_is_exit_code_1(agent, token_file):
    in_process("login", "--audience", "deploy")
    assert in_process("verify") == (1, "invalid WRONG_AUDIENCE\n", "")
    assert in_process("verify", "--audience", "deploy").code == 0


def test_verify_renews_the_session_of_the_token_file_when_that_is_due(agent, token_file):
    token = agent.open(expiry=3600, at=NOW - 3000)
    token_file.write_text(token)
    token_file.chmod(0o600)
    assert in_process("verify").code == 0
    assert agent.methods == ["verifyToken", "renewToken"]
    assert token_file.read_text() == f"{token}.1\n"


def test_verify_renews_no_token_that_came_from_elsewhere(agent, monkeypatch):
    token = agent.open(expiry=3600, at=NOW - 3000)
    assert in_process("verify", "-", stdin=token.encode()).code == 0
    monkeypatch.setenv("AGENTD_TOKEN", token)
    assert in_process("verify").code == 0
    assert agent.methods == ["verifyToken", "verifyToken"]


def test_a_terminal_is_told_in_one_line(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert in_process("verify", terminal=True).out == (
        'valid: session session-1, label "desk", ends in 8 h\n'
    )
    expired = agent.open(expiry=60, at=NOW - 3600)
    assert in_process("verify", "-", stdin=expired.encode(), terminal=True).out == (
        "not valid: the session has expired (EXPIRED)\n"
    )


def test_a_terminal_is_told_what_to_do_when_not_logged_in(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert in_process("verify", terminal=True).out == (
        "not valid: not logged in; `agentctl login` opens a session\n"
    )


def test_answers_without_a_session_or_a_reason_are_told_as_they_are(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.script["verifyToken"] = lambda params: Verification(True, None, None)
    assert in_process("verify", terminal=True).out == "valid: the agent does not say more\n"
    agent.script["verifyToken"] = lambda params: Verification(False, None, None)
    assert in_process("verify", terminal=True).out == "not valid: the agent gives no reason\n"
    assert in_process("verify").out == "invalid\n"


def test_json_is_the_full_answer_with_the_names_of_the_wire(agent, logged_in):
    session = {
        "id": "session-1",
        "label": "desk",
        "createdAt": NOW,
        "expiresAt": NOW + 28_800,
        "openedBy": {"uid": 1000, "pid": 4712, "exe": None, "unit": None},
        "state": "active",
        "renewedAt": NOW,
        "maxExpiresAt": None,
        "lastUsedAt": None,
        "audience": None,
        "scopes": None,
        "usesLeft": None,
        "parent": None,
        "generation": 0,
        "boundPid": None,
    }
    ended = in_process("verify", "--json")
    assert json.loads(ended.out) == {"valid": True, "reason": None, "session": session}
    assert logged_in not in ended.out


def test_the_variable_is_stronger_than_the_file_and_the_flag_is_stronger_than_both(
    agent, logged_in, token_file, monkeypatch
):
    monkeypatch.setenv("AGENTD_TOKEN", "v4.local.unknown")
    assert in_process("verify").code == 1
    assert in_process("verify", "--token-file", str(token_file)).code == 0
    monkeypatch.setenv("AGENTD_TOKEN", "")
    assert in_process("verify").code == 0


def test_a_refused_token_file_is_no_answer_but_an_error(agent, logged_in, token_file):
    token_file.chmod(0o644)
    ended = in_process("verify")
    assert (ended.code, ended.out) == (77, "")
    assert str(token_file) in ended.err


def test_at_another_users_agent_the_token_is_sent_to_that_user_and_to_nobody_else(agent, logged_in):
    own = str(os.geteuid())
    assert in_process("verify", "--agent-uid", own) == (0, "valid\n", "")
    calls = len(agent.calls)
    ended = in_process("verify", "--agent-uid", "64997")
    assert (ended.code, ended.out) == (77, "")
    assert f"uid {own} listens at" in ended.err
    assert "uid 64997 is whose agent was asked for; nothing was sent" in ended.err
    assert len(agent.calls) == calls


@pytest.mark.parametrize("uid", ["-1", "", "root", "4294967295", "1.0"])
def test_what_is_no_user_id_is_a_wrong_command_line(agent, logged_in, uid):
    assert in_process("verify", "--agent-uid", uid).code == 64
    assert agent.calls == []


def test_verify_imports_nothing_heavy(agent, logged_in):
    program = (
        "import sys; before = set(sys.modules)\n"  # a coverage tool may have its own there
        "from agentd_client.cli.run import run; code = run(['verify'])\n"
        f"print(code, [name for name in {HEAVY.split()} if name in set(sys.modules) - before])"
    )
    told = process_python(program)
    assert told.stdout == "valid\n0 []\n", told.stderr


def test_help_imports_no_command():
    program = (
        "import sys; from agentd_client.cli.run import run; run(['--help'])\n"
        "print([name for name in sys.modules if '.commands' in name])"
    )
    assert process_python(program).stdout.endswith("\n[]\n")


def process_python(program: str):
    return subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
