"""The folder of a socket, and who may pass through it."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from agentd_client.errors import SocketPathError
from agentd_client.private import OTHERS, OTHERS_WRITE, folders_fault, make_folders

PRIVATE_MODE = 0o600
"""A socket's, until it is given to others on purpose."""

_FOLDER_NAME = "agentd"


class Access(NamedTuple):
    """Who can reach a socket, and where its path is set, for the errors.

    is_private: its folder is made where it is missing, and is nobody else's to enter. Otherwise others may
    pass through the folder, and whoever set the path made it: only they know for whom.
    gid: of the socket's group; None for the one that the folder or the process gives it.
    """

    setting: str
    is_private: bool
    mode: int
    gid: int | None


OWNERS = Access("AGENTD_SOCKET or --socket", is_private=True, mode=PRIVATE_MODE, gid=None)
"""The socket over which everything can be asked."""


def prepare_folder(folder: str, access: Access) -> None:
    """Make a socket's folder, or see that it is safe; raises SocketPathError, or the system's OSError."""
    setting = access.setting
    fault = make_folders(folder) if access.is_private else folders_fault(os.path.dirname(folder))
    if fault is not None:
        raise SocketPathError(f"{fault}, or set {setting} to another path")
    if not os.path.lexists(folder):
        raise SocketPathError(
            f"{folder} does not exist; make it so that others can pass through it, "
            f"or set {setting} to a path in another folder"
        )
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise SocketPathError(f"{folder} is not a folder; move it away, or set {setting} to another path")
    if found.st_uid != os.geteuid():
        raise SocketPathError(
            f"{folder} belongs to uid {found.st_uid}; set {setting} to a path in a folder of your own"
        )
    others = stat.S_IMODE(found.st_mode) & OTHERS
    if not access.is_private and others & OTHERS_WRITE:
        # They could put a socket of their own in its place.
        raise SocketPathError(
            f"others may write to {folder}; take that right from them (chmod go-w), "
            f"or set {setting} to a path in a folder of its own"
        )
    if access.is_private and others:
        # Whoever follows advice to close /tmp, / or a home folder breaks more than the agent.
        is_the_agents = os.path.basename(folder) == _FOLDER_NAME and not found.st_mode & stat.S_ISVTX
        closing = f"run `chmod 700 {folder}`, or " if is_the_agents else ""
        raise SocketPathError(
            f"others may enter {folder}; {closing}set {setting} to a path in a folder of its own"
        )
