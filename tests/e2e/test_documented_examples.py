"""The examples of both README.md and of docs/library.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.e2e.daemon import Home

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLIENT = (ROOT / "client" / "README.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in (("README", README), ("client", CLIENT), ("library", LIBRARY))
    for number, block in enumerate(re.findall(r"(?<!-->\n)```python\n(.*?)```", text, re.DOTALL))
]
SESSION = "01a20aa3-48b8-71ca-8b42-bce14e5f57c4"
RECEIVED = "from agentd_client import Session\ntoken = token_from_the_header = Session.create_session().read_token()\n"


@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_runs(daemon, block):
    assert daemon.home.agentctl("login").returncode == 0
    if "await " in block:
        body = textwrap.indent(f"folder = Path({str(daemon.home.path / 'core')!r})\n{block}", "    ")
        code = f"import trio\nfrom pathlib import Path\nasync def main():\n{body}\ntrio.run(main)"
    else:
        code = RECEIVED + block
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=daemon.home.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), code


def on_a_terminal(home: Home, *arguments: str) -> str:
    mine, its = os.openpty()
    ended = subprocess.run(
        [sys.executable, "-m", "agentd_client.cli", *arguments],
        env=home.environ | {"NO_COLOR": "1"},
        stdout=its,
        timeout=60,
        check=False,
    )
    os.close(its)
    with os.fdopen(mine, "rb") as terminal:
        printed = terminal.read1(65536).decode()
    assert ended.returncode == 0
    return printed


def test_the_session_of_the_readme_prints_what_it_shows(daemon):
    (block,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for step in block.strip().split("\n\n"):
        line, *shown = step.splitlines()
        program, *arguments = shlex.split(line.removeprefix("$ "))
        if program != "agentctl" or "|" in arguments:
            continue
        printed = on_a_terminal(daemon.home, *arguments)
        if shown:
            printed = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", SESSION, printed)
            printed = printed.replace(str(daemon.home.runtime), "/run/user/1000").replace("7 h 59 min", "8 h")
            assert printed.splitlines() == shown
