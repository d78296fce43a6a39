from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.packaging.distributions import BUILD_SECONDS, Built, build, installer
from tests.systemd.user_manager import missing, user_manager


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The package index, which has what agentd requires and what its build requires; pip and uv ask it."""
    wanted = tmp_path_factory.mktemp("asked") / "requirements.txt"
    wanted.write_text("hatchling\n")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        wanted.parent,
        "-r",
        wanted,
    )
    for command in (pip, (*installer("uv"), "pip", "compile", "--quiet", "--no-cache", wanted)):
        asked = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if asked.returncode != 0:
            pytest.skip(f"no package index answers: {asked.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def built(index, tmp_path_factory) -> Built:
    """Both distributions: each sdist made from this folder, each wheel from its sdist."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def manager(built):
    """A `systemd --user` whose user has an empty home, and both wheels in `manager.scratch`."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with user_manager() as manager:
        for distribution in ("agentd-daemon", "agentd-client"):
            shutil.copy(built.wheel(distribution), manager.scratch)
        yield manager
