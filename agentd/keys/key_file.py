"""The root key's file, mode 0600, in a folder of mode 0700.

It has one of two forms, told apart without a passphrase:

    32 raw bytes                    the key itself
    one line, `k4.local-pw.…`       the key wrapped with a passphrase (`paserk.py`), and a line feed

The key is read straight into locked memory and written straight from it, so that it never becomes a
Python object. A file is written to a temporary beside it, synced, linked or renamed into place, and the
folder synced (rename(2), fsync(2)): an interruption leaves the old file or the new one. Writers take turns by
a lock on the folder, so that a temporary found by whoever holds the lock is what an interrupted writer left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd_client.errors import KeyFileError
from agentd_client.private import Fault, folders_fault, make_folders, private_fault, sync_folder

from ..crypto import KEY_BYTES
from .paserk import HEADER, TEXT_CHARACTERS

LOCK_SECONDS = 2.0
"""For the writers before: one takes as long as a sync. Whoever holds the lock for ever, on purpose or
stopped, must not keep an agent that waits here from being locked."""

_LOCK_PAUSE_SECONDS = 0.02
_FILE_MODE = 0o600
_LINE_BYTES = TEXT_CHARACTERS + 1
_RANDOM_BYTES = 8  # in the names of temporaries

RESTORE = "restore the key file from a backup, or begin anew with `agentd init --fresh`"
"""What helps where a key file is of no use."""


def _refuse(path: Path, reason: str, remedy: str) -> KeyFileError:
    return KeyFileError(f"{path} is refused: {reason}; {remedy}")


def _failed(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path} cannot be used: {error.strerror}")


def _check(fault: Fault | None) -> None:
    if fault is not None:
        raise KeyFileError(str(fault))


def prepare_folder(folder: Path) -> None:
    """Make the key folder and its missing parents, or see that nobody else can enter or replace it."""
    try:
        _check(make_folders(folder))
        _check(private_fault(folder, folder.stat()))
        _check(folders_fault(folder))  # it may be a link to somewhere else
    except OSError as error:
        raise _failed(folder, error) from error


class KeyFile:
    """An open key file that only its owner can open, of one of the two forms."""

    def __init__(self, path: Path, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refuse(path, "it is not a regular file", RESTORE)
        _check(private_fault(path, found))
        if found.st_size not in (KEY_BYTES, _LINE_BYTES):
            raise _refuse(
                path,
                f"it has {found.st_size} bytes; a key has {KEY_BYTES}, a protected one {_LINE_BYTES}",
                RESTORE,
            )
        self._path, self._descriptor = path, descriptor
        self.is_protected = found.st_size == _LINE_BYTES

    def read_key(self, target: memoryview) -> None:
        """Read a raw key into locked memory."""
        if os.preadv(self._descriptor, [target], 0) != KEY_BYTES:
            raise _refuse(self._path, "it became shorter while it was read", RESTORE)

    def read_text(self) -> str:
        """The PASERK string of a protected key; its beginning and its length are as they should be."""
        line = os.pread(self._descriptor, _LINE_BYTES, 0)
        if not line.startswith(HEADER.encode()) or not line.endswith(b"\n") or not line.isascii():
            raise _refuse(self._path, f"it is not one line that begins with {HEADER}", RESTORE)
        return line[:-1].decode("ascii")


@contextmanager
def opened(path: Path) -> Iterator[KeyFile | None]:
    """The key file for the time of a `with`; None where there is none.

    Raises:
        KeyFileError: not a regular file of a key's size, another's, open to others, or in a folder in which
            others could replace it; says the remedy.
    """
    try:
        _check(folders_fault(path.parent))
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
    """Whether this key file needs a passphrase; None where there is none. `KeyFileError` as `opened`."""
    with opened(path) as file:
        return None if file is None else file.is_protected


def line_of(text: str) -> memoryview:
    """What a protected key file holds."""
    return memoryview(text.encode("ascii") + b"\n")


def write_key(path: Path, content: memoryview, *, replace: bool) -> bool:
    """Write a key file; without `replace`, False where another process was first and its file stays."""
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
    """Remove what interrupted writers left beside a key file: it may be the key without its passphrase."""
    try:
        if leftovers(path):
            with _locked(path.parent) as folder:
                _remove_leftovers(path)
                os.fsync(folder)
    except OSError as error:
        raise _failed(path.parent, error) from error


def remove_key(path: Path) -> None:
    """Remove the key file, and its folder where nothing else is in it."""
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
    """What interrupted writers left beside a key file."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}")
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]


def _remove_leftovers(path: Path) -> None:
    for leftover in leftovers(path):
        leftover.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock_in_time(descriptor)  # until it is closed
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_in_time(descriptor: int) -> None:
    last = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= last:
                raise OSError(errno.EAGAIN, "another process holds the lock on its folder") from None
        time.sleep(_LOCK_PAUSE_SECONDS)


def _write_and_sync(descriptor: int, content: memoryview) -> None:
    os.fchmod(descriptor, _FILE_MODE)  # whatever the umask took away
    while content:
        content = content[os.write(descriptor, content) :]
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
