"""systemd's part, by the files of the units: installed, enabled, startable; commands in PATH; lingering."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .finding import Finding, error, note, ok, warning
from .scene import SERVICE_UNIT, SOCKET_UNIT, Scene

FILES, ENABLED, PROGRAM, STATE = "units.files", "units.enabled", "units.program", "units.state"
COMMANDS, LINGERING = "path.commands", "user.lingering"
NAMES = (FILES, ENABLED, PROGRAM, STATE, COMMANDS, LINGERING)

_LINGER = Path("/var/lib/systemd/linger")
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_PROGRAM = re.compile(r'^ExecStart=(?:"((?:[^"\\]|\\.)*)"|(\S+))', re.MULTILINE)
_ESCAPED = re.compile(r"%(%)|\\(.)")
_INSTALL = "run `make install` once more"


class Facts(NamedTuple):
    """What there is of systemd.

    units: the text of each unit that is there, by its name. has_program: whether what ExecStart= names is
    there. commands: those that PATH has, by name. lingers: None where there is no systemd.
    """

    units: dict[str, str]
    is_enabled: bool
    program: str
    has_program: bool
    state_path: str
    commands: dict[str, str | None]
    lingers: bool | None


def gather(scene: Scene) -> Facts:
    """Read the units; nothing is asked of the manager."""
    units = {}
    for name in (SOCKET_UNIT, SERVICE_UNIT):
        texts = (_text(folder / name) for folder in scene.unit_folders)
        text = next((text for text in texts if text is not None), None)
        if text is not None:
            units[name] = text
    program = program_of(units.get(SERVICE_UNIT, ""))
    search = scene.environ.get("PATH", os.defpath)
    return Facts(
        units,
        scene.is_enabled,
        program,
        os.access(program, os.X_OK),
        scene.settings.state_path,
        {command: shutil.which(command, path=search) for command in ("agentd", "agentctl")},
        _lingers(scene.uid) if _SYSTEMD.is_dir() else None,
    )


def program_of(service: str) -> str:
    """What a unit's ExecStart= executes, unquoted as systemd.syntax(7) has it; empty where it has none."""
    found = _PROGRAM.search(service)
    written = found[1] or found[2] or "" if found else ""
    return _ESCAPED.sub(lambda escape: escape[1] or escape[2], written)


def judge(facts: Facts) -> Iterator[Finding]:
    """One finding where nothing is installed, otherwise several; and one for PATH."""
    yield _judge_commands(facts.commands)
    if not facts.units:
        yield note(
            FILES, "no units are installed: the agent runs when it is started by hand", "`make install`"
        )
        return
    missing = [name for name in (SOCKET_UNIT, SERVICE_UNIT) if name not in facts.units]
    if missing:
        yield error(FILES, f"{missing[0]} is missing beside the other unit", _INSTALL)
        return
    yield ok(FILES, f"{SOCKET_UNIT} and {SERVICE_UNIT} are installed")
    if facts.is_enabled:
        yield ok(ENABLED, f"{SOCKET_UNIT} is enabled: the first connection starts the agent")
    else:
        yield warning(
            ENABLED,
            f"{SOCKET_UNIT} is not enabled: no connection starts the agent after the next login",
            f"run `systemctl --user enable --now {SOCKET_UNIT}`",
        )
    if facts.has_program:
        yield ok(PROGRAM, f"{facts.program}, which {SERVICE_UNIT} starts, is there")
    else:
        yield error(
            PROGRAM, f"{SERVICE_UNIT} starts {facts.program or 'nothing'}, which cannot be executed", _INSTALL
        )
    yield _judge_state(facts)
    yield from _judge_lingering(facts.lingers)


def _judge_state(facts: Facts) -> Finding:
    escaped = facts.state_path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    if f'"-{escaped}"' in facts.units[SERVICE_UNIT]:
        return ok(STATE, f"the service may write to {facts.state_path}")
    return error(
        STATE,
        f"the settings put keys and store into {facts.state_path}, where the service may not write",
        f"{_INSTALL}, which lets it, or put `state_path` back",
    )


def _judge_commands(commands: dict[str, str | None]) -> Finding:
    missing = [command for command, place in commands.items() if place is None]
    if missing:
        return warning(
            COMMANDS,
            f"PATH has no {' and no '.join(missing)}",
            "add their folder (`make install` links them into ~/.local/bin)",
        )
    return ok(COMMANDS, f"PATH has {' and '.join(str(place) for place in commands.values())}")


def _judge_lingering(lingers: bool | None) -> Iterator[Finding]:
    if lingers is None:
        return
    if lingers:
        yield ok(LINGERING, "the user lingers: the agent outlives the last login session")
    else:
        yield note(
            LINGERING,
            "the agent ends with the last login session, and starts with the next",
            "to keep it running (cron, servers): `loginctl enable-linger`",
        )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _lingers(uid: int) -> bool:
    try:
        return (_LINGER / pwd.getpwuid(uid).pw_name).exists()
    except KeyError:
        return False
