"""How agentd was installed, which decides where its files are and what to advise."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import site
import sys
from collections.abc import Mapping
from enum import StrEnum
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

NAME = "agentd-daemon"
"""Of the distribution that has this package; `agentd-client` has the other."""


class Way(StrEnum):
    """How it was installed, in words."""

    PIPX = "pipx"
    UV = "uv tool"
    USER = "pip --user"
    CLONE = "an editable installation"
    PIP = "pip"


class Installed(NamedTuple):
    """What is installed: `files` by their path below the prefix, such as ``bin/agentd``."""

    way: Way
    files: Mapping[str, Path]

    @property
    def isolation(self) -> str:
        """The options of Python that ignore its variables and the current folder, and find this package.

        Without the user's own packages (``-s``, which ``-I`` includes) `pip --user` would not be found.
        """
        return "-EP" if self.way is Way.USER else "-I"

    @property
    def has_its_own_links(self) -> bool:
        """Whether its commands are in PATH by links that whatever installed it also removes."""
        return self.way in (Way.PIPX, Way.UV)

    def command(self, name: str, environ: Mapping[str, str] = os.environ) -> str:
        """The command as the user has to type it: its name if PATH leads to this one, else its path."""
        own = self.files.get(f"bin/{name}")
        found = shutil.which(name, path=environ.get("PATH", os.defpath))
        if own is None or (found is not None and os.path.samefile(found, own)):
            return name
        return shlex.quote(str(own))

    def to_add(self, package: str) -> str:
        """The command that installs another package beside this one."""
        match self.way:
            case Way.PIPX:
                return f"pipx inject {NAME} {package}"
            case Way.UV:
                return f"uv pip install --python {shlex.quote(sys.prefix)} {package}"
            case Way.USER:
                return f"{shlex.quote(sys.executable)} -m pip install --user {package}"
        return f"{shlex.quote(sys.executable)} -m pip install {package}"

    def to_find_commands(self) -> str:
        """What to do if PATH has not the folder of the commands."""
        match self.way:
            case Way.PIPX:
                return "run `pipx ensurepath` and log in again"
            case Way.UV:
                return "run `uv tool update-shell` and log in again"
            case Way.USER:
                return f"add {self.files['bin/agentd'].parent} to it"
        return f"add ~/.local/bin to it, where `{self.command('agentd')} service install` links them"

    def to_remove(self) -> str:
        """The command that removes it."""
        match self.way:
            case Way.PIPX:
                return f"pipx uninstall {NAME}"
            case Way.UV:
                return f"uv tool uninstall {NAME}"
        return f"{shlex.quote(sys.executable)} -m pip uninstall {NAME} agentd-client"


def how_installed() -> Installed:
    """How the running agentd was installed; `files` is empty if it runs from a folder that is not."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        return Installed(Way.CLONE, {})
    return Installed(_way(found), _files(found))


def _way(found: Distribution) -> Way:
    if os.path.exists(os.path.join(sys.prefix, "pipx_metadata.json")):
        return Way.PIPX
    if os.path.exists(os.path.join(sys.prefix, "uv-receipt.toml")):
        return Way.UV
    origin = json.loads(found.read_text("direct_url.json") or "{}")  # PEP 610
    if origin.get("dir_info", {}).get("editable"):
        return Way.CLONE
    at = os.path.realpath(str(found.locate_file("")))
    return Way.USER if at == os.path.realpath(site.getusersitepackages()) else Way.PIP


def _files(found: Distribution) -> dict[str, Path]:
    """The commands and manual pages, which RECORD lists relative to the packages' folder."""
    outside = [file for file in found.files or () if file.parts[0] == ".."]
    return {
        "/".join(part for part in file.parts if part != ".."): Path(os.path.normpath(str(file.locate())))
        for file in outside
    }
