"""The command around the view: what it needs, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time

import pytest

from agentd_client.protocol.results import Event
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import COMMAND, Terminal, in_process, process, without_coverage

PATIENCE_SECONDS = 60.0


class OnPty:
    """`agentctl top` on a terminal of 80 x 24: keys and signals in, bytes out."""

    def __init__(self, *args: str, **environ: str) -> None:
        self.ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.before = termios.tcgetattr(theirs)
        self.child = subprocess.Popen(
            [*COMMAND, "top", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=without_coverage() | environ,
            start_new_session=True,
        )
        self.theirs = theirs
        self.shown = b""

    def read(self) -> None:
        os.set_blocking(self.ours, False)
        try:
            self.shown += os.read(self.ours, 65536)
        except BlockingIOError:
            time.sleep(0.01)

    def sees(self, text: bytes) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            self.read()

    def ends(self) -> int:
        end = time.monotonic() + PATIENCE_SECONDS
        while self.child.poll() is None:
            assert time.monotonic() < end, self.shown
            self.read()
        self.read()
        return self.child.returncode

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.hang_up()

    def hang_up(self) -> None:
        for descriptor in (self.ours, self.theirs):
            if descriptor >= 0:
                os.close(descriptor)
        self.ours = self.theirs = -1


@pytest.fixture
def on_pty(agent):
    started = []

    def start(*args: str, **environ: str) -> OnPty:
        started.append(OnPty(*args, **environ))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_without_a_terminal_it_says_what_to_use_instead(agent):
    ended = process("top")
    assert ended.returncode == 64
    assert "top needs a terminal; `agentctl list` and `agentctl watch` work without" in ended.stderr


def test_it_prints_no_json(agent):
    ended = process("top", "--json")
    assert ended.returncode == 64
    assert "`agentctl list --json`" in ended.stderr


@pytest.fixture
def terminals(monkeypatch):
    """All three streams are terminals, for what `in_process` runs."""
    from agentd_client.cli.commands import top

    class Streams:
        stdin = stdout = stderr = Terminal()

    monkeypatch.setattr(top, "sys", Streams)


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_place_text_is_refused(agent, terminals, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    ended = in_process("top")
    assert ended.code == 78
    assert "`agentctl list` and `agentctl watch` work there" in ended.err


def test_without_the_extra_it_says_what_to_install(agent, terminals, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("textual", "agentd_client.tui"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    ended = in_process("top")
    assert ended.code == 78
    assert (
        "textual is missing, or too old: install agentd-client or agentd-daemon with the extra tui"
        in ended.err
    )


def test_without_an_agent_it_says_so_before_the_screen_changes(folder, terminals):
    ended = in_process("--timeout", "0.01", "top")
    assert (ended.code, ended.out) == (69, "")
    assert "no agent answers" in ended.err


def test_no_other_command_imports_textual(agent, logged_in):
    program = (
        "import sys; from agentd_client.cli.run import run\n"
        "for command in (['verify'], ['list'], ['--help'], ['top', '--help']): run(command)\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('textual', 'rich', 'asyncio')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x11"])
def test_a_key_ends_it_and_the_terminal_is_as_before(agent, on_pty, key):
    agent.open(label="desk")
    top = on_pty()
    top.sees(b"desk")
    os.write(top.ours, key)
    assert top.ends() == 0
    assert termios.tcgetattr(top.theirs) == top.before
    assert top.shown.rindex(b"\x1b[?1049l") > top.shown.rindex(b"desk"), "the other screen is back"
    assert b"\x1b[?25h" in top.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_other_programs_and_restores_the_terminal(agent, on_pty, number):
    agent.open(label="desk")
    top = on_pty()
    top.sees(b"desk")
    top.child.send_signal(number)
    assert top.ends() == -number
    assert termios.tcgetattr(top.theirs) == top.before
    assert b"\x1b[?1049l" in top.shown


@pytest.mark.parametrize("told", [False, True])
def test_it_ends_when_its_terminal_goes(agent, on_pty, told):
    agent.open(label="desk")
    top = on_pty()
    top.sees(b"desk")
    # So many changes that the thread that writes fails with more to be written.
    agent.tell(
        *(Event("created", NOW, "session-1", f"label {number}", None, number) for number in range(200))
    )
    top.hang_up()
    if told:
        top.child.send_signal(signal.SIGHUP)
    assert top.child.wait(PATIENCE_SECONDS) in (-signal.SIGHUP, 128 + signal.SIGHUP)


def test_sigint_ends_it_too(agent, on_pty):
    agent.open(label="desk")
    top = on_pty()
    top.sees(b"desk")
    top.child.send_signal(signal.SIGINT)
    assert top.ends() == 0
    assert termios.tcgetattr(top.theirs) == top.before


def test_without_colours_there_are_none(agent, on_pty):
    agent.open(label="desk", expiry=30)
    top = on_pty(NO_COLOR="1")
    top.sees(b"desk")
    os.write(top.ours, b"q")
    top.ends()
    assert not [colour for colour in range(30, 38) if b"[%dm" % colour in top.shown]
    assert b"[7m" in top.shown or b"[7;" in top.shown or b";7m" in top.shown, "the cursor is still to be seen"


def test_sixteen_colours_are_enough(agent, on_pty):
    agent.open(label="desk", expiry=30)
    top = on_pty(TERM="xterm-256color", COLORTERM="truecolor")
    top.sees(b"desk")
    os.write(top.ours, b"q")
    top.ends()
    assert b"38;2;" not in top.shown
    assert b"48;2;" not in top.shown
    assert b"38;5;" not in top.shown


def test_switches_of_textual_for_developers_have_no_effect(agent, on_pty, tmp_path):
    log = tmp_path / "log"
    top = on_pty(TEXTUAL_LOG=str(log), TEXTUAL="debug,devtools", TEXTUAL_DRIVER="no_such_module:Driver")
    top.sees(b"0 sessions")
    os.write(top.ours, b"q")
    assert top.ends() == 0
    assert not log.exists()
