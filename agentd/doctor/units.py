"""The systemd units, read from their files; also the commands in PATH, and lingering."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .findings import Finding, error, note, ok, warning
from .installation import SERVICE_UNIT, SOCKET_UNIT, Installation

_LINGER = Path("/var/lib/systemd/linger")
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_PROGRAM = re.compile(r'^ExecStart=(?:"((?:[^"\\]|\\.)*)"|(\S+))', re.MULTILINE)
_ESCAPED = re.compile(r"%(%)|\\(.)")


def check_units(installation: Installation) -> Iterator[Finding]:
    """The units, which are read without asking systemd, and lingering."""
    install = f"`{installation.installed.command('agentd', installation.environ)} service install`"
    again = f"run {install} again"
    units = {name: _text_of(name, installation.unit_folders) for name in (SOCKET_UNIT, SERVICE_UNIT)}
    missing = [name for name, text in units.items() if text is None]
    service = units[SERVICE_UNIT]
    if len(missing) == len(units):
        says = "no units are installed: the agent runs when it is started by hand"
        yield note("units.files", says, install)
    elif missing or service is None:
        yield error("units.files", f"{missing[0]} is missing, and the other unit is installed", again)
    else:
        yield ok("units.files", f"{SOCKET_UNIT} and {SERVICE_UNIT} are installed")
        if installation.is_enabled:
            yield ok("units.enabled", f"{SOCKET_UNIT} is enabled: the first connection starts the agent")
        else:
            yield warning(
                "units.enabled",
                f"{SOCKET_UNIT} is not enabled: no connection starts the agent after the next login",
                f"run `systemctl --user enable --now {SOCKET_UNIT}`",
            )
        yield _judge_program(program_of(service), again)
        yield _judge_state(service, installation.settings.state_path, again)
        if _SYSTEMD.is_dir():
            yield judge_lingering(_lingers())


def _judge_program(program: str, again: str) -> Finding:
    if os.access(program, os.X_OK):
        return ok("units.program", f"{program}, which {SERVICE_UNIT} starts, can be executed")
    says = f"{SERVICE_UNIT} starts {program or 'nothing'}, which cannot be executed"
    return error("units.program", says, again)


def _judge_state(service: str, path: str, again: str) -> Finding:
    escaped = path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    if f'"-{escaped}"' in service:
        return ok("units.state", f"the service may write to {path}")
    return error(
        "units.state",
        f"the settings put keys and store into {path}, where the service may not write",
        f"{again}, which allows it, or put `state_path` back",
    )


def judge_lingering(lingers: bool) -> Finding:
    """Whether the user's services run without a login session."""
    if lingers:
        return ok("user.lingering", "the user lingers: the agent outlives the last login session")
    return note(
        "user.lingering",
        "the agent ends with the last login session, and starts with the next",
        "to keep it running (cron, servers): `loginctl enable-linger`",
    )


def program_of(service: str) -> str:
    """The program in a unit's ExecStart=, unquoted as in systemd.syntax(7); empty if it has none."""
    found = _PROGRAM.search(service)
    written = found[1] or found[2] or "" if found else ""
    return _ESCAPED.sub(lambda escape: escape[1] or escape[2], written)


def _text_of(unit: str, folders: list[Path]) -> str | None:
    for folder in folders:
        with suppress(OSError):
            return (folder / unit).read_text(errors="replace")
    return None


def _lingers() -> bool:
    try:
        return (_LINGER / pwd.getpwuid(os.geteuid()).pw_name).exists()
    except KeyError:
        return False
