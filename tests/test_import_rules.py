"""The import rules cover a module that is new: one that breaks a rule, or that no layer names, fails the check."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of both packages and of the rules."""
    tree = tmp_path_factory.mktemp("tree")
    without_caches = shutil.ignore_patterns("__pycache__")
    for package in ("agentd", "client/agentd_client"):
        shutil.copytree(ROOT / package, tree / Path(package).name, ignore=without_caches)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def broken(tree: Path) -> list[str]:
    """The rules that are broken."""
    checked = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert "Contracts:" in checked.stdout, checked.stdout + checked.stderr
    return [line.partition(" BROKEN")[0] for line in checked.stdout.split("\n") if " BROKEN" in line]


def test_the_tree_as_it_is_keeps_every_rule(tree):
    assert broken(tree) == []


@pytest.mark.parametrize(
    ("module", "text", "rules"),
    [
        ("agentd/foo.py", "", ["the daemon's layers"]),
        ("agentd/foo.py", "import nacl", ["only agentd.crypto imports the ciphers", "the daemon's layers"]),
        ("agentd/foo.py", "import lmdb", ["only agentd.store imports LMDB", "the daemon's layers"]),
        ("agentd/server/foo.py", "import msgpack", ["only agentd_client.protocol imports msgpack"]),
        (
            "agentd/doctor/foo.py",
            "import jeepney",
            ["only agentd.locking and agentd_client.prompt import D-Bus"],
        ),
        ("agentd_client/cli/foo.py", "import rich", ["only agentd_client.tui imports Textual"]),
        ("agentd/sessions/foo.py", "from ..agent import Agent", ["the daemon's layers"]),
        ("agentd_client/foo.py", "import agentd", ["the client never imports the daemon"]),
        ("agentd_client/foo.py", "import logging", ["the bare client stays light"]),
        (
            "agentd_client/foo.py",
            "from .cli import output",
            ["the bare client uses neither the command line nor the async client"],
        ),
    ],
)
def test_a_new_module_that_breaks_a_rule_is_found(tree, module, text, rules):
    new = tree / module
    new.write_text(text + "\n")
    try:
        assert broken(tree) == rules
    finally:
        new.unlink()
