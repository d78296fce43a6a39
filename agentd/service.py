"""`agentd service install`: units, completions and manual pages for the current user, and their removal.

Nothing outside the user's own folders is changed, and nothing is ever taken from another user.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from agentd_client import __version__, paths
from agentd_client.errors import AlreadyServingError, ConfigError, StartError, StateFolderError
from agentd_client.file_locks import lock_within
from agentd_client.private import make_folders

from .config import load
from .distribution import Installed, how_installed

COMMANDS = ("agentd", "agentctl")
SOCKET, SERVICE = "agentd.socket", "agentd.service"
HTTP_SERVICE = "agentd-http.service"
PROMPT_SERVICE = "agentd-prompt.service"
_TEMPLATES = Path(__file__).parent / "units"
_RUNS_PYTHON = (
    re.compile(r"\A(#!/\S*/python[0-9.]*)(?: -[EIPs]+)?$", re.MULTILINE),
    re.compile(r"""\A(#!/bin/sh\n'''exec' (?:'[^']*'|"[^"]*"|\S+))(?: -[EIPs]+)?(?= "\$0" )"""),
)
"""How a command begins that an installer wrote: with Python, or with a shell that calls Python if its path
is too long for `#!` or has a space in it."""

Say = Callable[[str, object], None]
"""Reports what was done, in a word, and to what."""

Completions = Mapping[tuple[str, str], str]
"""The completion script of each command and shell."""


class Places(NamedTuple):
    """Where everything goes: the folders of one user."""

    home: Path
    config: Path
    data: Path

    @classmethod
    def of_user(cls) -> Places:
        """Those of the environment; raises EnvironmentVariableError if they are another user's."""
        config = Path(paths.config_path()).parent.parent
        return cls(Path(paths.home()), config, Path(paths.data_home()))

    @property
    def commands(self) -> Path:
        """Where systemd and distributions expect the user's own commands, file-hierarchy(7)."""
        return self.home / ".local" / "bin"

    @property
    def units(self) -> Path:
        """The user's own units."""
        return self.config / "systemd" / "user"

    def manual(self, page: str) -> Path:
        """A manual page. Not in `data`: man looks for pages relative to the folders in PATH."""
        return self.home / ".local" / page

    def completion(self, command: str, shell: str) -> Path:
        """The file that the shell loads when it first completes the command."""
        return {
            "bash": self.data / "bash-completion" / "completions" / command,
            "zsh": self.data / "zsh" / "site-functions" / f"_{command}",
            "fish": self.config / "fish" / "completions" / f"{command}.fish",
        }[shell]

    @property
    def environment(self) -> Path:
        """Of `make install`."""
        return self.data / "agentd" / "venv"


def install(completions: Completions, say: Say) -> None:
    """Install agentd for this user, or upgrade it in place: sessions, keys and settings stay.

    Raises:
        AgentdError: agentd is not installed or no longer starts; settings, a variable or a folder cannot be
            used.
        OSError: something cannot be written.
    """
    installed, places = how_installed(), Places.of_user()
    state = load().state_path
    _check_installed(installed)
    # The unit may write only to this folder and the socket's, so it must exist before the start. Checked
    # here, because inside the sandbox the owners of the folders above are not visible.
    fault = make_folders(state)
    if fault is not None:
        raise StateFolderError(str(fault))
    os.chmod(state, 0o700)
    say("installed", f"agentd {__version__} in {sys.prefix} ({installed.way})")
    _install_commands(installed, places, say)
    for (command, shell), script in completions.items():
        path = places.completion(command, shell)
        _write(path, script)
        say("completion", path)
    for page, source in _manual(installed):
        path = places.manual(page)
        if not _same(path, source):
            path.unlink(missing_ok=True)
            _write(path, source.read_text())
        say("manual", path)
    _install_units(installed, places, state, say)
    say("next", "agentctl login")


def uninstall(completions: Completions, say: Say, *, purge: bool) -> None:
    """Undo `install`. Keys, store and settings stay, unless `purge`, which removes every session for good.

    Raises:
        AgentdError: an agent still uses the store that is to be removed; a variable cannot be used.
        OSError: something cannot be removed.
    """
    installed, places = how_installed(), Places.of_user()
    try:
        state = Path(load().state_path)
    except ConfigError:
        state = Path(paths.state_dir())
    units = sorted(template.name for template in _TEMPLATES.iterdir())
    wanted = [(unit, "sockets.target") for unit in units if unit.endswith(".socket")]
    wanted.append((PROMPT_SERVICE, "graphical-session.target"))
    manager = _systemctl("show-environment")
    if manager:
        _systemctl("disable", *(unit for unit, _ in wanted))
        _systemctl("stop", *units)
        say("stopped", ", ".join(units))
    removed = [places.units / f"{target}.wants" / unit for unit, target in wanted]
    removed += [places.units / unit for unit in units]
    removed += [link for link in map(places.commands.joinpath, COMMANDS) if _is_ours(link, installed, places)]
    removed += [places.completion(*of) for of in completions]
    removed += [
        path
        for page, source in _manual(installed)
        if not (path := places.manual(page)).is_symlink() and not _same(path, source)
    ]
    _remove(removed, say)
    if manager:
        _systemctl("daemon-reload")
        _systemctl("reset-failed", *units)
    drop_ins = [places.units / f"{unit}.d" for unit in units]
    settings = Path(paths.config_path()).parent
    again = "agentd service install --uninstall --purge"
    if Path(sys.prefix) == places.environment:
        again = "make uninstall PURGE=1"
    else:
        say("note", f"`{installed.to_remove()}` removes the commands")
    if not purge:
        for path in (state, settings, *drop_ins):
            if path.exists():
                say("kept", path)
        say("note", f"`{again}` removes keys, store and settings too")
        return
    if _is_locked(state / "store" / "agentd.lock"):
        raise AlreadyServingError(f"an agent still uses {state / 'store'}; stop it, and purge again")
    # By name, not the whole folder: the settings may name one that contains other files.
    kept = [state / name for name in ("keys", "store", "locked", "run")]
    _remove([*kept, settings, Path(paths.runtime_dir()), *drop_ins], say)
    with suppress(OSError):
        state.rmdir()


def isolated(script: str, options: str) -> str:
    """A command's text so that it runs Python with these options; as it was if it is of no known form."""
    for begin in _RUNS_PYTHON:
        script = begin.sub(lambda found: f"{found[1]} {options}", script, count=1)
    return script


def _check_installed(installed: Installed) -> None:
    """The unit starts `python -m agentd` with the options that `_install_units` writes."""
    started = subprocess.run(  # noqa: S603 - Python itself
        [sys.executable, installed.isolation, "-m", "agentd", "--version"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if not installed.files or started.returncode != 0:
        raise ConfigError(
            f"{sys.executable} has no agentd installed, only one that a variable or a folder leads to; "
            "install it with pipx, uv or pip"
        )


def _install_commands(installed: Installed, places: Places, say: Say) -> None:
    for command in COMMANDS:
        own = installed.files[f"bin/{command}"]
        # PYTHON* variables and the current folder then add no modules. Root's own files are root's to change.
        if os.access(own, os.W_OK):
            text = own.read_text(errors="surrogateescape")
            if (changed := isolated(text, installed.isolation)) != text:
                _replace(own, changed)
        link = places.commands / command
        if installed.has_its_own_links or _same(link, own) or sys.prefix == sys.base_prefix:
            continue
        if link.exists() and not link.is_symlink():
            say("note", f"{link} is another command, and stays")
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(own)
        say("linked", link)
    if installed.command("agentctl") != "agentctl":
        say("note", f"PATH does not lead to these commands: {installed.to_find_commands()}")


def _is_ours(link: Path, installed: Installed, places: Places) -> bool:
    """Whether `_install_commands` made the link, of this installation or of `make install`."""
    if not link.is_symlink():
        return False
    folders = [places.environment / "bin"]
    if not installed.has_its_own_links:
        folders += [installed.files[file].parent for file in installed.files if file.startswith("bin/")]
    return Path(os.readlink(link)).parent in folders


def _manual(installed: Installed) -> Iterator[tuple[str, Path]]:
    return ((file, at) for file, at in installed.files.items() if file.startswith("share/man/"))


def _install_units(installed: Installed, places: Places, state: str, say: Say) -> None:
    words = {
        "PYTHON": sys.executable,
        "ISOLATION": installed.isolation,
        "STATE": state,
        "STATE_HOME": os.path.dirname(paths.state_dir()),
        "CONFIG_HOME": str(places.config),
    }
    written = {template.name: filled(template.read_text(), words) for template in _TEMPLATES.iterdir()}
    socket = places.units / SOCKET
    is_changed = not socket.exists() or socket.read_text(errors="surrogateescape") != written[SOCKET]
    # Of the sockets only this one is enabled; if the user has enabled another, it stays so.
    for unit, text in written.items():
        _write(places.units / unit, text)
    others = ", ".join(sorted(unit for unit in written if unit not in (SOCKET, SERVICE)))
    say("units", f"{socket}, {SERVICE}; {others}, not enabled")
    if not _systemctl("show-environment"):
        say(
            "note",
            f"no systemd user manager answers; once there is one: systemctl --user enable --now {SOCKET}",
        )
        return
    _systemctl("daemon-reload")
    _systemctl("reset-failed", SOCKET, SERVICE)
    if is_changed:
        _systemctl("stop", SOCKET, SERVICE)
    if not _systemctl("is-active", SOCKET) and _is_locked(Path(paths.runtime_dir(), "agent.sock.lock")):
        _systemctl_or_fail("enable", SOCKET)
        say("enabled", f"{SOCKET}, from your next login on")
        say("note", "an agent that was started by hand serves now; to switch to systemd at once,")
        say("", f"stop it and run: systemctl --user start {SOCKET}")
    else:
        _systemctl_or_fail("enable", "--now", SOCKET)
        if not _systemctl("try-restart", SERVICE):
            raise StartError("the agent no longer starts; see: journalctl --user -u agentd -n 20")
        _systemctl("try-restart", HTTP_SERVICE, PROMPT_SERVICE)
        say("enabled", f"{SOCKET}: the first connection starts the agent")
    # The sandbox needs user namespaces, which some systems deny to users.
    probe = ("--wait", "--collect", "-p", "PrivateUsers=yes", "-p", "ProtectSystem=strict", "true")
    if not _succeeds("systemd-run", "--user", "--quiet", *probe):
        say(
            "note", 'user services have no namespaces here: see docs/operations.md, "Without user namespaces"'
        )
    say("note", "the agent ends with your last login session and starts with the next; to keep it")
    say("", "running (cron, servers): loginctl enable-linger")


def filled(template: str, words: Mapping[str, str]) -> str:
    """A unit, from its template and the values of the words between @ signs.

    systemd.unit(5) interprets specifiers and escapes inside double quotes too.
    """
    for word, value in words.items():
        escaped = value.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
        template = template.replace(f"@{word}@", escaped)
    return template


def _succeeds(*command: str) -> bool:
    return _run(*command) == ""


def _systemctl(*arguments: str) -> bool:
    return _succeeds("systemctl", "--user", "--quiet", *arguments)


def _systemctl_or_fail(*arguments: str) -> None:
    why = _run("systemctl", "--user", "--quiet", *arguments)
    if why:
        raise StartError(f"`systemctl --user {' '.join(arguments)}` failed: {why}")


def _run(*command: str) -> str:
    """Why the command failed; empty if it did not."""
    try:
        ended = subprocess.run(  # noqa: S603 - systemd's own, of PATH
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return error.strerror or type(error).__name__
    return "" if ended.returncode == 0 else ended.stderr.strip() or f"exit code {ended.returncode}"


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lock_within(descriptor, 0)
    finally:
        os.close(descriptor)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _replace(path: Path, text: str) -> None:
    """In one step: another process may be about to execute it."""
    new = path.with_name(f".{path.name}.new")
    _write(new, text)
    new.chmod(path.stat().st_mode & 0o777)
    new.rename(path)


def _remove(removed: list[Path], say: Say) -> None:
    for path in removed:
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            continue
        say("removed", path)
