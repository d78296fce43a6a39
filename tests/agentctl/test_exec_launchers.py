"""Which way of passing a token gets through which program in between: the table of docs/calling.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agentctl.running import COMMAND, process

DOCUMENT = (Path(__file__).parents[2] / "docs" / "calling.md").read_text()
TABLE = {
    launcher: dict(zip(["--file", "--fd", "--env"], [cell.strip() for cell in cells.split("|")], strict=True))
    for launcher, cells in re.findall(r"^\| (`.*?) \| (.*\|.*\|.*) \|$", DOCUMENT, re.M)
}
WAYS = ["--file", "--fd", "--env"]
INNER = [*COMMAND, "--json", "inspect"]

SHELL = '"$@"; exit $?'  # a process of its own
PYTHON = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]{}).returncode)"
NODE = """
    const {spawnSync} = require("child_process");
    process.exit(spawnSync(process.argv[1], process.argv.slice(2), {stdio: "inherit"}).status);
"""
LAUNCHERS: dict[str, list[str]] = {
    "`sh`": ["sh", "-c", SHELL, "sh"],
    "`dash`": ["dash", "-c", SHELL, "dash"],
    "`bash`": ["bash", "-c", SHELL, "bash"],
    "`make`": ["make", "-s", "-f"],
    "`xargs`": ["xargs", "-a", "/dev/null"],
    "`env A=b`": ["env", "A=b"],
    "`nohup`": ["nohup"],
    "`setsid`": ["setsid", "--wait"],
    "`timeout`": ["timeout", "60"],
    "`subprocess` of Python": [sys.executable, "-c", PYTHON.format("")],
    "`subprocess` with `close_fds=False`": [sys.executable, "-c", PYTHON.format(", close_fds=False")],
    "`child_process` of Node": ["node", "-e", NODE],
    "`env -i`": ["env", "-i"],
    "`sudo -u`": ["sudo", "-n", "-u", "root"],
}


def command(launcher: str, folder: Path) -> list[str]:
    """The launcher with the command that it starts, which says whose session it is in."""
    started = LAUNCHERS[launcher]
    if shutil.which(started[0]) is None:
        pytest.skip(f"{started[0]} is not installed")
    if launcher == "`sudo -u`" and os.getuid() != 0:
        pytest.skip("only root may use sudo without a password")
    if launcher == "`make`":
        (folder / "makefile").write_text(f"all:\n\t@{shlex.join(INNER)}\n")
        return [*started, str(folder / "makefile")]
    return [*started, *INNER]


def outcome(ended: subprocess.CompletedProcess[str]) -> str:
    if '"label": "inner"' in ended.stdout:
        return "yes"
    return "error" if "`agentctl exec --file`" in ended.stderr else "no"


def test_the_table_has_every_launcher_and_the_default_gets_through_all_ordinary_ones():
    assert TABLE.keys() == {*LAUNCHERS, "`tmux`"}
    lost = {launcher for launcher, cells in TABLE.items() if cells["--file"] != "yes"}
    assert lost == {"`env -i`", "`sudo -u`", "`tmux`"}, "these drop the environment"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_does_what_the_table_says(agent, logged_in, tmp_path, launcher, way):
    ended = process("exec", way, "--label", "inner", "--", *command(launcher, tmp_path), cwd=tmp_path)
    assert outcome(ended) == TABLE[launcher][way], ended


@pytest.fixture
def tmux(folder):
    """``tmux(*arguments)`` with a server that was started before, for which it waits."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")

    def run(*arguments: str, before: tuple[str, ...] = ()) -> None:
        program = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        subprocess.run([*before, *program, *arguments], timeout=60, check=True)

    run("new-session", "-d", "sleep 600")
    yield run
    run("kill-server")


@pytest.mark.parametrize("way", WAYS)
def test_a_running_tmux_has_its_own_environment(agent, logged_in, folder, tmp_path, tmux, way):
    done = f"{shlex.join(INNER)} > {tmp_path}/out 2>&1; tmux -S {folder}/tmux wait-for -S done"
    tmux("new-window", "-d", done, before=(*COMMAND, "exec", way, "--label", "inner", "--"))
    tmux("wait-for", "done")
    assert json.loads((tmp_path / "out").read_text())["session"]["label"] == "desk"
    assert TABLE["`tmux`"][way] == "no"


@pytest.mark.parametrize("way", WAYS)
def test_exec_works_behind_a_cleared_environment(agent, logged_in, way):
    kept = [f"{name}={os.environ[name]}" for name in ("HOME", "PATH", "XDG_RUNTIME_DIR")]
    exec_inner = [*COMMAND, "exec", way, "--label", "inner", "--", *INNER]
    ended = subprocess.run(
        ["env", "-i", *kept, *exec_inner], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(ended.stdout)["session"]["label"] == "inner"


@pytest.mark.parametrize("way", WAYS)
def test_exec_works_in_a_window_of_tmux(agent, logged_in, folder, tmp_path, tmux, way):
    inner = shlex.join([*COMMAND, "exec", way, "--label", "inner", "--", *INNER])
    tmux("new-window", "-d", f"{inner} > {tmp_path}/out 2>&1; tmux -S {folder}/tmux wait-for -S done")
    tmux("wait-for", "done")
    assert json.loads((tmp_path / "out").read_text())["session"]["label"] == "inner"
