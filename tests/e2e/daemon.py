"""The real daemon as a process of its own, over a real socket, in a scratch home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agentd_client import Client

START_SECONDS = 30.0


class Home:
    """A scratch HOME: a short path, because a socket's path has at most 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.runtime = folder / "run"
        self.state = folder / "state" / "agentd"
        self.socket = self.runtime / "agentd" / "agent.sock"
        self.token_file = self.runtime / "agentd" / "session-token"
        self.runtime.mkdir(mode=0o700)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "AGENTD_"))}
        return kept | {
            "HOME": str(self.path),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.path / "state"),
            "XDG_CONFIG_HOME": str(self.path / "config"),
        }

    def run(
        self, module: str, *args: str, input: str | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *args],
            env=self.environ | environ,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def agentctl(self, *args: str, input: str | None = None, **environ: str):
        return self.run("agentd_client.cli", *args, input=input, **environ)

    def agentd(self, *args: str, **environ: str):
        return self.run("agentd", *args, **environ)

    def start(self, *args: str, environ: Mapping[str, str] | None = None) -> Daemon:
        return Daemon(self, args, environ or {})


class Daemon:
    """`agentd serve`, started; `ready` waits until it answers."""

    def __init__(self, home: Home, args: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self.home = home
        self.log = home.path / "agentd.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agentd", "serve", *args],
                env=home.environ | dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def client(self, timeout: float = START_SECONDS) -> Client:
        return Client.connect(str(self.home.socket), timeout=timeout)

    def ready(self) -> Daemon:
        with self.client() as agent:
            agent.hello()
        return self

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)

    def stop(self) -> int:
        return self.signal(signal.SIGTERM)


@contextmanager
def scratch_home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="agentd-") as folder:
        yield Home(Path(folder))


@contextmanager
def serving(home: Home, *args: str, environ: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    daemon = home.start(*args, environ=environ)
    try:
        yield daemon.ready()
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
