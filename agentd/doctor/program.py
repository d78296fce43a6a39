"""The check of the program: how it was installed, whether PATH leads to it, and which package is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

from agentd_client import __version__

from ..distribution import Installed
from .findings import Finding, note, ok, warning
from .installation import Installation


def check_program(installation: Installation) -> Iterator[Finding]:
    """The distribution, the commands in PATH, and the optional package that listens to logind."""
    installed = installation.installed
    if installed.files:
        yield ok("program.installed", f"agentd {__version__}, installed with {installed.way} in {sys.prefix}")
    else:
        says = f"agentd {__version__} runs from a folder, and {sys.executable} has none installed"
        yield note("program.installed", says, "install it with pipx, uv or pip, to have it as a service")
    yield _judge_commands(installed, installation.environ.get("PATH", os.defpath))
    if installation.settings.lock_on_suspend or installation.settings.lock_on_screen_lock:
        yield judge_logind(installed, importlib.util.find_spec("jeepney") is not None)


def _judge_commands(installed: Installed, search: str) -> Finding:
    places = {command: shutil.which(command, path=search) for command in ("agentd", "agentctl")}
    missing = [command for command, place in places.items() if place is None]
    if missing:
        says = f"PATH has no {' and no '.join(missing)}"
        return warning("path.commands", says, installed.to_find_commands())
    return ok("path.commands", f"PATH has {' and '.join(map(str, places.values()))}")


def judge_logind(installed: Installed, has_jeepney: bool) -> Finding:
    """Whether the agent can listen to logind."""
    if has_jeepney:
        return ok("program.logind", "jeepney is installed: the agent can lock at suspend and screen lock")
    return note(
        "program.logind",
        "jeepney is not installed: suspend and screen lock do not lock the agent",
        f"`{installed.to_add('jeepney')}`",
    )
