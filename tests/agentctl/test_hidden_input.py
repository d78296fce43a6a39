"""A question whose answer is not shown, ended by signals: on a real terminal, which must show what comes next."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from agentd_client.cli import terminal
from agentd_client.errors import InvalidTokenError
from tests.agentctl.running import COMMAND, without_coverage
from tests.e2e.daemon import scratch_home

PASSPHRASE, TOKEN = b"New passphrase of agentd: ", b"Token: "
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
LOCAL_MODES = 3


class Asked:
    """A command with a controlling terminal, up to its question."""

    def __init__(self, folder: Path, question: bytes, *command: str, **environ: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.shown = b""
        self.child = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=without_coverage() | environ,
            cwd=folder,
        )
        self.wait_for(question)

    def wait_for(self, text: bytes) -> None:
        """Read until it was shown, and forget what came so far."""
        while text not in self.shown:
            self.shown += os.read(self.ours, 4096)
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    @property
    def is_shown(self) -> bool:
        return bool(termios.tcgetattr(self.theirs)[LOCAL_MODES] & termios.ECHO)

    def show(self) -> None:
        modes = termios.tcgetattr(self.theirs)
        modes[LOCAL_MODES] |= termios.ECHO
        termios.tcsetattr(self.theirs, termios.TCSANOW, modes)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def asked(tmp_path):
    with contextlib.ExitStack() as opened:

        def ask(question, *command, **environ):
            made = Asked(tmp_path, question, *command, **environ)
            opened.callback(made.close)
            return made

        yield ask


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize(
    ("question", "arguments"), [(PASSPHRASE, ["passwd"]), (TOKEN, ["verify", "-"])], ids=["passwd", "verify"]
)
def test_a_signal_that_ends_it_turns_the_echo_on_and_is_what_ended_it(
    agent, asked, number, question, arguments
):
    running = asked(question, *COMMAND, *arguments)
    assert not running.is_shown
    running.type(b"half a secr")
    running.child.send_signal(number)
    assert running.child.wait(60) == -number
    assert running.is_shown
    assert agent.methods in ([], ["getStatus"])


def test_a_terminal_that_was_stopped_does_not_keep_it_from_ending(agent, asked):
    running = asked(PASSPHRASE, *COMMAND, "passwd")
    termios.tcflow(running.theirs, termios.TCOOFF)
    running.child.send_signal(signal.SIGTERM)
    assert running.child.wait(60) == -signal.SIGTERM
    assert running.is_shown


def test_after_a_stop_that_nobody_can_catch_it_hides_and_asks_again(agent, asked):
    running = asked(PASSPHRASE, *COMMAND, "passwd")
    running.child.send_signal(signal.SIGSTOP)
    os.waitpid(running.child.pid, os.WUNTRACED)
    running.show()  # as a shell does
    running.child.send_signal(signal.SIGCONT)
    running.wait_for(PASSPHRASE)
    assert not running.is_shown
    running.type(b"\x04")
    assert running.child.wait(60) == 130
    assert running.is_shown


def test_ctrl_z_gives_the_shell_a_terminal_that_shows_and_fg_asks_again(agent, asked):
    command = shlex.join([*COMMAND, "passwd"])
    running = asked(PASSPHRASE, "sh", "-c", f"set -m; {command}; stty -a | tr ';' '\\n'; echo stopped; fg")
    running.type(b"half a secr\x1a")
    running.wait_for(b" echo ")
    running.wait_for(b"stopped")
    running.wait_for(PASSPHRASE)
    assert not running.is_shown
    running.type(b"\x04")
    assert running.child.wait(60) == 130
    assert running.is_shown


def test_a_signal_that_was_ignored_from_the_start_stays_so(agent, asked):
    running = asked(PASSPHRASE, "nohup", *COMMAND, "passwd")
    running.child.send_signal(signal.SIGHUP)
    running.type(b"\x04")
    assert running.child.wait(60) == 130


def test_a_signal_that_interrupts_no_read_ends_it_as_well():
    """As one that comes just before the read does: here another thread gets it from the kernel."""
    ours, theirs = pty.openpty()
    ended = threading.Event()
    was_stuck = []

    def interrupt():
        os.read(ours, 100)  # the question
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if not ended.wait(10):
            was_stuck.append(True)
            os.write(ours, b"\n")

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        terminal.read_hidden(theirs, "Token: ", 100, InvalidTokenError())
    ended.set()
    thread.join()
    os.close(ours)
    os.close(theirs)
    assert not was_stuck


def test_agentd_init_asks_on_the_terminal_too(asked):
    with scratch_home() as home:
        command = [sys.executable, "-m", "agentd", "init", "--passphrase"]
        running = asked(PASSPHRASE, *command, **home.environ)
        assert not running.is_shown
        running.child.send_signal(signal.SIGTERM)
        assert running.child.wait(60) == -signal.SIGTERM
        assert running.is_shown
        assert not (home.state / "keys" / "root.key").exists()

        running = asked(PASSPHRASE, *command, **home.environ)
        running.type(b"hunter2\n")
        running.wait_for(b"again: ")
        running.type(b"hunter2\n")
        assert running.child.wait(60) == 0
        assert (home.state / "keys" / "root.key").exists()
