"""What a start needs, tried without changing anything: rights, file systems, files that the settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import AgentdError
from agentd_client.passphrase_input import passphrase_of_file
from agentd_client.private import folders_fault

from ..crypto import wipe
from ..keys import KEY_FILE, key_file_form
from ..verify_socket import check_verify_socket
from .finding import Finding, ok, refused
from .node import nearest
from .scene import Scene

STATE, SOCKET, VERIFY, PASSPHRASE = "start.state", "start.socket", "start.verify", "start.passphrase"
NAMES = (STATE, SOCKET, VERIFY, PASSPHRASE)

_ELSEWHERE = "mount it writable, have it given to you, or choose another path"


class Facts(NamedTuple):
    """Why each would end a start, as a sentence with the remedy last; None for what is no obstacle.

    verify, passphrase: without a finding where the settings name no such file (empty path).
    """

    state_path: str
    state: str | None
    socket_path: str
    socket: str | None
    verify_path: str
    verify: str | None
    passphrase_file: str
    passphrase: str | None


def gather(scene: Scene) -> Facts:
    """Try each."""
    settings = scene.settings
    state, keys, store = Path(settings.state_path), settings.keys_path, settings.store_path
    return Facts(
        settings.state_path,
        obstacle([state, keys, store], [keys / KEY_FILE], [settings.lock_mark_path, *_files_in(store)]),
        settings.socket_path,
        obstacle([Path(settings.socket_path).parent], [], [Path(f"{settings.socket_path}.lock")]),
        settings.verify_socket_path,
        _verify_obstacle(scene),
        settings.passphrase_file,
        _passphrase_obstacle(scene),
    )


def judge(facts: Facts) -> Iterator[Finding]:
    """A finding for state and socket, and for what else the settings name."""
    yield _judged(STATE, facts.state, f"keys and store can be written in {facts.state_path}")
    yield _judged(SOCKET, facts.socket, f"a socket can be made at {facts.socket_path}")
    if facts.verify_path:
        yield _judged(VERIFY, facts.verify, f"a socket for verifying can be made at {facts.verify_path}")
    if facts.passphrase_file:
        yield _judged(PASSPHRASE, facts.passphrase, f"{facts.passphrase_file} holds a passphrase")


def _judged(name: str, obstacle: str | None, well: str) -> Finding:
    return ok(name, well) if obstacle is None else refused(name, obstacle)


def obstacle(folders: list[Path], read: list[Path], written: list[Path]) -> str | None:
    """What keeps this user from making and writing files in the folders, and from using those that are there.

    A folder that is missing would be made: then the nearest one above it counts.
    """
    try:
        fault = next(filter(None, map(folders_fault, folders)), None)
    except OSError as error:
        return f"{error.filename or folders[0]} cannot be followed: {error.strerror}; {_ELSEWHERE}"
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
    # As access(2) has it the answer covers the mount and file attributes; a write that tries would be one.
    return os.access(path, mode, effective_ids=True)


def _not_writable(path: str) -> str:
    is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    why = "is on a file system that is mounted read-only" if is_read_only else "cannot be written by you"
    return f"{path} {why}; {_ELSEWHERE}"


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # which the folder itself is judged for
        return []


def _verify_obstacle(scene: Scene) -> str | None:
    path = scene.settings.verify_socket_path
    if not path:
        return None
    try:
        check_verify_socket(scene.settings)
    except AgentdError as error:
        return error.sentence
    except OSError as error:
        return f"{error.filename} cannot be looked at: {error.strerror}; {_ELSEWHERE}"
    return obstacle([Path(path).parent], [], [Path(f"{path}.lock")])


def _passphrase_obstacle(scene: Scene) -> str | None:
    path = scene.settings.passphrase_file
    if not path:
        return None
    try:
        wipe(passphrase_of_file(path))
        form = key_file_form(scene.settings.keys_path)
    except AgentdError as error:
        return error.sentence
    except OSError:  # which the key file is judged for
        return None
    if form is not None and form.cost is None:
        return (
            f"{path} holds a passphrase, and the key file has none; set it with `agentctl passwd`, or leave "
            "passphrase_file out of the settings"
        )
    return None
