"""What a start needs, tried without a change: rights, file systems, files that the settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agentd_client.errors import AgentdError
from agentd_client.passphrase_input import passphrase_of_file
from agentd_client.private import folders_fault

from ..config import SharedSocket
from ..crypto import wipe
from ..keys import KEY_FILE, key_file_form
from ..sockets import check_shared_socket
from .findings import Finding, ok, refused
from .installation import Installation
from .system import nearest, nodes_in

_ELSEWHERE = "mount it writable, have root give it to you, or choose another path"


def check_start(installation: Installation) -> Iterator[Finding]:
    """What would keep the agent from starting: in the folders, and in each file that the settings name."""
    settings = installation.settings
    state, keys, store = Path(settings.state_path), settings.keys_path, settings.store_path
    stored = [Path(node.path) for node in nodes_in(store)]
    found = obstacle([state, keys, store], [keys / KEY_FILE], stored)
    yield _judged("start.state", found, f"keys and store can be written in {settings.state_path}")
    found = _socket_obstacle(settings.socket_path)
    yield _judged("start.socket", found, f"a socket can be made at {settings.socket_path}")
    if (shared := settings.verify_socket).path:
        found = _shared_obstacle(shared)
        yield _judged("start.verify", found, f"a verify socket can be made at {shared.path}")
    if (shared := settings.ask_socket).path:
        yield _judged("start.ask", _shared_obstacle(shared), f"an ask socket can be made at {shared.path}")
    if path := settings.passphrase_file:
        found = _passphrase_obstacle(path, settings.keys_path)
        yield _judged("start.passphrase", found, f"{path} holds a passphrase")


def _judged(name: str, obstacle: str | None, well: str) -> Finding:
    return ok(name, well) if obstacle is None else refused(name, obstacle)


def obstacle(folders: list[Path], read: list[Path], written: list[Path]) -> str | None:
    """What keeps this user from making and writing files in the folders, and from using those that exist.

    A missing folder would be made, so the nearest one above it is tried. A sentence with the remedy last.
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
    for file in filter(os.path.lexists, read):
        if not _may(file, os.R_OK):
            return f"{file} cannot be read; see who owns it"
    for file in filter(os.path.exists, written):
        if not _may(file, os.R_OK | os.W_OK):
            return _not_writable(file)
    return None


def _may(path: Path | str, mode: int) -> bool:
    # access(2) takes mount options and file attributes into account, and writes nothing.
    return os.access(path, mode, effective_ids=True)


def _not_writable(path: Path | str) -> str:
    is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    why = "is on a file system that is mounted read-only" if is_read_only else "cannot be written by you"
    return f"{path} {why}; {_ELSEWHERE}"


def _socket_obstacle(path: str) -> str | None:
    return obstacle([Path(path).parent], [], [Path(f"{path}.lock")])


def _shared_obstacle(shared: SharedSocket) -> str | None:
    try:
        check_shared_socket(shared)
    except AgentdError as error:
        return error.sentence
    except OSError as error:
        return f"{error.filename} cannot be examined: {error.strerror}; {_ELSEWHERE}"
    return _socket_obstacle(shared.path)


def _passphrase_obstacle(path: str, keys_path: Path) -> str | None:
    try:
        wipe(passphrase_of_file(path))
        form = key_file_form(keys_path)
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
