from __future__ import annotations

import json
import os

from agentd_client.errors import StoreError
from tests.agentctl.running import in_process


def test_logout_ends_the_session_and_removes_the_file(agent, logged_in, token_file):
    ended = in_process("logout", terminal=True)
    assert ended.code == 0
    assert ended.out == f"logged out: the session was ended; {token_file} was removed\n"
    assert ended.err == ""
    assert agent.sessions == {}
    assert not token_file.exists()


def test_logout_says_in_a_pipe_and_as_json_what_it_did(agent, logged_in):
    assert in_process("logout").out == "sessionEnded\ttrue\neverySessionEnded\tfalse\nfileRemoved\ttrue\n"
    told = json.loads(in_process("--json", "logout").out)
    assert told == {"sessionEnded": False, "everySessionEnded": False, "fileRemoved": False}


def test_logout_of_someone_not_logged_in_says_so_and_asks_no_agent(folder):
    ended = in_process("logout", terminal=True)
    assert (ended.code, ended.out, ended.err) == (0, "not logged in\n", "")


def test_logout_without_an_agent_removes_the_file_and_warns_that_the_session_lives_on(folder, token_file):
    token_file.write_text("v4.local.token\n")
    token_file.chmod(0o600)
    ended = in_process("--timeout", "0.01", "logout")
    assert ended.code == 0
    assert "warning: the session stays open until it expires" in ended.err
    assert not token_file.exists()


def test_logout_removes_the_name_of_a_refused_file_and_not_what_it_points_to(agent, token_file, folder):
    other = folder / "other"
    other.write_text("kept")
    token_file.symlink_to(other)
    ended = in_process("logout")
    assert ended.code == 0
    assert "warning: " in ended.err
    assert not token_file.is_symlink()
    assert other.read_text() == "kept"


def test_logout_of_an_empty_file_removes_it(agent, token_file):
    token_file.touch(mode=0o600)
    ended = in_process("logout", terminal=True)
    assert ended.out == f"logged out: {token_file} was removed\n"
    assert not token_file.exists()
    assert agent.calls == []


def test_a_session_that_cannot_be_ended_is_an_error_but_the_file_is_gone(agent, logged_in, token_file):
    agent.refuse("revokeToken", StoreError("the disk is on fire"))
    ended = in_process("logout")
    assert ended.code == 74
    assert "the token file was removed nevertheless" in ended.err
    assert "agentctl: the disk is on fire\n" in ended.err
    assert not token_file.exists()


def test_a_file_that_cannot_be_removed_is_an_error(agent, token_file):
    token_file.mkdir()
    ended = in_process("logout")
    assert (ended.code, ended.out) == (77, "")
    assert "is removed" not in ended.err
    assert f"cannot remove token file {token_file}: Is a directory" in ended.err
    assert token_file.is_dir()


def test_logout_all_resets_the_key_and_removes_the_file(agent, logged_in, token_file):
    agent.open()
    ended = in_process("logout", "--all", terminal=True)
    assert (ended.code, ended.out) == (0, f"every session was ended; {token_file} was removed\n")
    assert agent.methods == ["resetKey"]
    assert not token_file.exists()


def test_logout_all_of_someone_not_logged_in_ends_every_session_too(agent):
    agent.open()
    ended = in_process("logout", "--all", terminal=True)
    assert (ended.code, ended.out) == (0, "every session was ended\n")
    assert agent.sessions == {}


def test_logout_all_ends_every_session_though_the_file_cannot_be_removed(agent, token_file):
    agent.open()
    token_file.mkdir()
    ended = in_process("logout", "--all")
    assert (ended.code, ended.out) == (77, "")
    assert agent.methods == ["resetKey"]
    assert "warning: every session was ended nevertheless" in ended.err
    assert f"cannot remove token file {token_file}: Is a directory" in ended.err


def test_logout_all_without_an_agent_is_an_error_because_nothing_was_ended(token_file):
    token_file.write_text("v4.local.token\n")
    token_file.chmod(0o600)
    ended = in_process("--timeout", "0.01", "logout", "--all")
    assert ended.code == 69
    assert not token_file.exists()


def test_logout_is_about_the_file_and_says_that_the_session_of_the_variable_goes_on(
    agent, logged_in, monkeypatch
):
    other = agent.open()
    monkeypatch.setenv("AGENTD_TOKEN", other)
    ended = in_process("logout")
    assert ended.code == 0
    assert "the session of AGENTD_TOKEN stays open" in ended.err
    assert list(agent.sessions) == [other]
    assert os.environ["AGENTD_TOKEN"] not in ended.err


def test_logout_says_of_a_token_handed_over_by_descriptor_that_its_session_goes_on(
    agent, logged_in, monkeypatch
):
    monkeypatch.setenv("AGENTD_TOKEN_FD", "987654")  # not even open: it is not needed for this
    ended = in_process("logout")
    assert ended.code == 0
    assert "the session of AGENTD_TOKEN_FD stays open" in ended.err
    assert agent.sessions == {}


def test_logging_out_of_another_agents_session_says_that_it_goes_on(agent, logged_in, token_file):
    agent.sessions.clear()
    agent.ended[logged_in] = "OTHER_AGENT"
    ended = in_process("logout")
    assert ended.code == 0
    assert f"warning: {token_file} held a token of another agent, whose session stays open" in ended.err
    assert not token_file.exists()
