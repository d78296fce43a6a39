"""`token`, `revoke` and `reset-key`."""

from __future__ import annotations

import json

import pytest

from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process


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


def test_token_prints_it_as_headers_for_other_programs(agent, logged_in):
    header = f"Authorization: Bearer {logged_in}"
    assert in_process("token", "--header") == (0, header + "\n", "")
    assert json.loads(in_process("token", "--header", "--json").out) == {"header": header}
    for options in ([], ["--json"]):
        printed = in_process("token", "--headers-json", *options)
        assert json.loads(printed.out) == {"Authorization": f"Bearer {logged_in}"}
    assert set(agent.methods) == {"inspectToken"}, "none of this is a use"


@pytest.mark.parametrize("form", ["--header", "--headers-json"])
def test_headers_need_show_on_a_terminal_and_a_login(agent, form):
    assert in_process("token", form).code == 1
    refused = in_process("token", form, terminal=True)
    assert (refused.code, refused.out) == (64, "")


def test_headers_renew_a_session_that_is_due(agent, token_file):
    token = agent.open(expiry=600, at=NOW - 500)
    token_file.write_text(token)
    token_file.chmod(0o600)
    assert in_process("token").out == f"{token}\n"
    renewed = in_process("token", "--header").out
    assert renewed == f"Authorization: Bearer {token_file.read_text()}"
    assert token not in renewed.split()
    assert agent.methods == ["inspectToken", "renewToken"]


def test_headers_are_printed_without_an_agent(token_file):
    token_file.write_text("v4.local.mine")
    token_file.chmod(0o600)
    assert in_process("token", "--header") == (0, "Authorization: Bearer v4.local.mine\n", "")


def test_one_header_never_becomes_two(monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", "v4.local.mine\r\nX-Other: 1")
    ended = in_process("token", "--header")
    assert (ended.code, ended.out) == (65, "")
    assert "X-Other" not in ended.err


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


@pytest.fixture
def builds(agent):
    """Two sessions with labels that begin with "build"."""
    return [agent.open(label="build-1"), agent.open(label="build-2")]


def test_revoke_by_condition_ends_all_that_fit_and_says_how_many(agent, logged_in, builds):
    ended = in_process("revoke", "--label", "build-*", "--yes", terminal=True)
    assert (ended.code, ended.out) == (0, "2 sessions were ended\n")
    assert list(agent.sessions) == [logged_in]
    again = in_process("revoke", "--label", "build-*", "--yes", terminal=True)
    assert (again.code, again.out) == (1, "there was no session to end\n")
    assert json.loads(in_process("revoke", "--yes", "--label", "desk", "--json").out) == {"ended": 1}


def test_revoke_by_condition_hands_on_every_condition(agent):
    args = ["--label", "a*", "--pid", "12", "--parent", "session-9", "--state", "expired", "--yes"]
    in_process("revoke", *args)
    assert agent.calls == [
        ("revokeSessions", {"label": "a*", "pid": 12, "parent": "session-9", "state": "expired"})
    ]


def test_revoke_by_condition_without_a_terminal_needs_a_yes(agent, builds):
    ended = in_process("revoke", "--label", "build-*")
    assert ended.code == 64
    assert "--yes" in ended.err
    assert agent.calls == []


@pytest.mark.parametrize(
    "args",
    [
        ["session-1", "--label", "x"],
        ["--label", ""],
        ["--pid", "0"],
        ["--state", "gone"],
        ["--parent", "a b"],
    ],
)
def test_conditions_that_mean_nothing_end_nothing(agent, logged_in, args):
    assert in_process("revoke", "--yes", *args).code == 64
    assert agent.calls == []


def test_reset_key_can_leave_a_grace(agent, logged_in):
    ended = in_process("reset-key", "--grace", "10m", "--yes", terminal=True)
    assert ended.out.startswith("every session ends in 10 min; the new session key is key-2\n")
    assert agent.calls == [("resetKey", {"graceSeconds": 600})]


@pytest.mark.parametrize("grace", ["never", "soon", ""])
def test_a_grace_is_a_length_of_time(agent, grace):
    assert in_process("reset-key", "--yes", "--grace", grace).code == 64
    assert agent.calls == []
