"""pinentry and askpass programs: what they are asked, which answers count, and how a dialogue ends."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys

import pytest

from agentd_client.protocol.results import APPROVED
from tests.agentctl.running import COMMAND
from tests.prompt.desktop import until

PINENTRY = """
import os, signal, sys, time
log = open({log!r}, "a")
def hang():
    print("pid", os.getpid(), file=log, flush=True)
    while True:
        signal.pause()
print("OK Pleased to meet you", flush=True)
for line in sys.stdin:
    log.write(line)
    log.flush()
    if line.startswith("CONFIRM"):
        {confirm}
    elif line.startswith("GETPIN"):
        {getpin}
    elif line.startswith("OPTION"):
        print("ERR 83886254 Unknown option <Pinentry>", flush=True)
    else:
        print("OK", flush=True)
"""
ASKPASS = """
import os, sys
with open({log!r}, "a") as log:
    log.write(os.environ.get("SSH_ASKPASS_PROMPT", "none") + "|" + sys.argv[1] + "|\\n")
{answer}
"""
HANGS = """
import signal
with open({log!r}, "a") as log:
    log.write(f"pid {os.getpid()}\\n")
while True:
    signal.pause()
"""

YES, NO, CLOSED, TIMEOUT = (
    f"print({answer!r}, flush=True)"
    for answer in (
        "OK",
        "ERR 83886194 Not confirmed <Pinentry>",
        "S BUTTON_INFO close\nERR 83886179 Operation cancelled <Pinentry>",
        "ERR 83886142 Timeout <Pinentry>",
    )
)


def script(path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def log(folder):
    path = folder / "asked.log"
    path.touch()
    return path


@pytest.fixture
def pinentry(folder, log, monkeypatch):
    """Makes `pinentry` a program that answers so."""
    programs = folder / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def make(confirm: str = YES, getpin: str = "print('D secret\\nOK', flush=True)") -> None:
        script(programs / "pinentry", PINENTRY.format(log=str(log), confirm=confirm, getpin=getpin))

    return make


@pytest.fixture
def askpass(folder, log, monkeypatch):
    """Names an askpass program that answers so."""

    def make(answer: str, variable: str = "SSH_ASKPASS") -> None:
        text = ASKPASS.format(log=str(log), answer=answer.replace("{log!r}", repr(str(log))))
        monkeypatch.setenv(variable, script(folder / "askpass", text))

    return make


def times(log, text: str) -> int:
    return log.read_text().count(text)


def hanging(log) -> int:
    """The pid of a program that hangs, once it does."""
    until(lambda: re.search(r"^pid \d+$", log.read_text(), re.MULTILINE))
    return int(re.findall(r"^pid (\d+)$", log.read_text(), re.MULTILINE)[-1])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- pinentry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "decision"), [(YES, "approve"), (NO, "deny")])
def test_a_button_of_pinentry_decides(requests, started, pinentry, log, answer, decision):
    pinentry(answer)
    requests.ask(reason="100% sure")
    started("--with", "pinentry")
    assert requests.decision() == ("k7m2qd", decision, None)
    told = [line for line in log.read_text().splitlines() if not line.startswith("OPTION")]
    description, timeout = told.pop(2), told.pop(1)
    assert description.startswith("SETDESC A program asks for a session.%0A%0Arequest: k7m2qd; user: ")
    assert 'says: "100%25 sure"%0A' in description
    assert told == [
        "SETTITLE agentd",
        "SETOK Approve",
        "SETNOTOK Deny",
        "SETCANCEL Not now",
        "CONFIRM",
    ]
    assert 200 < int(timeout.removeprefix("SETTIMEOUT ")) <= 300


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CLOSED, ""),
        (TIMEOUT, ""),
        ("raise SystemExit", "pinentry ended without an answer"),
        ("print('ERR 83918950 No terminal', flush=True)", "pinentry gave no answer: No terminal"),
        ("print('ERR', flush=True)", "pinentry gave no answer"),
        ("print('ERR 0 fine', flush=True)", "pinentry gave no answer: fine"),
        ("print('yes', flush=True); raise SystemExit", "pinentry ended without an answer"),
    ],
)
def test_a_dialogue_that_ends_otherwise_is_no_answer(requests, started, pinentry, log, answer, said):
    pinentry(answer)
    prompt = started("--with", "pinentry")
    requests.ask()
    until(lambda: times(log, "CONFIRM") == 1)
    # One after the other: it is over when the next one is asked about.
    requests.ask("x9x9x9")
    until(lambda: times(log, "CONFIRM") == 2)
    assert requests.decided.empty()
    if said:
        prompt.wait_until_said(f"request k7m2qd was not shown: {said}")
    assert prompt.stop() == 0
    assert times(log, "CONFIRM") == 2, "and it is asked once"


def test_a_pinentry_that_cannot_show_the_text_has_no_button_for_yes(requests, started, pinentry, folder, log):
    pinentry()
    program = folder / "programs" / "pinentry"
    program.write_text(program.read_text().replace('"OPTION"', '("OPTION", "SETDESC")'))
    prompt = started("--with", "pinentry")
    requests.ask()
    prompt.wait_until_said("request k7m2qd was not shown: pinentry cannot show it")
    assert times(log, "CONFIRM") == 0


def test_what_is_too_long_for_a_dialogue_is_not_asked_there(requests, started, pinentry, log):
    pinentry()
    prompt = started("--with", "pinentry")
    requests.ask(scopes=[f"a-scope-with-number-{number}" for number in range(50)])
    prompt.wait_until_said(
        "request k7m2qd was not shown: it is too long for a dialogue; `agentctl approve k7m2qd`"
    )
    assert times(log, "CONFIRM") == 0
    requests.ask("short1", reason="%" * 200, label="\N{PILE OF POO}" * 200)
    assert requests.decision() == ("short1", "approve", None)
    assert max(map(len, log.read_bytes().splitlines())) < 1000


@pytest.mark.parametrize("how", ["decided elsewhere", "signal"])
def test_a_dialogue_is_closed_with_its_request(requests, started, pinentry, log, how):
    pinentry("hang()")
    prompt = started("--with", "pinentry")
    requests.ask()
    pid = hanging(log)
    if how == "signal":
        assert prompt.stop() == 0
    else:
        requests.end("k7m2qd", APPROVED)
    until(lambda: is_gone(pid))
    assert requests.decided.empty()


def test_a_wrapper_of_pinentry_is_ended_with_what_it_started(requests, started, pinentry, folder, log):
    pinentry("hang()")
    program = folder / "programs" / "pinentry"
    program.rename(folder / "real-pinentry")
    program.write_text(f"#!/bin/sh\n{folder}/real-pinentry\nexit 0\n")
    program.chmod(0o700)
    started("--with", "pinentry")
    requests.ask()
    pid = hanging(log)
    requests.end("k7m2qd")
    until(lambda: is_gone(pid))


def test_without_pinentry_it_says_so(agent, started, without_pinentry):
    prompt = started("--with", "pinentry")
    prompt.wait_until_said("agentctl: pinentry is not installed")
    assert prompt.ended() == 78


@pytest.mark.parametrize(("key", "decision"), [(b"a", "approve"), (b"d", "deny")])
def test_a_real_pinentry_asks_on_a_terminal(requests, folder, key, decision, monkeypatch):
    real = shutil.which("pinentry-tty")
    if real is None:
        pytest.skip("pinentry-tty is not installed")
    (folder / "pinentry").symlink_to(real)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    requests.ask()
    ours, theirs = pty.openpty()
    with (
        subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, "prompt", "--with", "pinentry"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as child,
        open(ours, "r+b", buffering=0) as terminal,
    ):
        os.close(theirs)
        shown = b""
        while b"]? " not in shown:
            shown += terminal.read(4096)
        terminal.write(key)
        assert requests.decision() == ("k7m2qd", decision, None)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    for text in (
        b"A program asks for a session.",
        b"scopes: deploy;",
        b'says: "push the release"',
        b"ot now",
    ):
        assert text in shown


# --- askpass ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["AGENTD_ASKPASS", "SSH_ASKPASS"])
@pytest.mark.parametrize(
    ("answer", "decision"),
    [("", "approve"), ("print()", "approve"), ("print('Yes')", "approve"), ("sys.exit(1)", "deny"),
     ("print('yes'); sys.exit(1)", "deny")],
)  # fmt: skip
def test_the_exit_status_of_an_askpass_program_decides(
    requests, started, askpass, log, answer, decision, variable
):
    askpass(answer, variable)
    requests.ask()
    started("--with", "askpass")
    assert requests.decision() == ("k7m2qd", decision, None)
    assert log.read_text().startswith("confirm|A program asks for a session.\n\nrequest: k7m2qd; user: ")


@pytest.mark.parametrize(
    "answer",
    ["print('hunter2')", "print('no')", "print('yes' + 5000 * '!')", "sys.exit(2)", "sys.exit(127)",
     "os.kill(os.getpid(), 9)"],
)  # fmt: skip
def test_what_else_an_askpass_program_does_is_no_answer(requests, started, askpass, log, answer):
    askpass(answer)
    prompt = started("--with", "askpass")
    requests.ask()
    requests.ask("x9x9x9")
    until(lambda: times(log, "confirm|") == 2)
    requests.end("x9x9x9")
    prompt.stop()
    assert requests.decided.empty()
    assert "hunter2" not in prompt.said()


def test_an_askpass_program_is_ended_with_its_request(requests, started, askpass, log):
    askpass(HANGS)
    started("--with", "askpass")
    requests.ask()
    pid = hanging(log)
    requests.end("k7m2qd")
    until(lambda: is_gone(pid))


def test_an_askpass_program_that_cannot_be_started_is_named(requests, started):
    prompt = started("--with", "askpass", SSH_ASKPASS="/nonexistent")
    requests.ask()
    prompt.wait_until_said("request k7m2qd was not shown: /nonexistent cannot be started: No such file")


def test_without_an_askpass_program_it_says_so(agent, started):
    prompt = started("--with", "askpass")
    prompt.wait_until_said("no askpass program: set AGENTD_ASKPASS or SSH_ASKPASS")
    assert prompt.ended() == 78


# --- where approving takes the passphrase ---------------------------------------------------------------


@pytest.fixture
def guarded(requests):
    """An agent at which approving takes the passphrase "secret"."""
    requests.opening, requests.passphrase = "passphrase", b"secret"
    return requests


def test_pinentry_asks_for_the_passphrase_after_approve_in_a_notification(
    guarded, notifying, started, pinentry, log
):
    pinentry()
    prompt = started()
    guarded.ask()
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    assert guarded.decision() == ("k7m2qd", "approve", b"secret")
    assert "SETDESC Passphrase of agentd, to approve request k7m2qd\n" in log.read_text()
    prompt.wait_until_said("request k7m2qd was approved here")
    assert "secret" not in prompt.said()


def test_denying_takes_none(guarded, notifying, started, pinentry, log):
    pinentry()
    started()
    guarded.ask()
    notifying.press(notifying.wait_for(1)[0].id, "deny")
    assert guarded.decision() == ("k7m2qd", "deny", None)
    assert times(log, "GETPIN") == 0


def test_pinentry_asks_again_after_a_wrong_one_and_gives_up(guarded, started, pinentry, log):
    pinentry(getpin="print('D hunter2\\nOK', flush=True)")
    prompt = started("--with", "pinentry")
    guarded.ask()
    assert [guarded.decision() for _ in range(3)] == [("k7m2qd", "approve", b"hunter2")] * 3
    prompt.wait_until_said("had no effect: that is not the passphrase of the key file")
    assert (times(log, "GETPIN"), times(log, "SETERROR")) == (3, 2)
    assert list(guarded.waiting) == ["k7m2qd"]


def test_a_passphrase_that_is_not_given_is_no_answer(guarded, started, pinentry, log):
    pinentry(getpin=CLOSED)
    prompt = started("--with", "pinentry")
    guarded.ask()
    guarded.ask("x9x9x9")
    until(lambda: times(log, "GETPIN") == 2)
    prompt.stop()
    assert guarded.decided.empty()
    assert prompt.said() == "agentctl: asking about requests for sessions\n"


def test_the_question_for_the_passphrase_ends_with_the_request(guarded, notifying, started, pinentry, log):
    pinentry(getpin="hang()")
    started()
    guarded.ask()
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    pid = hanging(log)
    guarded.end("k7m2qd")
    until(lambda: is_gone(pid))
    assert guarded.decided.empty()


def test_an_askpass_program_asks_for_it_where_there_is_no_pinentry(
    guarded, notifying, started, askpass, without_pinentry, log
):
    askpass("print('secret')")
    started()
    guarded.ask()
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    assert guarded.decision() == ("k7m2qd", "approve", b"secret")
    assert log.read_text() == "none|Passphrase of agentd, to approve request k7m2qd: |\n"


def test_without_either_a_notification_only_has_a_button_for_no(
    guarded, notifying, started, without_pinentry
):
    started()
    guarded.ask()
    (shown,) = notifying.wait_for(1)
    assert shown.actions == ["deny", "Deny"]
    assert "scopes: deploy" in shown.body
    assert shown.body.endswith("\nTo decide: agentctl approve k7m2qd")
    notifying.press(shown.id, "approve")
    notifying.press(shown.id, "deny")
    assert guarded.decision() == ("k7m2qd", "deny", None)
