"""`agentctl passwd`: the first passphrase, another one, and none."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from agentd_client.errors import AgentLockedError, OutcomeUnknownError
from tests.agentctl.running import in_conversation, in_process, on_terminal, process

PRESENT, NEW, AGAIN = b"Present passphrase of agentd: ", b"New passphrase of agentd: ", b"again: "


def private(path, content: str):
    path.write_text(content)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def old(folder):
    return private(folder / "old", "old\n")


@pytest.fixture
def new(folder):
    return private(folder / "new", "new\n")


def test_the_first_one_is_asked_for_twice(agent):
    ended = in_conversation("passwd", answers=[(NEW, b"first\n"), (AGAIN, b"first\n")])
    assert ended == (
        0,
        "New passphrase of agentd: \nThe new passphrase again: \n"
        "the key file now has a passphrase; `agentctl lock` locks the agent\n",
    )
    assert agent.calls[-1] == ("changePassphrase", {"new": b"first"})


def test_the_present_one_is_asked_for_where_there_is_one(agent):
    agent.passphrase = b"old"
    ended = in_conversation("passwd", answers=[(PRESENT, b"old\n"), (NEW, b"new\n"), (AGAIN, b"new\n")])
    assert ended.code == 0
    assert ended.shown.endswith("the key file's passphrase was changed\n")
    assert agent.calls[-1] == ("changePassphrase", {"old": b"old", "new": b"new"})


def test_only_what_was_wrong_is_asked_for_again(agent):
    agent.passphrase = b"old"
    ended = in_conversation(
        "passwd",
        answers=[
            (PRESENT, b"wrong\n"),
            (NEW, b"new\n"),
            (AGAIN, b"mew\n"),
            (b"the two passphrases differ", b""),
            (NEW, b"\n"),
            (b"an empty passphrase protects nothing", b""),
            (NEW, b"new\n"),
            (AGAIN, b"new\n"),
            (b"that is not the passphrase of the key file", b""),
            (PRESENT, b"old\n"),
        ],
    )
    assert ended.code == 0
    assert agent.passphrase == b"new"
    assert agent.methods == ["getStatus", "changePassphrase", "changePassphrase"]


def test_after_three_new_ones_that_are_none_nothing_is_changed(agent):
    ended = in_conversation("passwd", answers=[(NEW, b"\n")] * 3)
    assert ended.code == 77
    assert ended.shown.endswith(
        "agentctl: an empty passphrase protects nothing; give one of 1 to 1024 bytes\n"
    )
    assert agent.methods == ["getStatus"]


def test_a_locked_agent_stays_locked(agent, old, new):
    agent.passphrase, agent.locked = b"old", True
    ended = in_process("passwd", "--passphrase-file", old, "--new-passphrase-file", new)
    assert (ended.code, ended.out) == (0, "protected\ttrue\n")
    assert agent.locked
    assert agent.passphrase == b"new"


def test_from_descriptors(agent):
    agent.passphrase = b"old"
    ours, theirs = os.pipe()
    os.write(theirs, b"new")
    os.close(theirs)
    ended = process(
        "passwd", "--passphrase-fd", "0", "--new-passphrase-fd", str(ours), stdin="old\n", pass_fds=[ours]
    )
    os.close(ours)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert agent.calls[-1] == ("changePassphrase", {"old": b"old", "new": b"new"})


def test_a_wrong_one_changes_nothing(agent, old, new):
    agent.passphrase = b"other"
    ended = in_process("passwd", "--passphrase-file", old, "--new-passphrase-file", new)
    assert ended == (77, "", "agentctl: that is not the passphrase of the key file\n")
    assert agent.passphrase == b"other"


def test_remove_asks_whether_that_is_meant(agent, folder, old):
    agent.passphrase = b"old"
    args = ["passwd", "--remove", "--passphrase-file", old]
    ended = on_terminal(*args, asked=b"[y/N]: ", typed=b"n\n")
    assert ended.code == 1
    assert "anybody who reads the key file can make tokens" in ended.shown
    assert "nothing was changed" in ended.shown
    assert agent.passphrase == b"old"
    ended = on_terminal(*args, asked=b"[y/N]: ", typed=b"y\n")
    assert ended.code == 0
    assert ended.shown.endswith("the passphrase was removed from the key file\n")
    assert agent.calls[-1] == ("changePassphrase", {"old": b"old"})


def test_remove_without_a_terminal_needs_yes(agent, old):
    agent.passphrase = b"old"
    refused = in_process("passwd", "--remove", "--passphrase-file", old)
    assert refused.code == 64
    assert "--yes" in refused.err
    ended = in_process("passwd", "--remove", "--yes", "--json", "--passphrase-file", old)
    assert (ended.code, json.loads(ended.out)) == (0, {"protected": False})
    assert agent.passphrase is None


def test_where_there_is_none_to_remove_the_answer_is_no(agent):
    ended = in_process("passwd", "--remove", "--yes")
    assert (ended.code, ended.out) == (1, "")
    assert "the key file has no passphrase" in ended.err
    assert agent.methods == ["getStatus"]


def test_what_is_not_needed_is_not_read(agent, new):
    ended = in_process("passwd", "--passphrase-file", "/nonexistent", "--new-passphrase-file", new)
    assert ended.code == 0
    assert agent.calls[-1] == ("changePassphrase", {"new": b"new"})


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--passphrase-fd", "0", "--new-passphrase-fd", "0"], "a descriptor is read"),
        (["--remove", "--new-passphrase-file", "f"], "cannot be combined"),
        (["--new-passphrase-fd", "0", "--new-passphrase-file", "f"], "cannot be combined"),
        (["--passphrase-fd", "0", "--passphrase-file", "f"], "cannot be combined"),
        (["--askpass", "p", "--pinentry"], "cannot be combined"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_asked(agent, args, reason):
    ended = in_process("passwd", *args)
    assert ended.code == 64
    assert reason in ended.err
    assert agent.calls == []


def test_a_passphrase_that_was_set_meanwhile_is_missed(agent, new):
    agent.refuse("changePassphrase", AgentLockedError("the key file is locked with a passphrase"))
    ended = in_process("passwd", "--new-passphrase-file", new)
    assert ended.code == 69
    assert "agentctl: the key file is locked with a passphrase\n" in ended.err


def test_both_are_wiped_whatever_became_of_them(agent, old, new, monkeypatch):
    agent.passphrase = b"old"
    kept = []

    def change(self, given_old, given_new):
        kept.extend([given_old, given_new])
        assert (given_old, given_new) == (b"old", b"new")
        raise OutcomeUnknownError

    monkeypatch.setattr("agentd_client.blocking.Client.change_passphrase", change)
    assert in_process("passwd", "--passphrase-file", old, "--new-passphrase-file", new).code == 75
    assert kept == [bytes(3), bytes(3)]


def test_what_was_not_handed_over_the_program_asks_for(agent, folder, old):
    agent.passphrase = b"old"
    (folder / "ask").write_text("#!/bin/sh\necho new\n")
    (folder / "ask").chmod(0o700)
    ended = in_process("passwd", "--passphrase-file", old, "--askpass", str(folder / "ask"))
    assert ended.code == 0
    assert agent.calls[-1] == ("changePassphrase", {"old": b"old", "new": b"new"})


@pytest.mark.parametrize("args", [["verify"], ["lock"], ["unlock"], ["passwd", "--help"], ["--help"]])
def test_its_imports_are_made_when_there_is_something_to_ask(agent, args):
    program = (
        f"import sys; from agentd_client.cli.run import run; run({args!r})\n"
        "print([name for name in sys.modules if name in ('subprocess', 'termios') or name.endswith('cli.passphrase')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines()[-1] == "[]"
