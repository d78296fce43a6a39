"""The folder of keys and store, seen to before anything is made in it."""

from __future__ import annotations

import os
import stat

from agentd_client.errors import StateFolderError
from agentd_client.private import OTHERS_WRITE, Fault, folders_fault, make_folders, private_fault

from .config import Settings
from .store import check_folder


def prepare_state(settings: Settings) -> None:
    """Make the state folder where it is missing, and see that keys and store can be kept in it.

    A place that is of no use is refused here, before there is a key. Blocks on the disk: call it in a thread.

    Raises:
        StateFolderError: others could replace what is in it, or the system refuses it; says what to do.
        StoreError, StoreInUseError: the store's folder in it is refused, or another agent holds it.
    """
    path = settings.state_path
    try:
        fault = make_folders(path) or folders_fault(path) or _own_fault(path)
    except OSError as error:
        raise StateFolderError(
            f"keys and store cannot be kept in {path}: {error.strerror}; choose another place with --state, "
            "state_path or XDG_STATE_HOME"
        ) from error
    if fault is not None:
        raise StateFolderError(f"the state folder: {fault}")
    check_folder(settings.store_path)


def _own_fault(path: str) -> Fault | None:
    # Sticky or not: the mark of a lock is a name in it, which nobody else may have taken.
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        return Fault(path, "it is not a folder", "move it away, or choose another place with --state")
    fault = private_fault(path, found)
    if fault is not None and (found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE):
        return fault
    return None
