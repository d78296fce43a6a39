from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from agentd_client.errors import NoSuchRequestError, PassphraseError
from agentd_client.protocol.results import (
    APPROVED,
    ASK_SOCKET,
    DENIED,
    REQUEST_EXPIRED,
    REQUESTED,
    WAITING,
    Decision,
    Event,
    PeerIdentity,
    RequestInfo,
    RequestPage,
)
from tests.agentctl.fake_agent import FakeAgent
from tests.agentctl.running import COMMAND
from tests.locking.stand_in import what_is_missing
from tests.prompt.desktop import Desktop, desktop, until

PATIENCE_SECONDS = 60.0


class Requests:
    """The part of the scripted agent that has requests: what waits, and what was decided, in order."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.waiting: dict[str, RequestInfo] = {}
        self.decided: queue.Queue[tuple[str, str, bytes | None]] = queue.Queue()
        self.opening = "free"
        self.passphrase: bytes | None = None
        agent.script |= {
            "listRequests": self._list,
            "decideRequest": self._decide,
            "getStatus": lambda params: agent._getStatus(params)._replace(opening=self.opening),
        }

    def ask(self, id: str = "k7m2qd", **given: Any) -> RequestInfo:
        """Let a request wait."""
        now = time.time()
        made = RequestInfo(
            id=id,
            state=WAITING,
            asked_at=now,
            until=now + 300,
            asker=PeerIdentity(os.getuid(), 4712, "/usr/bin/git"),
            sandbox=[],
            socket=ASK_SOCKET,
            program="git",
            label="",
            reason="push the release",
            audience=None,
            scopes=["deploy"],
            expiry=600,
            max_uses=None,
            bound=False,
        )._replace(**given)
        self.waiting[id] = made
        self.tell(REQUESTED, id)
        return made

    def end(self, id: str, kind: str = REQUEST_EXPIRED) -> None:
        """Let a request end otherwise."""
        del self.waiting[id]
        self.tell(kind, id)

    def tell(self, kind: str, id: str) -> None:
        self.agent.tell(Event(kind, time.time(), None, "", None, None, 0, id))

    def decision(self) -> tuple[str, str, bytes | None]:
        """The next decision that arrives."""
        return self.decided.get(timeout=PATIENCE_SECONDS)

    def _list(self, params: dict[str, Any]) -> RequestPage:
        found = list(self.waiting.values())
        begin = int(params.get("after") or 0)
        return RequestPage(found[begin : begin + 12], str(begin + 12) if found[begin + 12 :] else None)

    def _decide(self, params: dict[str, Any]) -> Decision:
        id, decision, passphrase = params["id"], params["decision"], params.get("passphrase")
        if id not in self.waiting:
            raise NoSuchRequestError("no such request")
        self.decided.put((id, decision, passphrase))
        if decision == "approve" and self.opening == "passphrase" and passphrase != self.passphrase:
            raise PassphraseError("that is not the passphrase of the key file")
        self.end(id, APPROVED if decision == "approve" else DENIED)
        return Decision(id)


class Prompt:
    """`agentctl prompt`, running."""

    def __init__(self, child: subprocess.Popen[str], log: Path) -> None:
        self._child = child
        self._log = log

    def said(self) -> str:
        return self._log.read_text()

    def wait_until_said(self, text: str) -> None:
        until(lambda: text in self.said() or self._child.poll() is not None)
        assert text in self.said()

    def ended(self) -> int:
        """How it ended by itself."""
        return self._child.wait(PATIENCE_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self._child.send_signal(number)
        return self._child.wait(PATIENCE_SECONDS)


@pytest.fixture
def folder(monkeypatch):
    """A scratch runtime folder, with a short path, and a clean environment."""
    with tempfile.TemporaryDirectory(prefix="prompt-") as name:
        for variable in [
            variable for variable in os.environ if variable.startswith(("AGENTD_", "SSH_ASKPASS"))
        ]:
            monkeypatch.delenv(variable)
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setenv("HOME", name)
        (Path(name) / "agentd").mkdir(mode=0o700)
        yield Path(name) / "agentd"


@pytest.fixture
def agent(folder):
    with FakeAgent(folder / "agent.sock") as agent:
        yield agent


@pytest.fixture
def requests(agent):
    return Requests(agent)


@pytest.fixture(scope="session")
def missing():
    return what_is_missing()


@pytest.fixture
def screen(missing, folder, monkeypatch) -> Desktop:
    """A session bus without a notification server."""
    if missing is not None:
        pytest.skip(missing)
    with desktop() as made:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", made.address)
        yield made


@pytest.fixture
def notifying(screen) -> Desktop:
    """A session bus with a notification server that has buttons."""
    screen.start_server()
    return screen


@pytest.fixture
def started(folder):
    """Starts `agentctl prompt` with arguments, away from any terminal."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environ: str) -> Prompt:
        log = folder / f"prompt-{len(children)}.log"
        with log.open("w") as stderr:
            child = subprocess.Popen(
                [*COMMAND, "prompt", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | environ,
                start_new_session=True,
                text=True,
            )
        children.append(child)
        return Prompt(child, log)

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


@pytest.fixture
def without_pinentry(folder, monkeypatch):
    """A PATH without pinentry, but with what scripts need."""
    programs = folder / "bin"
    programs.mkdir()
    for program in ("sh", "sleep", "cat"):
        (programs / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(programs))
    return programs
