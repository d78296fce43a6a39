"""`agentctl top` on a real terminal (tmux), with the real agent and programs that ask it for sessions."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tests.e2e.daemon import Home, serving
from tests.e2e.locked import PASSPHRASE, passphrase_file, protect

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SIZES = [(120, 40), (80, 24), (40, 12)]
PATIENCE_SECONDS = 60.0
ASK = (
    "import json, sys; from agentd_client import Client\n"
    "with Client.connect() as agent:\n"
    "    granted = agent.request_token(600, 'push', scopes=['deploy', 'read'], reason='release 1.2')\n"
    "    print(json.dumps([granted.token, granted.id, granted.scopes]), flush=True)\n"
)


class Terminal:
    """A terminal that runs `agentctl top` and nothing else: keys in, text out."""

    def __init__(self, home: Home, width: int, height: int) -> None:
        self._tmux = ["tmux", "-S", str(home.path / "tmux"), "-f", "/dev/null"]
        self._home = home
        command = shlex.join([sys.executable, "-m", "agentd_client.cli", "top"])
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), f"{command}; echo ended $?; cat")

    def keys(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def text(self) -> str:
        return self._run("capture-pane", "-p")

    def sees(self, *texts: str) -> str:
        """Wait until these are on the screen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not all(text in (seen := self.text) for text in texts):
            assert time.monotonic() < end, f"{texts} never came; on the screen is\n{seen}"
            time.sleep(0.02)
        return seen

    def misses(self, text: str) -> None:
        """Wait until this is no longer on the screen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while text in (seen := self.text):
            assert time.monotonic() < end, f"{text} never went; on the screen is\n{seen}"
            time.sleep(0.02)

    def presses_until(self, key: str, text: str) -> None:
        """Press a key again and again, until this is on the screen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in (seen := self.text):
            assert time.monotonic() < end, f"{text} never came; on the screen is\n{seen}"
            self.keys(key)
            time.sleep(0.1)

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        environ = self._home.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*self._tmux, *arguments], env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout


@pytest.fixture
def terminal(home):
    opened = []

    def start(size: tuple[int, int] = (80, 24)) -> Terminal:
        opened.append(Terminal(home, *size))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def asking(home):
    """Starts a program that asks for a session."""
    started = []

    def start() -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", ASK],
            env=home.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("size", SIZES)
def test_a_request_is_approved_and_its_session_revoked(daemon, terminal, asking, size):
    top = terminal(size)
    top.sees("0 sessions")
    asker = asking()
    top.sees("ASKS", f"> {asker.pid} ", "deploy, read")
    top.keys("a")
    top.sees("Approve this request?")
    top.presses_until("y", "approved: session")
    token, session_id, scopes = json.loads(asker.stdout.readline())
    assert scopes == ["deploy", "read"]
    with daemon.client() as agent:
        assert agent.verify_token(token, scopes=["deploy"])
        top.sees("> push", "1 session")
        top.keys("r")
        top.sees("Revoke?", session_id)
        top.presses_until("y", "revoked")
        top.sees("0 sessions")
        assert not agent.verify_token(token)
    top.keys("q")
    top.sees("ended 0")


def test_less_is_granted(daemon, terminal, asking):
    top = terminal()
    top.sees("0 sessions")
    asker = asking()
    top.sees(f"> {asker.pid} ")
    top.keys("n")
    top.sees("[x] deploy", "[x] read")
    top.keys("Space", "Tab", "Tab")
    top.type("5m")
    top.keys("Tab")
    top.type("2")
    top.keys("Enter")
    top.sees("Approve LESS", "scopes read", "for 5 min", "2 uses")
    top.presses_until("y", "approved: session")
    token, _, scopes = json.loads(asker.stdout.readline())
    assert scopes == ["read"]
    with daemon.client() as agent:
        assert not agent.verify_token(token, scopes=["deploy"])
        assert [agent.verify_token(token, scopes=["read"]) for _ in range(3)] == [True, True, False]


def test_a_request_is_denied_or_ends_with_its_program(daemon, terminal, asking):
    top = terminal()
    top.sees("0 sessions")
    denied, killed = asking(), None
    top.sees(f"> {denied.pid} ")
    top.keys("d")
    top.sees("Deny this request?", "release 1.2")
    top.presses_until("y", "denied")
    assert denied.communicate(timeout=60)[0] == ""
    top.misses("ASKS")
    killed = asking()
    top.sees(f"> {killed.pid} ")
    top.keys("a")
    top.sees("Approve this request?")
    killed.kill()
    top.sees("the request has ended")
    top.keys("y")
    top.sees("0 sessions")


def test_looking_keeps_no_session_and_uses_none(daemon, terminal):
    with daemon.client() as agent:
        created = agent.create_token(expiry=600, label="desk", max_uses=3)
        before = agent.inspect_token(id=created.id).session
        top = terminal()
        top.sees("> desk")
        top.keys("i")
        top.sees("uses      3 left")
        top.keys("Escape", "Down", "Tab", "Tab", "Tab")
        top.sees("others' requests 0")
        assert agent.inspect_token(id=created.id).session == before


def test_an_agent_that_restarts_is_followed_again(home, terminal, asking):
    first = home.start().ready()
    with first.client() as agent:
        agent.create_token(label="desk")
    top = terminal()
    top.sees("> desk")
    first.stop()
    top.sees("NOT CONNECTED", "> desk")
    second = home.start().ready()
    try:
        top.sees("1 session", "> desk")
        asker = asking()
        top.sees(f"> {asker.pid} ")
    finally:
        second.stop()


def test_a_locked_agent_is_shown_so_and_opening_by_passphrase_asks_for_it(home, terminal, asking):
    protect(home)
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('opening = "passphrase"\n')
    with serving(home):
        top = terminal()
        top.sees("LOCKED; `agentctl unlock`")
        home.agentctl("unlock", "--passphrase-file", passphrase_file(home))
        top.sees("opening: passphrase")
        asker = asking()
        top.sees(f"> {asker.pid} ")
        top.keys("a")
        top.sees("Approve this request?")
        top.presses_until("y", "Passphrase of agentd")
        top.keys("C-u")
        top.type("wrong")
        top.sees("> *****_")
        top.keys("Enter")
        top.sees("that is not the passphrase", "> _")
        top.type(PASSPHRASE)
        top.keys("Enter")
        top.sees("approved: session")
        assert json.loads(asker.stdout.readline())[2] == ["deploy", "read"]
        top.sees("> push", "1 session")
        top.keys("L")
        top.sees("Lock the agent?")
        top.presses_until("y", "LOCKED; `agentctl unlock`")
        assert "horse" not in top.text


def test_every_size_of_the_terminal_is_survived(daemon, terminal):
    with daemon.client() as agent:
        for number in range(30):
            agent.create_token(label=f"job {number}")
    top = terminal()
    top.sees("> job 29")
    for size in ((120, 40), (40, 12), (20, 5), (10, 3), (2, 2), (80, 24)):
        top.resize(*size)
    top.keys("End")
    top.sees("> job 0", "q quit")
