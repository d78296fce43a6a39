"""The examples of docs/embedding.md run, and show every public method."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import Session

DOCUMENT = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text()
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(DOCUMENT)
FRAME, RUN = re.fullmatch(r"(.*\n    \):\n).*?(\n\ntrio.run.*)", BLOCKS[0], re.DOTALL).groups()
"""The first example: what stands around every other, and what runs it."""

CLASSES = [KeyRing, DB, SessionManager, Session]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_example_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = BLOCKS[number]
    is_whole = re.search(r"^(trio.run|asyncio.run)", block, re.MULTILINE)
    program = block if is_whole else FRAME + textwrap.indent(block, " " * 8) + RUN
    exec(compile(program, f"docs/embedding.md, example {number}", "exec"), {})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_method_has_an_example(kind):
    section = DOCUMENT.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
    shown = "\n".join(BLOCK.findall(section) + BLOCKS[:1])
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert {name for name in public if not re.search(rf"\.{name}\b", shown)} == set()
