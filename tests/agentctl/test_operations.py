"""Which methods each command asks for: all that there are, by some command, and by those that look none that does."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from agentd_client.cli.group import COMMANDS
from tests.agentctl.running import COMMAND, in_process, without_coverage
from tests.operations import EVERY, READ_ONLY_METHODS

LOOKS = {
    "status": ["status"],
    "token": ["token"],
    "inspect": ["inspect"],
    "requests": ["requests"],
    "list": ["list"],
    "watch": ["watch"],
    "audit": ["audit"],
    "completion": ["completion", "bash"],
}
DOES = {
    "login": ["login"],
    "logout": ["logout"],
    "verify": ["verify"],
    "renew": ["renew"],
    "exec": ["exec", "--", "true"],
    "request": ["request"],
    "approve": ["approve", "first", "--yes"],
    "deny": ["deny", "second"],
    "revoke": ["revoke", "session-1"],
    "reset-key": ["reset-key", "--yes"],
    "passwd": ["passwd", "--new-passphrase-file"],
    "lock": ["lock"],
    "unlock": ["unlock", "--passphrase-file"],
}
SERVES = {"http", "prompt"}
"""Ask on behalf of others, for as long as they run."""

CONVERSES = {"top"}
"""Looks, until a key says otherwise: tests/agentctl/top."""

REVOKE_MANY = ["revoke", "--label", "x*", "--yes"]


def asked_by(agent, args):
    """The methods that a command asks for."""
    if args[0] == "request":  # nobody answers
        with subprocess.Popen(
            [*COMMAND, *args], env=without_coverage(), stderr=subprocess.PIPE, text=True
        ) as child:
            assert "waiting for approval" in child.stderr.readline()
            child.send_signal(signal.SIGINT)
            child.wait(60)
    elif args[0] in ("exec", "watch"):  # the one becomes another program, the other waits for its agent's end
        with subprocess.Popen([*COMMAND, *args], env=os.environ, stdout=subprocess.DEVNULL) as child:
            if args[0] == "watch":
                assert agent.subscribed.wait(60)
                agent.hang_up()
            child.wait(60)
    else:
        ended = in_process(*args)
        assert ended.code == 0, (args, ended)
    return set(agent.methods)


def test_every_command_is_known_to_look_or_to_do_something():
    assert set(COMMANDS) == set(LOOKS) | set(DOES) | SERVES | CONVERSES


@pytest.mark.parametrize("name", LOOKS)
def test_a_command_that_looks_asks_for_nothing_that_does_something(agent, logged_in, token_file, name):
    before = token_file.read_text(), token_file.stat()
    assert asked_by(agent, LOOKS[name]) <= READ_ONLY_METHODS
    assert (token_file.read_text(), token_file.stat().st_ino) == (before[0], before[1].st_ino)


def test_every_method_is_asked_for_by_some_command(agent, logged_in, folder):
    agent.open(label="x1")
    agent.ask("first")
    agent.ask("second")
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    one_by_one = ("verify", "exec", "renew", "revoke", "login", "request", "approve", "deny", "reset-key")
    one_by_one += ("passwd", "lock", "unlock")
    for args in [*LOOKS.values(), REVOKE_MANY, *(DOES[name] for name in one_by_one)]:
        asked_by(agent, [*args, str(secret)] if args[-1].endswith("-file") else args)
    assert set(agent.methods) == EVERY - {"hello"}  # which is for those who do not know the agent
