from __future__ import annotations

import json

import pytest

from agentd_client.protocol.results import Verification
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process


def test_status_shows_a_person_the_agent_and_their_session(agent, logged_in, folder, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    ended = in_process("status", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "agent       agentd 0.1.0, process 4711, up 2 h 3 min\n"
        "agent id    agent-1\n"
        f"socket      {folder / 'agent.sock'}\n"
        "store       /state/agentd/store, 12.0 MiB\n"
        "state       not locked\n"
        "opening     free: any program of yours opens sessions\n"
        "passphrase  none; `agentctl passwd` sets one\n"
        "memory      locked; no other process can read the keys\n"
        "key id      key-1\n"
        "sessions    1\n"
        "traffic     1234 requests on 90 connections; 5 refused, 3 peers refused or cut off\n"
        'you         logged in: session session-1, label "desk", ends in 8 h (until 2025-06-15 23:06)\n'
    )


def test_status_in_a_pipe_is_one_field_a_line_with_the_names_of_the_wire(agent, logged_in):
    fields = dict(line.split("\t") for line in in_process("status").out.splitlines())
    assert fields["agent.version"] == "0.1.0"
    assert fields["agent.memoryLocked"] == "true"
    assert fields["agent.storeBytes"] == "12582912"
    assert fields["loggedIn"] == "true"
    assert fields["reason"] == ""
    assert fields["session.openedBy.pid"] == "4712"


def test_status_as_json_is_one_object(agent, logged_in):
    told = json.loads(in_process("status", "--json").out)
    assert told["agent"]["agentId"] == "agent-1"
    assert (told["loggedIn"], told["reason"]) == (True, None)
    assert told["session"]["expiresAt"] == NOW + 28_800


def test_status_of_someone_not_logged_in_is_no_error(agent):
    assert in_process("status", terminal=True).out.endswith(
        "not logged in; `agentctl login` opens a session\n"
    )
    told = json.loads(in_process("status", "--json").out)
    assert (told["loggedIn"], told["reason"], told["session"]) == (False, "NOT_LOGGED_IN", None)


def test_status_says_why_a_token_no_longer_counts(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    in_process("reset-key", "--yes")
    assert in_process("status", terminal=True).out.endswith(
        "not logged in: the token was made with a session key that this agent no longer has (KEY_RESET)\n"
    )


def test_a_session_that_never_ends_or_is_not_told_is_shown_as_that(agent, token_file, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token_file.write_text(agent.open(expiry="never"))
    token_file.chmod(0o600)
    assert in_process("status", terminal=True).out.endswith(
        "logged in: session session-1, never ends by itself\n"
    )
    agent.script["inspectToken"] = lambda params: Verification(True, None, None)
    assert in_process("status", terminal=True).out.endswith("you         logged in\n")


def test_status_only_looks(agent, logged_in):
    assert in_process("status").code == 0
    assert agent.methods == ["getStatus", "inspectToken"]


def test_what_cannot_be_a_token_is_not_sent_to_be_looked_at(agent, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", "two words")
    told = json.loads(in_process("status", "--json").out)
    assert (told["loggedIn"], told["reason"]) == (False, "MALFORMED")
    assert agent.methods == ["getStatus"]


def test_a_locked_agent_says_since_when_and_why_and_is_not_asked_for_a_session(
    agent, logged_in, folder, monkeypatch
):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.passphrase, agent.locked, agent.wrong_passphrases = b"secret", True, 3
    agent.locked_at, agent.lock_reason = NOW - 3_600, "screen lock"
    ended = in_process("status", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "agent       agentd 0.1.0, process 4711, up 2 h 3 min\n"
        f"socket      {folder / 'agent.sock'}\n"
        "store       /state/agentd/store\n"
        "state       locked since 2025-06-15 14:06: the screen was locked\n"
        "opening     free: any program of yours opens sessions\n"
        "passphrase  set; 3 wrong ones since the agent started\n"
        "memory      locked; no other process can read the keys\n"
        "traffic     1234 requests on 90 connections; 5 refused, 3 peers refused or cut off\n"
        "you         unknown while the agent is locked; `agentctl unlock` unlocks it\n"
    )
    assert agent.methods == ["getStatus"]


def test_it_says_who_opens_sessions_and_what_waits(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.opening = "ask"
    agent.ask("k7m2qd")
    agent.ask("q9z3aa", state="remembered")
    shown = in_process("status", terminal=True).out
    assert (
        "opening     ask: a person approves sessions; 1 waiting, `agentctl approve` shows what and asks\n"
        in shown
    )
    told = json.loads(in_process("status", "--json").out)
    assert (told["agent"]["opening"], told["agent"]["requests"]) == ("ask", 1)


def test_whether_a_caller_is_logged_in_with_a_locked_agent_is_neither_yes_nor_no(agent, logged_in):
    agent.passphrase, agent.locked, agent.lock_reason = b"secret", True, "idle"
    told = json.loads(in_process("status", "--json").out)
    assert (told["loggedIn"], told["reason"], told["session"]) == (None, "LOCKED", None)
    assert (told["agent"]["locked"], told["agent"]["lockReason"]) == (True, "idle")
    assert "loggedIn\t\n" in in_process("status").out


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("asked", "locked: on request"),
        ("suspend", "locked: the machine was suspended"),
        ("idle", "locked: it was idle"),
        ("signal", "locked: a signal"),
        ("start", "locked: it started locked"),
        ("one of\x1b later", "locked: one of\\x1b later"),
        (None, "locked"),
    ],
)
def test_every_reason_is_said_in_words(agent, monkeypatch, reason, shown):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.passphrase, agent.locked, agent.lock_reason = b"secret", True, reason
    assert f"state       {shown}\n" in in_process("status", terminal=True).out
    assert "passphrase  set\n" in in_process("status", terminal=True).out


def test_one_wrong_passphrase_is_one(agent):
    agent.passphrase, agent.wrong_passphrases = b"secret", 1
    assert "set; 1 wrong one since" in in_process("status", terminal=True).out


@pytest.mark.parametrize(
    ("secret", "shown"),
    [(True, "locked; no other process can read the keys"), (False, "locked"), (None, "locked")],
)
def test_how_well_the_keys_memory_is_kept_is_shown(agent, monkeypatch, secret, shown):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.memory_secret = secret
    assert f"memory      {shown}\n" in in_process("status", terminal=True).out


def test_memory_that_is_not_locked_is_warned_of(agent):
    agent.memory_locked = False
    ended = in_process("status", terminal=True)
    assert ended.code == 0
    assert "warning: the agent's keys are not in locked memory" in ended.err
    assert "not locked" in ended.out


def test_a_refused_token_file_does_not_hide_the_agent(agent, logged_in, token_file):
    token_file.chmod(0o644)
    ended = in_process("status")
    assert ended.code == 0
    assert "loggedIn\tfalse\n" in ended.out
    assert str(token_file) in ended.err


def test_without_an_agent_status_says_how_to_start_one(folder):
    ended = in_process("--timeout", "0.01", "status")
    assert (ended.code, ended.out) == (69, "")
    assert str(folder / "agent.sock") in ended.err
    assert "agentd serve" in ended.err
    assert "systemctl --user start agentd" in ended.err


def test_colour_is_for_terminals_that_want_it(agent, logged_in, monkeypatch):
    assert "\x1b[32mlogged in\x1b[0m" in in_process("status", terminal=True).out
    assert "\x1b" not in in_process("status").out
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in in_process("status", terminal=True).out
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in in_process("status", terminal=True).out
