from __future__ import annotations

import json
import os
import subprocess

import pytest

from agentd_client.cli.commands.login import default_label
from agentd_client.errors import InvalidLabelError, StoreError
from tests.agentctl.fake_agent import DEFAULT_EXPIRY_SECONDS, NOW, HangUpError
from tests.agentctl.running import COMMAND, in_process


def test_login_puts_the_token_into_a_private_file_and_nowhere_else(agent, token_file):
    ended = in_process("login", "--label", "desk", terminal=True)
    assert ended.code == 0
    (token,) = agent.sessions
    assert token_file.read_text() == token + "\n"
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert ended.out == (
        f'logged in: session session-1, label "desk", ends in 8 h\nthe token is in {token_file}\n'
    )
    assert ended.err == ""


def test_login_in_a_pipe_prints_fields_and_as_json_one_object_both_without_the_token(agent, token_file):
    expires_at = NOW + DEFAULT_EXPIRY_SECONDS
    plain = in_process("login", "--label", "a\\b")
    assert plain.out == (
        f"id\tsession-1\nlabel\ta\\b\nexpiresAt\t{expires_at}\ntokenFile\t{token_file}\nreplaced\tfalse\n"
        "replacedId\t\nreplacedReason\t\n"
    )
    told = json.loads(in_process("login", "--json", "--label", "b").out)
    assert told == {
        "id": "session-2",
        "label": "b",
        "expiresAt": expires_at,
        "tokenFile": str(token_file),
        "replaced": True,
        "replacedId": "session-1",
        "replacedReason": None,
    }


def test_a_second_login_replaces_the_first_session_and_ends_it(agent, token_file):
    in_process("login")
    first = token_file.read_text().strip()
    in_process("login")
    second = token_file.read_text().strip()
    assert first != second
    assert list(agent.sessions) == [second]


def test_login_names_the_session_that_it_ended(agent, logged_in, token_file):
    ended = in_process("login", "--label", "new", terminal=True)
    assert ended.out == (
        f'logged in: session session-2, label "new", ends in 8 h\nthe token is in {token_file}\n'
        'the previous session, session session-1, label "desk", was ended\n'
    )


def test_of_a_token_in_the_file_that_no_longer_counts_it_says_why(agent, token_file):
    in_process("login")
    in_process("reset-key", "--yes")
    ended = in_process("login", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert (told["replaced"], told["replacedId"], told["replacedReason"]) == (False, None, "KEY_RESET")
    in_process("reset-key", "--yes")
    assert "the previous token was no longer valid: " in in_process("login", terminal=True).out


def test_a_session_of_another_agent_is_not_orphaned_without_a_word(agent, logged_in, token_file):
    agent.sessions.clear()
    agent.ended[logged_in] = "OTHER_AGENT"
    ended = in_process("login")
    assert ended.code == 0
    assert f"warning: {token_file} held a token of another agent" in ended.err
    assert "agentctl revoke ID" in ended.err
    assert logged_in not in ended.err
    assert "replacedReason\tOTHER_AGENT\n" in ended.out


def test_what_was_in_the_file_need_not_be_known(agent, logged_in):
    agent.refuse("inspectToken", StoreError("the disk is on fire"))
    ended = in_process("login", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert len(agent.sessions) == 1


def test_logins_at_once_leave_one_session_the_one_in_the_file(agent, token_file):
    logins = [
        subprocess.Popen([*COMMAND, "--timeout", "60", "login"], stdout=subprocess.DEVNULL) for _ in range(6)
    ]
    assert [login.wait(60) for login in logins] == [0] * 6
    assert agent.methods.count("createToken") == 6
    assert list(agent.sessions) == [token_file.read_text().strip()]


def test_a_login_that_cannot_write_the_file_ends_its_session_and_then_says_why(agent, token_file):
    token_file.symlink_to("elsewhere")
    ended = in_process("login")
    assert ended.code == 77
    assert str(token_file) in ended.err
    assert agent.methods == ["createToken", "revokeToken"]
    assert agent.sessions == {}
    assert token_file.is_symlink()


def test_a_login_that_is_interrupted_while_it_writes_ends_its_session(agent, token_file, monkeypatch):
    def interrupted(session, token):
        raise KeyboardInterrupt

    monkeypatch.setattr("agentd_client.session.Session.exchange_token", interrupted)
    assert in_process("login").code == 130
    assert agent.sessions == {}


def test_a_session_that_login_could_not_end_is_named_in_a_warning(agent, logged_in):
    agent.refuse("revokeToken", StoreError("the disk is on fire"))
    ended = in_process("login")
    assert ended.code == 0
    assert "warning: the previous session could not be ended" in ended.err
    assert "the disk is on fire" in ended.err


@pytest.mark.parametrize(
    ("variable", "value"), [("AGENTD_TOKEN", "v4.local.other"), ("AGENTD_TOKEN_FD", "987654")]
)
def test_login_while_a_token_variable_is_set_warns_that_the_variable_is_stronger(
    agent, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    ended = in_process("login")
    assert ended.code == 0
    assert f"warning: {variable} is set and takes precedence over the token file" in ended.err
    assert "v4.local" not in ended.err


@pytest.mark.parametrize(
    ("written", "sent"),
    [("30m", 1800), ("8h", 28_800), ("1h30m", 5400), ("90", 90), ("never", "never")],
)
def test_expiry_is_written_as_people_write_it_and_sent_in_seconds(agent, written, sent):
    assert in_process("login", "--expiry", written).code == 0
    assert agent.calls[0][1]["expiry"] == sent


@pytest.mark.parametrize("zero", ["0", "0s", "0h0m"])
@pytest.mark.parametrize(
    "command",
    [["login", "--expiry"], ["login", "--max-lifetime"], ["exec", "--ttl"]],
    ids=lambda found: found[1],
)
def test_a_session_that_would_be_over_at_once_is_refused_and_the_present_one_goes_on(
    agent, logged_in, token_file, command, zero
):
    ended = in_process(*command, zero, *(["--", "true"] if command[0] == "exec" else []))
    assert ended.code == 64
    assert f"{command[1]}' must not be 0, as the session would end at once" in ended.err.replace(": ", " ")
    assert agent.calls == []
    assert token_file.read_text().strip() == logged_in


def test_login_narrows_the_session_as_it_is_told_to(agent):
    args = ["--max-lifetime", "7d", "--max-uses", "9", "--scope", "a", "--scope", "b", "--audience", "ci"]
    assert in_process("login", "--label", "x", *args).code == 0
    assert agent.calls[0][1] == {
        "label": "x",
        "maxLifetime": 604_800,
        "maxUses": 9,
        "scopes": ["a", "b"],
        "audience": ["ci"],
    }


def test_a_session_may_be_renewable_without_end(agent):
    assert in_process("login", "--max-lifetime", "never").code == 0
    assert agent.calls[0][1]["maxLifetime"] == "never"


@pytest.mark.parametrize("args", [["--max-lifetime", "soon"], ["--max-uses", "0"], ["--max-uses", "x"]])
def test_a_limit_of_another_form_is_a_usage_error(agent, args):
    assert in_process("login", *args).code == 64
    assert agent.calls == []


def test_more_scopes_than_there_can_be_are_a_matter_of_data(agent, token_file):
    ended = in_process("login", *(f"--scope=s{number}" for number in range(17)))
    assert ended.code == 65
    assert "at most 16" in ended.err
    assert not token_file.exists()


def test_login_without_an_expiry_leaves_it_to_the_agent(agent):
    in_process("login")
    assert "expiry" not in agent.calls[0][1]


def test_a_session_that_never_ends_is_told_so(agent):
    assert "never ends by itself" in in_process("login", "--expiry", "never", terminal=True).out


@pytest.mark.parametrize("written", ["soon", "-1", "1.5h", ""])
def test_an_expiry_of_another_form_is_a_usage_error_that_shows_the_forms(agent, written):
    ended = in_process("login", "--expiry", written)
    assert ended.code == 64
    assert "1h30m" in ended.err
    assert agent.calls == []


def test_a_label_that_the_agent_refuses_is_a_matter_of_data(agent, token_file):
    agent.refuse("createToken", InvalidLabelError("a label is one line"))
    ended = in_process("login", "--label", "two\nlines")
    assert (ended.code, ended.err) == (65, "agentctl: a label is one line\n")
    assert not token_file.exists()


@pytest.mark.parametrize("args", [["login", "--label", "a\udcffb"], ["login", "--label", "x" * 70_000]])
def test_a_label_that_cannot_be_sent_is_a_matter_of_data_too(agent, token_file, args):
    ended = in_process(*args)
    assert ended.code == 65
    assert ended.err.startswith("agentctl: the label cannot be sent: ")
    assert ended.err.count("\n") == 1, "InvalidLabelError: no advice is needed"
    assert "version" not in ended.err
    assert (agent.calls, token_file.exists()) == ([], False)


@pytest.mark.parametrize("args", [["login"], ["--json", "login"]])
def test_a_login_whose_output_cannot_be_written_says_that_it_was_done(agent, token_file, args):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 74
    assert "standard output: No space left on device" in done.stderr
    assert f"logged in nevertheless: the token is in {token_file}" in done.stderr
    assert list(agent.sessions) == [token_file.read_text().strip()]


def test_a_login_whose_reader_went_away_says_nothing_more(agent, token_file):
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb") as broken:
        done = subprocess.run(
            [*COMMAND, "login"],
            stdin=subprocess.DEVNULL,
            stdout=broken,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert token_file.exists()


def test_a_login_whose_answer_is_lost_says_that_the_outcome_is_unknown(agent, token_file):
    def hang_up(params):
        raise HangUpError

    agent.script["createToken"] = hang_up
    assert in_process("login").code == 75
    assert agent.methods == ["createToken"], "a session must not be opened twice"
    assert not token_file.exists()


def test_the_label_is_the_host_and_the_terminal_unless_one_is_given(agent, monkeypatch):
    in_process("login")
    assert agent.calls[0][1]["label"] == default_label()


def test_the_default_label_names_the_terminal_of_any_standard_stream(monkeypatch):
    host = os.uname().nodename

    def only_stderr(descriptor):
        if descriptor != 2:
            raise OSError
        return "/dev/pts/3"

    monkeypatch.setattr(os, "ttyname", only_stderr)
    assert default_label() == f"{host} pts/3"

    def none(descriptor):
        raise OSError

    monkeypatch.setattr(os, "ttyname", none)
    assert default_label() == f"{host}, no terminal"


def test_another_token_file_can_be_named_before_and_after_the_command(agent, folder):
    assert in_process("--token-file", str(folder / "one"), "login").code == 0
    assert in_process("login", "--token-file", str(folder / "two")).code == 0
    assert (folder / "one").exists()
    assert (folder / "two").exists()
    assert len(agent.sessions) == 2
