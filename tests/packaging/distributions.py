"""Both distributions, built from this folder, and ways of installing them into an empty environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[2]
BUILD_SECONDS = 240.0
"""For downloads, over whatever line there is."""


class Built(NamedTuple):
    """The folder of what was built, and the unpacked sdists."""

    folder: Path
    daemon_source: Path
    client_source: Path

    def wheel(self, distribution: str) -> Path:
        [wheel] = self.folder.glob(f"{distribution.replace('-', '_')}-*.whl")
        return wheel


def done(*command: object, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run what has to succeed; its output."""
    # Coverage measures the children of its processes too, and so the copy in the unpacked sdist.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(
        list(map(str, command)),
        env={**kept, **(environ or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    return ended.stdout


def build(folder: Path) -> Built:
    """Both sdists, unpacked where nothing else is, and a wheel made from each."""
    tool = installer("uv")
    for source in (PROJECT, PROJECT / "client"):
        done(*tool, "build", "--sdist", "--out-dir", folder, source)
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(unpacked, filter="data")
    [daemon] = unpacked.glob("agentd_daemon-*")
    [client] = unpacked.glob("agentd_client-*")
    for source in (daemon, client):
        done(*tool, "build", "--wheel", "--out-dir", folder, source)
    return Built(folder, daemon, client)


def installer(name: str) -> list[str]:
    """The command of pipx or uv: of this environment, or of the machine."""
    if importlib.util.find_spec(name) is not None:
        return [sys.executable, "-m", name]
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing")
    return [found]


def places(tool: str, folder: Path) -> dict[str, str]:
    """The variables with which the tool installs into that folder and links the commands into its `bin`."""
    if tool == "pipx":
        return {"PIPX_HOME": f"{folder}", "PIPX_BIN_DIR": f"{folder}/bin", "PIPX_MAN_DIR": f"{folder}/man"}
    return {"UV_TOOL_DIR": f"{folder}/tools", "UV_TOOL_BIN_DIR": f"{folder}/bin"}


def install_with_pip(built: Built, folder: Path, *wanted: str) -> Path:
    done(sys.executable, "-m", "venv", folder)
    done(folder / "bin" / "python", "-m", "pip", "install", "--find-links", built.folder, *wanted)
    return folder / "bin"


def install_with_pipx(built: Built, folder: Path, *wanted: str) -> Path:
    links = f"--pip-args=--find-links '{built.folder}'"
    done(
        *installer("pipx"),
        "install",
        "--python",
        sys.executable,
        links,
        *wanted,
        environ=places("pipx", folder),
    )
    return folder / "bin"


def install_with_uv(built: Built, folder: Path, *wanted: str) -> Path:
    links = ("--find-links", built.folder, "--python", sys.executable)
    done(*installer("uv"), "tool", "install", *links, *wanted, environ=places("uv", folder))
    return folder / "bin"


INSTALLERS = {"pip": install_with_pip, "pipx": install_with_pipx, "uv": install_with_uv}
