"""The root key's file: 32 raw bytes, mode 0600, in a folder of mode 0700.

Read straight into locked memory and written straight from it, so that the key never becomes a Python
object. Written to a temporary beside it, synced, linked or renamed into place, and the folder synced
(rename(2), fsync(2)): an interruption leaves the old file or the new one.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from agentd_client.errors import KeyFileError

from ..crypto import KEY_BYTES

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def _refuse(path: Path, reason: str, remedy: str) -> KeyFileError:
    return KeyFileError(f"{path} is refused: {reason}; {remedy}")


def _failed(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path} cannot be used: {error.strerror}")


def _check(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise _refuse(path, f"it belongs to uid {found.st_uid}", "give it to the user who runs the agent")
    if stat.S_IMODE(found.st_mode) & 0o077:
        kind = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise _refuse(path, "others may open it", f"run `chmod {kind} {path}`")


def prepare_folder(folder: Path) -> None:
    """Make the key folder and its missing parents, or make sure that only its owner can enter it."""
    try:
        _make_folder(folder)
        found = folder.stat()
    except OSError as error:
        raise _failed(folder, error) from error
    _check(folder, found)


def read_key(path: Path, target: memoryview) -> bool:
    """Read the key into `target`; False where there is no file.

    Raises:
        KeyFileError: not a regular file of 32 bytes, another's, or open to others; says the remedy.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(path, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refuse(path, "it is not a regular file", "restore the key file from a backup")
        _check(path, found)
        if found.st_size != KEY_BYTES or os.readv(descriptor, [target]) != KEY_BYTES:
            raise _refuse(
                path, f"it has {found.st_size} bytes, not {KEY_BYTES}", "restore the key file from a backup"
            )
    finally:
        os.close(descriptor)
    return True


def write_key(path: Path, key: memoryview, *, replace: bool) -> bool:
    """Write the key; without `replace`, False where another process was first and its file stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            _write_and_sync(descriptor, key)
            written = _put_in_place(temporary, path, replace=replace)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    return written


def remove_key(path: Path) -> None:
    """Remove the key file, and its folder where nothing else is in it."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(path, error) from error


def _make_folder(folder: Path) -> None:
    # Its parents too, each private: mkdir(parents=True) would leave theirs to the umask.
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(_FOLDER_MODE)
    except FileExistsError:
        return  # made by another meanwhile, or no folder: what follows tells
    folder.chmod(_FOLDER_MODE)  # whatever the umask took away
    _sync_folder(folder.parent)


def _write_and_sync(descriptor: int, key: memoryview) -> None:
    os.fchmod(descriptor, _FILE_MODE)  # whatever the umask took away
    while key:
        key = key[os.write(descriptor, key) :]
    os.fsync(descriptor)


def _put_in_place(temporary: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        os.replace(temporary, path)
        return True
    try:
        # link(2) never overwrites: of two agents that start at once, one makes the key and both use it.
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
