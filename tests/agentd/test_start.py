"""What a start costs, as far as it can be counted: nothing here measures time."""

from __future__ import annotations

import subprocess
import sys

from tests.agentctl.running import without_coverage

SERVING = "import trio, agentd.__main__, agentd.cli, agentd.main"
NEEDED_LATER = {
    "agentd.doctor",
    "agentd.locking.logind",
    "agentd_client.blocking",
    "asyncio",
    "cffi",
    "dataclasses",
    "email",
    "http",
    "jeepney",
    "json",
    "lmdb.tool",
    "pycparser",
    "tomllib",
}
"""What a start can do without, or what only those need who ask for it in the settings."""


def _said_by(program: str, *arguments: str, **environ: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, env=without_coverage() | environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_start_imports_nothing_that_serving_does_not_use_at_once():
    loaded = set(_said_by(f"{SERVING}\nimport sys\nprint(*sys.modules)").split())
    assert not loaded & NEEDED_LATER


def test_no_garbage_is_looked_for_while_the_agent_imports_and_none_among_that_afterwards(tmp_path):
    program = """
import gc
from agentd import __main__
import trio

before = gc.isenabled()
trio.run = lambda *args: print(before, gc.isenabled(), gc.get_freeze_count() > 10_000)
__main__.main()
"""
    state, socket = str(tmp_path / "state"), str(tmp_path / "run" / "sock")
    assert _said_by(program, "serve", "--state", state, "--socket", socket) == "True True True\n"
