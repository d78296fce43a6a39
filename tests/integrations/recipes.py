"""The pages of docs/recipes: the files that they show, and what their commands print."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from .serving import PATH

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page: each is a block of code after its name in backquotes."""
    text = (RECIPES / page).read_text()
    for name, content in re.findall(r"^`([\w.-]+)`(?:(?!```).)*^```\w+\n(.*?)^```", text, re.M | re.S):
        (folder / name).write_text(content)


def transcript(page: str) -> str:
    """The commands of a page, and what they print."""
    return "".join(re.findall(r"```console\n(.*?)```", (RECIPES / page).read_text(), re.S))


def carried_out(shown: str, folder: Path, replaced: tuple[str, str]) -> str:
    """Carry out the commands of a transcript in a folder; the transcript with what they printed.

    Args:
        shown: the transcript. What a command prints is left out if nothing is shown.
        folder: where they run.
        replaced: an address of the page, and the one that the test has instead.
    """
    lines = []
    for step in re.findall(r"^\$ .*\n(?:(?!\$ ).*\n)*", shown, re.M):
        command, _, printed = step.removeprefix("$ ").partition("\n")
        ended = subprocess.run(
            ["sh", "-c", command.replace(*replaced)],
            cwd=folder,
            env=os.environ | {"PATH": PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        lines += [f"$ {command}\n", ended.stdout if printed else ""]
    return "".join(lines)
