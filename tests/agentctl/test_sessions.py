"""`inspect`, `token`, `revoke` and `reset-key`."""

from __future__ import annotations

import json

import pytest

from agentd_client.protocol.results import SessionInfo, Verification
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process


def test_inspect_shows_a_person_the_record(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token = agent.open(label="build", expiry=7200, at=NOW - 3600)
    ended = in_process("inspect", "-", stdin=token.encode(), terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "valid    yes\n"
        "session  session-2\n"
        "label    build\n"
        "opened   2025-06-15 14:06, 1 h ago\n"
        "by       process 4712 of user 1000\n"
        "end      2025-06-15 16:06, ends in 1 h\n"
    )


def test_inspect_exits_0_and_says_why_where_the_token_is_not_valid(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token = agent.open(expiry=60, at=NOW - 3600)
    ended = in_process("inspect", "-", stdin=token.encode(), terminal=True)
    assert ended.code == 0
    assert ended.out.startswith(
        "valid    no\nwhy      the session has expired (EXPIRED)\nsession  session-1\n"
    )
    assert ended.out.endswith("end      2025-06-15 14:07, ended 59 min ago\n")


def test_inspect_tells_a_pipe_and_json_the_reason_in_words_too(agent, token_file):
    token_file.write_text("v4.local.unknown")
    token_file.chmod(0o600)
    why = "this is not a token that this agent made"
    assert in_process("inspect").out == (f"valid\tfalse\nreason\tMALFORMED\nsession\t\nexplanation\t{why}\n")
    told = json.loads(in_process("inspect", "--json").out)
    assert told == {"valid": False, "reason": "MALFORMED", "session": None, "explanation": why}


def test_inspect_of_an_unknown_token_shows_no_record(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert in_process("inspect", "-", stdin=b"unknown", terminal=True).out == (
        "valid  no\nwhy    this is not a token that this agent made (MALFORMED)\n"
    )


def test_a_valid_token_has_no_explanation(agent, logged_in):
    assert json.loads(in_process("inspect", "--json").out)["explanation"] is None


def test_inspect_copes_with_a_record_that_says_little(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.script["inspectToken"] = lambda params: Verification(
        True, None, SessionInfo("session-1", "", 1e18, None, None)
    )
    assert in_process("inspect", terminal=True).out == (
        "valid    yes\n"
        "session  session-1\n"
        "label    \n"
        "opened   1e+18 s after 1970, 0 s ago\n"
        "end      never ends by itself\n"
    )


def test_what_an_agent_says_cannot_steer_the_terminal(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    hostile = SessionInfo("\x1b]0;x\x07", "two\nlines\u202e\x9b", NOW, None, None)
    agent.script["inspectToken"] = agent.script["verifyToken"] = lambda params: Verification(
        True, None, hostile
    )
    for args in (["inspect"], ["verify"], ["status"]):
        for terminal in (True, False):
            out = in_process(*args, terminal=terminal).out.replace("\n", "").replace("\t", "")
            assert out.isprintable(), args
    assert "label    two\\nlines\\u202e\\x9b\n" in in_process("inspect", terminal=True).out


def test_what_is_no_token_cannot_be_inspected_or_revoked(agent):
    for name in ("inspect", "revoke"):
        ended = in_process(name, "-", stdin=b"two words")
        assert (ended.code, ended.out) == (65, "")
        assert "two words" not in ended.err
    assert agent.calls == []


@pytest.mark.parametrize("name", ["inspect", "token", "revoke"])
def test_where_nobody_is_logged_in_there_is_nothing_to_act_on(agent, name):
    assert in_process(name) == (
        1,
        "",
        "agentctl: not logged in\nagentctl: log in with `agentctl login`\n",
    )
    assert json.loads(in_process(name, "--json").err) == {
        "error": {"code": "NOT_LOGGED_IN", "number": None, "message": "not logged in"}
    }
    assert agent.calls == []


def test_token_prints_the_token_and_nothing_else_in_a_pipe(logged_in):
    assert in_process("token") == (0, logged_in + "\n", "")
    assert json.loads(in_process("token", "--json").out) == {"token": logged_in}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_token_is_shown_on_a_terminal_only_when_asked_to(logged_in, options):
    refused = in_process("token", *options, terminal=True)
    assert refused.code == 64
    assert "--show" in refused.err
    assert logged_in not in refused.out + refused.err
    shown = in_process("token", "--show", *options, terminal=True)
    assert shown.code == 0
    assert logged_in in shown.out


def test_token_asks_no_agent(token_file):
    token_file.write_text("v4.local.mine")
    token_file.chmod(0o600)
    assert in_process("token").out == "v4.local.mine\n"


def test_revoke_ends_the_current_session_and_leaves_the_file(agent, logged_in, token_file):
    ended = in_process("revoke", terminal=True)
    assert ended.code == 0
    assert ended.out == f"the session was ended; its token is still in {token_file}\n"
    assert agent.sessions == {}
    assert token_file.read_text() == logged_in + "\n"


def test_revoke_of_an_id_or_of_a_token_on_standard_input_ends_that_session_alone(agent, logged_in):
    by_id, by_token = agent.open(), agent.open()
    assert in_process("revoke", agent.sessions[by_id].id, terminal=True).out == "the session was ended\n"
    assert in_process("revoke", "-", stdin=by_token.encode()).out == "revoked\ttrue\n"
    assert list(agent.sessions) == [logged_in]


def test_revoke_where_there_is_no_session_to_end_is_exit_code_1(agent, logged_in):
    ended = in_process("revoke", "session-9", terminal=True)
    assert (ended.code, ended.out) == (1, "there was no session to end\n")
    assert json.loads(in_process("revoke", "session-9", "--json").out) == {"revoked": False}


@pytest.mark.parametrize("which", ["", "two words", "x" * 65, "../../etc"])
def test_revoke_of_what_is_no_id_ends_nothing_and_repeats_nothing(agent, logged_in, which):
    ended = in_process("revoke", which)
    assert ended.code == 64
    assert not which or which not in ended.err
    assert agent.calls == []


def test_revoke_of_the_variables_session_says_where_the_token_still_is(agent, logged_in, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", agent.open())
    assert in_process("revoke", terminal=True).out.endswith("its token is still in AGENTD_TOKEN\n")
    assert list(agent.sessions) == [logged_in]


def test_reset_key_ends_every_session(agent, logged_in):
    ended = in_process("reset-key", "--yes", terminal=True)
    assert ended.code == 0
    assert "key-2" in ended.out
    assert "agentctl login" in ended.out
    assert agent.sessions == {}
    assert in_process("reset-key", "--yes").out == "keyId\tkey-2\n"


def test_reset_key_without_a_terminal_needs_a_yes(agent, logged_in):
    ended = in_process("reset-key")
    assert ended.code == 64
    assert "--yes" in ended.err
    assert agent.calls == []
