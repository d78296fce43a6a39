"""What a start needs, tried without a change: rights, file systems, files that the settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from agentd_client.errors import AgentdError
from agentd_client.passphrase_input import passphrase_of_file
from agentd_client.private import folders_fault

from ..crypto import wipe
from ..keys import KEY_FILE, key_file_form
from ..verify_socket import check_verify_socket
from .findings import Finding, ok, refused
from .installation import Check, Installation
from .system import nearest

STATE, SOCKET, VERIFY, PASSPHRASE = "start.state", "start.socket", "start.verify", "start.passphrase"

_ELSEWHERE = "mount it writable, have root give it to you, or choose another path"


class Start(Check, frozen=True):
    """What would keep the agent from starting, as a sentence with the remedy last; None for no obstacle.

    verify_path, passphrase_file: empty if the settings name none; then there is no finding.
    """

    state_path: str
    state: str | None
    socket_path: str
    socket: str | None
    verify_path: str
    verify: str | None
    passphrase_file: str
    passphrase: str | None

    NAMES: ClassVar = (STATE, SOCKET, VERIFY, PASSPHRASE)

    @classmethod
    def gather(cls, installation: Installation) -> Start:
        """Try each."""
        settings = installation.settings
        state, keys, store = Path(settings.state_path), settings.keys_path, settings.store_path
        return cls(
            settings.state_path,
            obstacle([state, keys, store], [keys / KEY_FILE], [settings.lock_mark_path, *_files_in(store)]),
            settings.socket_path,
            obstacle([Path(settings.socket_path).parent], [], [Path(f"{settings.socket_path}.lock")]),
            settings.verify_socket_path,
            _verify_obstacle(installation),
            settings.passphrase_file,
            _passphrase_obstacle(installation),
        )

    def judge(self) -> Iterator[Finding]:
        """A finding for state and socket, and for each file that the settings name."""
        yield _judged(STATE, self.state, f"keys and store can be written in {self.state_path}")
        yield _judged(SOCKET, self.socket, f"a socket can be made at {self.socket_path}")
        if self.verify_path:
            yield _judged(VERIFY, self.verify, f"a verify socket can be made at {self.verify_path}")
        if self.passphrase_file:
            yield _judged(PASSPHRASE, self.passphrase, f"{self.passphrase_file} holds a passphrase")


def _judged(name: str, obstacle: str | None, well: str) -> Finding:
    return ok(name, well) if obstacle is None else refused(name, obstacle)


def obstacle(folders: list[Path], read: list[Path], written: list[Path]) -> str | None:
    """What keeps this user from making and writing files in the folders, and from using those that exist.

    A missing folder would be made, so the nearest one above it is tried.
    """
    try:
        fault = next(filter(None, map(folders_fault, folders)), None)
    except OSError as error:
        return f"{error.filename or folders[0]} cannot be reached: {error.strerror}; {_ELSEWHERE}"
    if fault is not None:
        return str(fault)
    for folder in folders:
        there = nearest(folder)
        if not os.path.isdir(there):
            return f"{there} is not a folder; move it away, or choose another path"
        if not _may(there, os.R_OK | os.W_OK | os.X_OK):
            return _not_writable(there)
    for files, mode in ((read, os.R_OK), (written, os.R_OK | os.W_OK)):
        for file in files:
            if os.path.lexists(file) and not _may(str(file), mode):
                return (
                    _not_writable(str(file)) if mode & os.W_OK else f"{file} cannot be read; see who owns it"
                )
    return None


def _may(path: str, mode: int) -> bool:
    # access(2) takes mount options and file attributes into account, and writes nothing.
    return os.access(path, mode, effective_ids=True)


def _not_writable(path: str) -> str:
    is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    why = "is on a file system that is mounted read-only" if is_read_only else "cannot be written by you"
    return f"{path} {why}; {_ELSEWHERE}"


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # the finding for the folder says so
        return []


def _verify_obstacle(installation: Installation) -> str | None:
    path = installation.settings.verify_socket_path
    if not path:
        return None
    try:
        check_verify_socket(installation.settings)
    except AgentdError as error:
        return error.sentence
    except OSError as error:
        return f"{error.filename} cannot be examined: {error.strerror}; {_ELSEWHERE}"
    return obstacle([Path(path).parent], [], [Path(f"{path}.lock")])


def _passphrase_obstacle(installation: Installation) -> str | None:
    path = installation.settings.passphrase_file
    if not path:
        return None
    try:
        wipe(passphrase_of_file(path))
        form = key_file_form(installation.settings.keys_path)
    except AgentdError as error:
        return error.sentence
    except OSError:  # the finding for the key file says so
        return None
    if form is not None and form.cost is None:
        return (
            f"{path} holds a passphrase, and the key file has none; set it with `agentctl passwd`, or remove "
            "passphrase_file from the settings"
        )
    return None
