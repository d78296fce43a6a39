"""docs/recipes/sandbox.md, as it stands there, with the real bubblewrap."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from . import recipes

PAGE = "sandbox.md"
VERIFY = Path(__file__).parents[2] / "examples" / "verify.sh"
RUN_SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")


@pytest.fixture
def folder(agent, tmp_path, monkeypatch):
    """What the page has there; the agent's verify socket is where the page puts it."""
    if not os.path.exists("/usr/bin/bwrap"):
        pytest.skip("bubblewrap is not installed")
    trial = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False
    )
    if trial.returncode:
        pytest.skip(f"no sandbox is to be had here: {trial.stderr.strip()}")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    (runtime / "agentd-verify").symlink_to(Path(agent.verify_socket_path).parent)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    app = tmp_path / "app"
    app.mkdir()
    recipes.write_files(PAGE, app)
    shutil.copy(VERIFY, app)
    return app


def test_the_recipe_runs(agent, folder):
    shown = recipes.transcript(PAGE)
    assert recipes.carried_out(shown, folder, ("", "")) == shown


def sandboxed(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "sandbox.sh", *command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_running_sandbox_finds_the_agent_after_a_restart(agent, folder):
    token = agent.create_token().token
    asking = "read AGENTD_TOKEN; export AGENTD_TOKEN; while read -r _; do sh verify.sh; echo $?; done"
    with sandboxed(folder, "sh", "-c", asking) as program:

        def answer() -> list[str]:
            program.stdin.write("\n")
            program.stdin.flush()
            lines = [program.stdout.readline()]
            if lines[0] == "valid\n":
                lines.append(program.stdout.readline())
            return [line.strip() for line in lines]

        program.stdin.write(f"{token}\n")
        assert answer() == ["valid", "0"]
        agent.stop()
        assert answer() == ["69"]
        agent.start()
        assert answer() == ["valid", "0"]
        agent.lock()
        assert answer() == ["69"]
        program.communicate(timeout=RUN_SECONDS)


def test_nothing_else_of_the_agent_is_in_the_sandbox(agent, folder, monkeypatch):
    token = agent.create_token().token
    Path(agent.token_path).write_text(token)
    monkeypatch.setenv("AGENTD_TOKEN", token)
    looking = (
        f"env; test -e {agent.socket_path}; echo $?; test -e {agent.token_path}; echo $?; cat /proc/*/environ"
    )
    printed, _ = sandboxed(folder, "sh", "-c", looking).communicate(timeout=RUN_SECONDS)
    assert "AGENTD_SOCKET=/run/agentd-verify/verify.sock\n" in printed
    assert "\n1\n1\n" in printed  # neither is there
    assert token not in printed
    assert agent.socket_path not in printed
