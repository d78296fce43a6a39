"""docs/recipes/other-user.md, as it stands there, with another user."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.e2e.daemon import Home, serving
from tests.other_user import AGENTS, needs_root

from . import recipes
from .other_users import BUILDER, served_as
from .proxies import needs

PAGE = "other-user.md"
TEXT = (recipes.RECIPES / PAGE).read_text()
ADDRESS = "http://127.0.0.1:8000/"


@pytest.fixture
def folder():
    """Where the page has /run/agentd-me: others may pass through what is above it."""
    with tempfile.TemporaryDirectory(prefix="agentd-") as above:
        os.chmod(above, 0o711)
        yield Path(above) / "agentd-me"


def make(folder: Path, home: Home) -> None:
    """Make the folder from the page's line for systemd-tmpfiles, and configure the agent with its settings."""
    (line,) = re.findall(r"^echo '(.*)' > /etc/tmpfiles.d/", TEXT, re.M)
    configuration = home.path / "tmpfiles.conf"
    replaced = line.replace("/run/agentd-me", str(folder)).replace(
        " me agents ", f" {os.geteuid()} {AGENTS} "
    )
    configuration.write_text(f"{replaced}\n")
    subprocess.run(["systemd-tmpfiles", "--create", configuration], check=True)
    settings = home.path / "config" / "agentd" / "config.toml"
    settings.parent.mkdir(parents=True)
    shown = (home.path / "config.toml").read_text()
    settings.write_text(shown.replace("/run/agentd-me", str(folder)))


def program(folder: Path, home: Home) -> str:
    shown = (home.path / "build_server.py").read_text()
    for word, other in (
        ("/run/agentd-me", str(folder)),
        ("agent_uid=1000", f"agent_uid={os.geteuid()}"),
        ("8000", "0"),
    ):
        assert word in shown
        shown = shown.replace(word, other)
    return shown


@needs_root
@needs("systemd-tmpfiles", "curl")
def test_the_recipe_runs(home, folder):
    recipes.write_files(PAGE, home.path)
    make(folder, home)
    shown = recipes.transcript(PAGE)
    with served_as(BUILDER, program(folder, home), groups=[AGENTS]) as url:
        with serving(home) as daemon:
            socket = (folder / "verify.sock").stat()
            assert (stat.S_IMODE(socket.st_mode), socket.st_gid) == (0o660, AGENTS)
            assert recipes.carried_out(shown, home.path, (ADDRESS, f"{url}/")) == shown
            with daemon.client() as agent:
                refused = []
                while not refused:  # the answer does not wait for the audit log
                    refused = [entry for entry in agent.list_audit().entries if entry.kind == "refused"]
                assert {entry.peer_uid for entry in refused} == {BUILDER}
                token = agent.create_token(scopes=["build"], audience=["builder"]).token
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(url, headers=headers).status_code == 200
        assert httpx.get(url, headers=headers).status_code == 503


@needs_root
@needs("systemd-tmpfiles")
@pytest.mark.parametrize("reason", ["not in the group", "another user's agent"])
def test_who_cannot_ask_the_right_agent_lets_nobody_in(home, folder, reason):
    recipes.write_files(PAGE, home.path)
    make(folder, home)
    shown = program(folder, home)
    groups = [AGENTS]
    if reason == "not in the group":
        groups = []
    else:
        shown = shown.replace(f"agent_uid={os.geteuid()}", f"agent_uid={os.geteuid() + 1}")
    with serving(home) as daemon, served_as(BUILDER, shown, groups=groups) as url, daemon.client() as agent:
        before = agent.get_status().counters.requests
        token = agent.create_token().token
        assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 503
        assert agent.get_status().counters.requests - before == 2, "of this test"
