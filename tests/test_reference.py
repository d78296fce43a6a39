"""The pages of docs/reference/ name what there is; `make docs` checks the rest."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

ROOT = Path(__file__).parents[1]
NAMED = [
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
]
INSIDE = {"__init__", "httpx_auth"}
"""Modules of `agentd_client.ext` that nobody imports."""


def test_every_integration_is_in_the_reference():
    modules = {path.stem for path in (ROOT / "client" / "agentd_client" / "ext").glob("*.py")} - INSIDE
    named = [name.rpartition(".")[2] for name in NAMED if name.startswith("agentd_client.ext.")]
    assert sorted(named) == sorted(modules)


def test_whatever_else_it_names_exists():
    for name in NAMED:
        if not name.startswith("agentd_client.ext."):  # not every framework is installed
            assert resolve_name(name), name
