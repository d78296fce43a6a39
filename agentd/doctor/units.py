"""The systemd units, read from their files; also the commands in PATH, and lingering."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from .findings import Finding, error, note, ok, warning
from .installation import SERVICE_UNIT, SOCKET_UNIT, Check, Installation

FILES, ENABLED, PROGRAM, STATE = "units.files", "units.enabled", "units.program", "units.state"
COMMANDS, LINGERING = "path.commands", "user.lingering"

_LINGER = Path("/var/lib/systemd/linger")
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_PROGRAM = re.compile(r'^ExecStart=(?:"((?:[^"\\]|\\.)*)"|(\S+))', re.MULTILINE)
_ESCAPED = re.compile(r"%(%)|\\(.)")
_INSTALL = "run `make install` again"


class Units(Check, frozen=True):
    """What there is of systemd.

    units: the text of each unit that exists, by its name. has_program: whether that of ExecStart= exists.
    commands: their paths in PATH, by name. lingers: None without systemd.
    """

    units: dict[str, str]
    is_enabled: bool
    program: str
    has_program: bool
    state_path: str
    commands: dict[str, str | None]
    lingers: bool | None

    NAMES: ClassVar = (FILES, ENABLED, PROGRAM, STATE, COMMANDS, LINGERING)

    @classmethod
    def gather(cls, installation: Installation) -> Units:
        """Read the units, without asking the manager."""
        units = {}
        for name in (SOCKET_UNIT, SERVICE_UNIT):
            texts = (_text(folder / name) for folder in installation.unit_folders)
            text = next((text for text in texts if text is not None), None)
            if text is not None:
                units[name] = text
        program = program_of(units.get(SERVICE_UNIT, ""))
        search = installation.environ.get("PATH", os.defpath)
        return cls(
            units,
            installation.is_enabled,
            program,
            os.access(program, os.X_OK),
            installation.settings.state_path,
            {command: shutil.which(command, path=search) for command in ("agentd", "agentctl")},
            _lingers(installation.uid) if _SYSTEMD.is_dir() else None,
        )

    def judge(self) -> Iterator[Finding]:
        """One finding for PATH, and one if nothing is installed, otherwise several."""
        yield self._judge_commands()
        if not self.units:
            yield note(
                FILES, "no units are installed: the agent runs when it is started by hand", "`make install`"
            )
            return
        missing = [name for name in (SOCKET_UNIT, SERVICE_UNIT) if name not in self.units]
        if missing:
            yield error(FILES, f"{missing[0]} is missing, and the other unit is installed", _INSTALL)
            return
        yield ok(FILES, f"{SOCKET_UNIT} and {SERVICE_UNIT} are installed")
        if self.is_enabled:
            yield ok(ENABLED, f"{SOCKET_UNIT} is enabled: the first connection starts the agent")
        else:
            yield warning(
                ENABLED,
                f"{SOCKET_UNIT} is not enabled: no connection starts the agent after the next login",
                f"run `systemctl --user enable --now {SOCKET_UNIT}`",
            )
        if self.has_program:
            yield ok(PROGRAM, f"{self.program}, which {SERVICE_UNIT} starts, can be executed")
        else:
            yield error(
                PROGRAM,
                f"{SERVICE_UNIT} starts {self.program or 'nothing'}, which cannot be executed",
                _INSTALL,
            )
        yield self._judge_state()
        if self.lingers:
            yield ok(LINGERING, "the user lingers: the agent outlives the last login session")
        elif self.lingers is not None:
            yield note(
                LINGERING,
                "the agent ends with the last login session, and starts with the next",
                "to keep it running (cron, servers): `loginctl enable-linger`",
            )

    def _judge_state(self) -> Finding:
        escaped = self.state_path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
        if f'"-{escaped}"' in self.units[SERVICE_UNIT]:
            return ok(STATE, f"the service may write to {self.state_path}")
        return error(
            STATE,
            f"the settings put keys and store into {self.state_path}, where the service may not write",
            f"{_INSTALL}, which allows it, or put `state_path` back",
        )

    def _judge_commands(self) -> Finding:
        missing = [command for command, place in self.commands.items() if place is None]
        if missing:
            return warning(
                COMMANDS,
                f"PATH has no {' and no '.join(missing)}",
                "add their folder (`make install` links them into ~/.local/bin)",
            )
        return ok(COMMANDS, f"PATH has {' and '.join(str(place) for place in self.commands.values())}")


def program_of(service: str) -> str:
    """The program in a unit's ExecStart=, unquoted as in systemd.syntax(7); empty if it has none."""
    found = _PROGRAM.search(service)
    written = found[1] or found[2] or "" if found else ""
    return _ESCAPED.sub(lambda escape: escape[1] or escape[2], written)


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
