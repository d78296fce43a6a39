"""The agentd that is measured: the commands of one virtual environment, which need not be this checkout's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import load
from tests.bench.figures import Sample
from tests.bench.load import MILLISECONDS, Server
from tests.e2e.daemon import Home

READY_SECONDS = 60.0
PACKAGES = """
import agentd, agentd_client, os, site
# Debian's Python lists folders beside site-packages that a virtual environment does not have.
folders = filter(os.path.isdir, site.getsitepackages())
print(agentd.__path__[0], agentd_client.__path__[0], *folders, sep='\\n')
"""


def as_in_a_plain_shell() -> None:
    """Take Python's own settings out of the environment of all that is started from now on.

    PYTHONDONTWRITEBYTECODE would have every start compile every module; PYTHONPATH may lead elsewhere.
    """
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]


class Subject:
    """Started by its own commands, never imported here: `bin` is the folder of a virtual environment's."""

    def __init__(self, bin: Path) -> None:
        self.python, self.agentd, self.agentctl = (
            str(bin.absolute() / name) for name in ("python", "agentd", "agentctl")
        )

    def compile(self) -> bool:
        """Write the bytecode of agentd, agentd_client and what they use; whether all of it could be."""
        return not subprocess.run(
            [self.python, "-m", "compileall", "-q", *self._folders()], stdout=subprocess.DEVNULL, check=False
        ).returncode

    @property
    def commit(self) -> str:
        """Of the checkout that its agentd is in; empty where that is none."""
        described = subprocess.run(
            ["git", "-C", self._folders()[0], "describe", "--always", "--dirty", "--exclude", "*"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return described.stdout.strip()

    def _folders(self) -> list[str]:
        # -P: the working directory holds an agentd of its own.
        told = subprocess.run([self.python, "-P", "-c", PACKAGES], capture_output=True, text=True, check=True)
        return told.stdout.split("\n")[:-1]

    @contextmanager
    def serving(self, home: Home) -> Iterator[Server]:
        """Its agent, in a home of its own, answering."""
        process, server = self._start(home)
        try:
            yield server
        finally:
            process.terminate()
            process.wait()

    def start_to_ready(self, home: Home) -> Sample:
        """Milliseconds from exec to the first answer."""
        begun = time.perf_counter()
        process, server = self._start(home)
        seconds, processor = time.perf_counter() - begun, server.processor_seconds()
        process.terminate()
        process.wait()
        return Sample(seconds * MILLISECONDS, processor * MILLISECONDS)

    def _start(self, home: Home) -> tuple[subprocess.Popen[bytes], Server]:
        """Asked every millisecond, which the client library does not."""
        log = home.path / "agentd.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self.agentd, "serve"],
                env=home.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        given_up = time.monotonic() + READY_SECONDS
        while True:
            try:
                load.one_client(str(home.socket), [load.request(1, "hello", {})])
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > given_up:
                    process.kill()
                    raise RuntimeError(f"the agent did not start:\n{log.read_text()}") from None
                time.sleep(0.001)
            else:
                return process, Server(process.pid, str(home.socket))


def run(*command: str, environ: dict[str, str] | None = None) -> Sample:
    """Milliseconds from starting a command to its end, and its processor time."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return Sample(seconds * MILLISECONDS, (usage.ru_utime + usage.ru_stime) * MILLISECONDS)
