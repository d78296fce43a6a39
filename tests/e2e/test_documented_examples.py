"""The examples of client/README.md and of docs/library.md, run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = (ROOT / "client" / "README.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in (("client", CLIENT), ("library", LIBRARY))
    for number, block in enumerate(re.findall(r"(?<!-->\n)```python\n(.*?)```", text, re.DOTALL))
]
RECEIVED = "from agentd_client import Session\ntoken = token_from_the_header = Session.create_session().read_token()\n"


@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_runs(daemon, block):
    assert daemon.home.agentctl("login").returncode == 0
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
