"""What README.md shows: its server, its commands in order, and what they print on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.daemon import serving

from . import recipes
from .proxies import needs
from .serving import PATH, started

README = (recipes.RECIPES.parents[1] / "README.md").read_text()
STEPS = re.findall(
    r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(re.findall(r"```console\n(.*?)```", README, re.S)), re.M
)
VARYING = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "UUID",
    r"\b[0-9a-f]{8}(-[0-9a-f]+)?\b": "ID",
    r"\b\d\d:\d\d\b": "TIME",
    r"\b\d+ s ago\b": "RECENTLY",
    r"\b\d+ min\b": "MINUTES",
    r"\b7 h\b( 59 min)?|8 h": "HOURS",
    r"\b\d+ agentctl\b": "PID agentctl",
    r" +": " ",
}


def lasting(text: str) -> list[str]:
    """The lines of what was printed, without what differs from run to run."""
    for varying, name in VARYING.items():
        text = re.sub(varying, name, text)
    return [line.strip() for line in text.splitlines()]


@needs("curl", "make")
def test_the_commands_print_what_is_shown(home, monkeypatch):
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.setenv("NO_COLOR", "1")
    (program,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (home.path / "notes.py").write_text(program)
    (home.path / "Makefile").write_text("all:\n\t@echo building; read line || true\n")
    with serving(home), ExitStack() as running:
        url = ""
        for command, shown in STEPS:
            if command == "uvicorn notes:app &":
                serve = [sys.executable, "-m", "uvicorn", "notes:app", "--port", "0"]
                url = running.enter_context(started(serve, home.path, r"running on (http://\S+)"))
            elif command.endswith(" &"):
                running.enter_context(in_the_background(command.removesuffix(" &"), home.path))
            else:
                printed = on_a_terminal(command.replace("http://127.0.0.1:8000", url), home.path)
                printed = printed.replace(str(home.runtime), "/run/user/1000")
                assert lasting(printed) == lasting(shown), command


@contextmanager
def in_the_background(command: str, folder: Path) -> Iterator[None]:
    """The build, from its beginning on; it goes on until its input ends."""
    with subprocess.Popen(
        command.split(), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "building\n"
        yield
        build.communicate()


def on_a_terminal(command: str, folder: Path) -> str:
    """What a command prints there."""
    mine, its = os.openpty()
    subprocess.run(["sh", "-c", command], cwd=folder, stdout=its, stderr=its, timeout=60, check=False)
    os.close(its)
    with os.fdopen(mine, "rb") as terminal:
        return terminal.read1(65536).decode()
