"""`agentctl lock`, and what the other commands say to a locked agent."""

from __future__ import annotations

import json

import pytest

from agentd_client import Client
from tests.agentctl.running import in_process


def test_lock_locks_and_says_how_to_go_on(agent):
    agent.passphrase = b"secret"
    ended = in_process("lock", terminal=True)
    assert ended == (0, "locked; `agentctl unlock` unlocks it\n", "")
    assert agent.locked
    assert agent.methods == ["lock"]


def test_lock_in_a_pipe_and_as_json_says_what_the_wire_says(agent):
    agent.passphrase = b"secret"
    assert in_process("lock").out == "locked\ttrue\n"
    assert json.loads(in_process("lock", "--json").out) == {"locked": True}


@pytest.mark.parametrize(
    ("args", "seconds"), [([], 15.0), (["--timeout", "7"], 7.0), (["--timeout", "90"], 90.0)]
)
def test_the_agent_is_given_time_for_what_comes_before_a_lock(agent, monkeypatch, args, seconds):
    given = []
    lock = Client.lock
    monkeypatch.setattr(Client, "lock", lambda self: given.append(self.timeout) or lock(self))
    agent.passphrase = b"secret"
    assert in_process("lock", *args).code == 0
    assert given == [seconds]


def test_an_agent_without_a_passphrase_is_not_locked_and_says_why_and_what_to_do(agent):
    ended = in_process("lock")
    assert (ended.code, ended.out) == (77, "")
    assert ended.err == (
        "agentctl: an agent without a passphrase cannot be locked; set one with `agentctl passwd`\n"
    )
    assert not agent.locked


@pytest.mark.parametrize(
    "args",
    [
        ["login"],
        ["verify"],
        ["inspect"],
        ["renew"],
        ["list"],
        ["audit"],
        ["revoke", "session-1"],
        ["reset-key", "--yes"],
        ["exec", "--", "true"],
    ],
)
def test_every_other_command_says_that_the_agent_is_locked_and_how_to_unlock_it(agent, logged_in, args):
    agent.passphrase, agent.locked = b"secret", True
    ended = in_process(*args)
    assert (ended.code, ended.out) == (69, "")
    assert "locked" in ended.err
    assert ended.err.endswith("agentctl: unlock it with `agentctl unlock`\n")


def test_the_refusal_of_a_locked_agent_has_a_code_of_its_own(agent, logged_in):
    agent.passphrase, agent.locked = b"secret", True
    assert json.loads(in_process("verify", "--json").err)["error"]["code"] == "LOCKED"
