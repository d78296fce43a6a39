"""The state folder, which holds keys and store: what must be true of it before the agent starts."""

from __future__ import annotations

import os
import stat

from agentd_client.errors import KeyFileError, StateFolderError
from agentd_client.private import OTHERS_WRITE, Fault, folders_fault, make_folders, private_fault

from .config import Settings
from .keys import KEY_FILE
from .store import check_folder


def prepare_state(settings: Settings) -> None:
    """Make the state folder if it is missing, and check that keys and store can be kept in it.

    An unusable place is refused here, before there is a key. Blocks on the disk: call it in a thread.

    Raises:
        StateFolderError: others could replace what is in it, or the system refuses it; says what to do.
        StoreError, StoreInUseError: the store's folder in it is refused, or another agent holds it.
    """
    path = settings.state_path
    try:
        fault = make_folders(path) or folders_fault(path) or state_folder_fault(path)
    except OSError as error:
        raise StateFolderError(
            f"keys and store cannot be kept in {path}: {error.strerror}; choose another place with --state, "
            "state_path or XDG_STATE_HOME"
        ) from error
    if fault is not None:
        raise StateFolderError(f"the state folder: {fault}")
    check_folder(settings.store_path)


def state_folder_fault(path: str) -> Fault | None:
    """Why that folder cannot hold keys and store; others may read it, because those have private folders.

    It must be the user's own and writable by nobody else, even if it is sticky: another user could take the
    name of the file that marks the agent as locked.

    Raises:
        OSError: it is not there, or cannot be examined.
    """
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        return Fault(path, "it is not a folder", "move it away, or choose another place with --state")
    fault = private_fault(path, found)
    if fault is not None and (found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE):
        return fault
    return None


def check_key_file(settings: Settings) -> None:
    """Raise KeyFileError if there is a store and its key file is gone: no new key is made beside it."""
    key_file = settings.keys_path / KEY_FILE
    if settings.store_path.is_dir() and not key_file.exists() and any(settings.store_path.glob("data.*")):
        raise KeyFileError(
            f"{key_file} is gone, and the store in {settings.store_path} cannot be opened without it; "
            "restore the key file, or start over with `agentd init --fresh`"
        )
