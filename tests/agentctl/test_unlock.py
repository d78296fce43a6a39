"""`agentctl unlock`: from where the passphrase may come, and from where never."""

from __future__ import annotations

import json
import os
import signal

import pytest

from agentd_client.errors import PassphraseError
from tests.agentctl.running import in_conversation, in_process, process

SECRET = "correct hörse"
QUESTION = b"Passphrase of agentd: "
WRONG = "that is not the passphrase of the key file"
WAITS = "; the agent waits a little before the next try"


@pytest.fixture
def locked(agent):
    agent.passphrase, agent.locked = SECRET.encode(), True
    return agent


@pytest.fixture
def passphrase_file(folder):
    path = folder / "passphrase"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_it_is_asked_for_on_the_terminal_and_not_shown(locked):
    ended = in_conversation("unlock", answers=[(QUESTION, SECRET.encode() + b"\n")])
    assert ended == (0, "Passphrase of agentd: \nunlocked\n")
    assert not locked.locked
    assert locked.methods == ["getStatus", "unlock"]


def test_a_wrong_one_is_asked_for_again_and_the_waiting_is_explained(locked):
    ended = in_conversation("unlock", answers=[(QUESTION, b"wrong\n"), (QUESTION, SECRET.encode() + b"\n")])
    assert ended == (0, f"Passphrase of agentd: \n{WRONG}{WAITS}\nPassphrase of agentd: \nunlocked\n")


def test_after_three_wrong_ones_it_ends(locked):
    ended = in_conversation("unlock", answers=[(QUESTION, b"wrong\n")] * 3)
    assert ended.code == 77
    assert ended.shown.endswith(f"Passphrase of agentd: \nagentctl: {WRONG}\n")
    assert locked.methods == ["getStatus", *["unlock"] * 3]


def test_what_cannot_be_a_passphrase_is_not_sent_and_nobody_waits(locked):
    ended = in_conversation("unlock", answers=[(QUESTION, b"\n"), (QUESTION, b"x" * 1500 + b"\n")])
    assert ended.code == 77
    assert "an empty passphrase protects nothing; give one of 1 to 1024 bytes\n" in ended.shown
    assert "you wait" not in ended.shown
    assert ended.shown.endswith("agentctl: a passphrase has at most 1024 bytes\n")
    assert locked.methods == ["getStatus"]


# The signal may come just before the read, which then would wait for good: the line that follows ends it.
@pytest.mark.parametrize(
    ("key", "code"), [(b"\x03\n", -signal.SIGINT), (b"\x04", 130)], ids=["Ctrl-C", "Ctrl-D"]
)
def test_giving_up_sends_nothing(locked, key, code):
    ended = in_conversation("unlock", answers=[(QUESTION, key)], **without_coverage_variables())
    assert ended.code == code
    assert locked.methods == ["getStatus"]


def without_coverage_variables() -> dict[str, str]:
    return {name: "" for name in os.environ if name.startswith("COVERAGE_")}


def test_after_ctrl_z_it_is_asked_again(locked):
    answers = [(QUESTION, SECRET[:3].encode() + b"\x1a"), (QUESTION, SECRET.encode() + b"\n")]
    ended = in_conversation("unlock", answers=answers)
    assert ended.code == 0
    assert locked.wrong_passphrases == 0


def test_what_was_typed_before_the_question_is_no_answer(locked):
    ended = in_conversation("unlock", answers=[(QUESTION, SECRET.encode() + b"\n")], early=b"too early\n")
    assert ended.code == 0
    assert locked.wrong_passphrases == 0


def test_nothing_is_asked_where_the_agent_is_not_locked(agent):
    assert in_process("unlock", terminal=True) == (0, "the agent is not locked\n", "")
    assert in_process("unlock", "--passphrase-file", "/nonexistent").out == "locked\tfalse\n"
    assert agent.methods == ["getStatus", "getStatus"]


def test_from_a_file_that_is_private(locked, passphrase_file):
    ended = in_process("unlock", "--json", "--passphrase-file", str(passphrase_file))
    assert (ended.code, json.loads(ended.out), ended.err) == (0, {"locked": False}, "")
    assert locked.calls[-1] == ("unlock", {"passphrase": SECRET.encode()})


def test_from_a_descriptor(locked):
    ours, theirs = os.pipe()
    os.write(theirs, SECRET.encode() + b"\n")
    os.close(theirs)
    ended = process("unlock", "--passphrase-fd", str(ours), pass_fds=[ours])
    os.close(ours)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "locked\tfalse\n", "")


def test_from_standard_input(locked):
    assert process("unlock", "--passphrase-fd", "0", stdin=SECRET).returncode == 0


def test_a_wrong_one_from_a_file_is_tried_once(locked, passphrase_file):
    passphrase_file.write_text("hunter2")
    ended = in_process("unlock", "--passphrase-file", str(passphrase_file))
    assert ended == (77, "", f"agentctl: {WRONG}\n")
    assert locked.methods == ["getStatus", "unlock"]
    failed = in_process("unlock", "--json", "--passphrase-file", str(passphrase_file))
    assert json.loads(failed.err)["error"]["code"] == "PASSPHRASE"


def test_without_a_terminal_it_says_what_there_is_instead(locked):
    ended = process("unlock", start_new_session=True)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "there is no terminal to ask on" in ended.stderr
    assert "--askpass or AGENTD_ASKPASS" in ended.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["hunter2"],
        ["hunter2", "hunter2"],
        ["--", "hunter2"],
        ["--passphrase", "hunter2"],
        ["--passphrase=hunter2"],
        ["--passphrase-fd", "hunter2"],
        ["--passphrase-fd=hunter2"],
        ["--passphrase-fd", "-1"],
        ["--passphrase-fd", ""],
        ["--passphrase-file", ""],
        ["--askpass", ""],
    ],
)
@pytest.mark.parametrize("name", ["unlock", "passwd"])
def test_a_passphrase_in_an_argument_is_refused_and_not_repeated(locked, name, args):
    ended = in_process(name, *args)
    assert (ended.code, ended.out) == (64, "")
    assert "hunter2" not in ended.err
    assert locked.calls == []


def test_an_argument_is_refused_with_the_reason(locked):
    assert "never taken from an argument" in in_process("unlock", "hunter2").err


@pytest.mark.parametrize(
    "args",
    [
        ["--passphrase-fd", "0", "--passphrase-file", "f"],
        ["--passphrase-file", "f", "--askpass", "p"],
        ["--askpass", "p", "--pinentry"],
    ],
)
def test_two_sources_of_one_passphrase_exclude_each_other(locked, args):
    ended = in_process("unlock", *args)
    assert ended.code == 64
    assert "cannot be combined" in ended.err
    assert locked.calls == []


@pytest.mark.parametrize(
    ("args", "seconds"), [([], 60.0), (["--timeout", "7"], 7.0), (["--timeout", "90"], 90.0)]
)
def test_the_agent_is_given_longer_than_for_other_calls(locked, passphrase_file, monkeypatch, args, seconds):
    given = []

    def unlock(self, passphrase):
        given.append(self.timeout)
        raise PassphraseError

    monkeypatch.setattr("agentd_client.blocking.Client.unlock", unlock)
    in_process("unlock", "--passphrase-file", str(passphrase_file), *args)
    assert given == [seconds]


def test_the_passphrase_is_wiped_once_it_was_sent(locked, passphrase_file, monkeypatch):
    kept = []

    def unlock(self, passphrase):
        kept.append((passphrase, bytes(passphrase)))
        raise PassphraseError

    monkeypatch.setattr("agentd_client.blocking.Client.unlock", unlock)
    in_process("unlock", "--passphrase-file", str(passphrase_file))
    ((wiped, sent),) = kept
    assert sent == SECRET.encode()
    assert wiped == bytes(len(sent))
