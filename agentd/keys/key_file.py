"""The root key's file, mode 0600, in a folder of mode 0700.

It has one of two forms, distinguished by size:

    32 raw bytes                    the key itself
    one line, `k4.local-pw.…`       the key wrapped with a passphrase (`paserk.py`), and a line feed

The key is read into locked memory and written from it, and never becomes a Python object. A new file is
written as a temporary in the same folder, synced, then linked or renamed into place, and the folder synced:
an interruption leaves the old file or the new one. Writers hold a lock on the folder, so a temporary found
under the lock was left by an interrupted writer.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd_client.errors import KeyFileError
from agentd_client.file_locks import lock_within
from agentd_client.private import Fault, folders_fault, make_folders, private_fault, sync_folder

from ..crypto import KEY_BYTES
from .paserk import HEADER, TEXT_CHARACTERS

LOCK_SECONDS = 2.0
"""How long to wait for other writers, each of which takes one sync. A process that never gives the lock back
must not keep an agent that waits here from being locked."""

_FILE_MODE = 0o600
_LINE_BYTES = TEXT_CHARACTERS + 1
_RANDOM_BYTES = 8  # in the names of temporaries

RESTORE = "restore the key file from a backup, or start over with `agentd init --fresh`"
"""The remedy for a key file that cannot be used."""


def _rejected(path: Path, reason: str) -> KeyFileError:
    return KeyFileError(f"{path} is refused: {reason}; {RESTORE}")


def _failed(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path} cannot be used: {error.strerror}")


def _raise_fault(fault: Fault | None) -> None:
    if fault is not None:
        raise KeyFileError(str(fault))


def prepare_folder(folder: Path) -> None:
    """Create the key folder and its missing parents, or check that only this user can enter or replace it."""
    try:
        _raise_fault(make_folders(folder))
        _raise_fault(private_fault(folder, folder.stat()))
        _raise_fault(folders_fault(folder))  # the folder itself may be a link
    except OSError as error:
        raise _failed(folder, error) from error


class KeyFile:
    """An open key file of one of the two forms, readable by its owner only."""

    def __init__(self, path: Path, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _rejected(path, "it is not a regular file")
        _raise_fault(private_fault(path, found))
        if found.st_size not in (KEY_BYTES, _LINE_BYTES):
            raise _rejected(
                path, f"it has {found.st_size} bytes; a key has {KEY_BYTES}, a protected one {_LINE_BYTES}"
            )
        self._path, self._descriptor = path, descriptor
        self.is_protected = found.st_size == _LINE_BYTES

    def read_key(self, target: memoryview) -> None:
        """Read a raw key into locked memory."""
        if os.preadv(self._descriptor, [target], 0) != KEY_BYTES:
            raise _rejected(self._path, "it became shorter while it was read")

    def read_text(self) -> str:
        """The PASERK string of a protected key; only its prefix and length are checked here."""
        line = os.pread(self._descriptor, _LINE_BYTES, 0)
        if not line.startswith(HEADER.encode()) or not line.endswith(b"\n") or not line.isascii():
            raise _rejected(self._path, f"it is not one line that begins with {HEADER}")
        return line[:-1].decode("ascii")


@contextmanager
def open_key_file(path: Path) -> Iterator[KeyFile | None]:
    """The key file for the duration of a `with`; None if there is none.

    Raises:
        KeyFileError: it is not a regular file of a key's size, not this user's, open to others, or in a
            folder where others could replace it; names the remedy.
    """
    try:
        _raise_fault(folders_fault(path.parent))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _failed(path, error) from error
    try:
        try:
            yield KeyFile(path, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed(path, error) from error


def is_protected(path: Path) -> bool | None:
    """Whether this key file has a passphrase; None if there is no file. Raises as `open_key_file`."""
    with open_key_file(path) as file:
        return None if file is None else file.is_protected


def write_key(path: Path, content: memoryview, *, replace: bool) -> bool:
    """Write a key file; without `replace`, an existing file stays and the result is False."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM_BYTES)}")
    try:
        with _locked(path.parent) as folder:
            _remove_leftovers(path)
            try:
                descriptor = os.open(
                    temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE
                )
                try:
                    _write_and_sync(descriptor, content)
                finally:
                    os.close(descriptor)
                written = _put_in_place(temporary, path, replace=replace)
            finally:
                temporary.unlink(missing_ok=True)
            os.fsync(folder)
    except OSError as error:
        raise _failed(path, error) from error
    return written


def remove_leftovers(path: Path) -> None:
    """Remove what interrupted writers left next to a key file: it may be the key without its passphrase."""
    try:
        if leftovers(path):
            with _locked(path.parent) as folder:
                _remove_leftovers(path)
                os.fsync(folder)
    except OSError as error:
        raise _failed(path.parent, error) from error


def remove_key(path: Path) -> None:
    """Remove the key file, and its folder if nothing else is in it."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(path, error) from error


def leftovers(path: Path) -> list[Path]:
    """What interrupted writers left next to a key file."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}")
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]


def _remove_leftovers(path: Path) -> None:
    for leftover in leftovers(path):
        leftover.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock_within(descriptor, LOCK_SECONDS):
            raise OSError(errno.EAGAIN, "another process holds the lock on its folder")
        yield descriptor  # closing it releases the lock
    finally:
        os.close(descriptor)


def _write_and_sync(descriptor: int, content: memoryview) -> None:
    os.fchmod(descriptor, _FILE_MODE)  # whatever the umask
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _put_in_place(temporary: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        os.replace(temporary, path)
        return True
    try:
        # link(2) never overwrites: of two agents that start at once, one creates the key and both use it.
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True
