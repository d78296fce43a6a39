"""The store's folder: private, locked against a second agent, and emptied without traces.

Everything in it is 0600 within a folder of 0700, whatever the umask. The folder lock is an flock on a
file of its own; LMDB's lock file, which lets several processes share an environment, is not used.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd_client import file_locks
from agentd_client.errors import StoreError, StoreInUseError
from agentd_client.private import Fault, make_folders, private_fault, sync_folder

from .errors import os_errors_translated

DATA_NAME = "data.mdb"  # this and the next are LMDB's own names
LMDB_LOCK_NAME = "lock.mdb"
FOLDER_LOCK_NAME = "agentd.lock"
CREATING_NAME = "creating"
STOP_MARK_NAME = "stopped"

_LOCK_ATTEMPTS = 16  # each one lost means that a store was destroyed under us at that very moment


class StoreFolder:
    """The files of one store. Every method blocks on the disk: call them in a worker thread."""

    def __init__(self, path: Path, served_at: str = "") -> None:
        self.path = path
        self._served_at = served_at
        self.data_file = path / DATA_NAME
        self._lock_fd: int | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder lock for a while."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> None:
        """Make the folder where it is missing, check it, and lock it.

        Raises:
            StoreInUseError: another agent holds the lock, be it in this process.
            StoreError: the folder, or one above it, belongs to another user or is open to others.
        """
        with os_errors_translated():
            for _ in range(_LOCK_ATTEMPTS):
                _refuse("store folder", make_folders(self.path))
                _check(self.path, "store folder", stat.S_ISDIR)
                fd = self._try_lock()
                if fd is not None:
                    file_locks.sign(fd, self._served_at)
                    self._lock_fd = fd
                    return
        raise StoreInUseError(f"{self.path}: the folder lock changes hands faster than it can be taken")

    def release(self) -> None:
        """Let go of the folder lock; nothing where it is not held."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)

    def _try_lock(self) -> int | None:
        path = self.path / FOLDER_LOCK_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None  # the folder was destroyed between making and locking it
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise StoreError(f"{path} is not a lock file; move it away") from None
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock file that was removed while we opened it can be locked, and so can its successor.
            if _is_at(fd, path):
                os.fchmod(fd, 0o600)
                return fd
        except BlockingIOError:
            os.close(fd)
            holder = file_locks.holder_of(path)
            raise StoreInUseError(
                f"{self.path}: another agent uses this store; stop it first"
                if holder is None
                else f"{self.path}: another agent uses this store: {holder}; "
                f"use that one, or stop it first (`kill {holder.pid}`)"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def has_data(self) -> bool:
        """Whether there is a data file, of whatever content."""
        return os.path.lexists(self.data_file)

    def check_files(self) -> None:
        """Refuse files that are not regular, private and the user's own; make a missing lock file."""
        with os_errors_translated():
            _check(self.data_file, "data file", stat.S_ISREG)

    @contextmanager
    def creating(self) -> Iterator[Path]:
        """A folder to make a data file in, which becomes the store's at the end if nothing went wrong.

        A store that is half made never bears the data file's name: wherever the machine stops, the next
        start finds either no store or a whole one.
        """
        made = self.path / CREATING_NAME
        with os_errors_translated():
            self._remove(CREATING_NAME)
            made.mkdir()
            made.chmod(0o700)
            # LMDB opens its files more than once, which under a umask like 0777 only their maker's
            # first descriptor would survive; it takes empty files for new ones.
            _make_file(made / DATA_NAME)
            yield made
            os.rename(made / DATA_NAME, self.data_file)
            sync_folder(self.path)
            self._remove(CREATING_NAME)

    def remove_data(self) -> None:
        """Remove the data, damaged or not; the folder lock must be held."""
        with os_errors_translated():
            for name in (STOP_MARK_NAME, DATA_NAME, LMDB_LOCK_NAME, CREATING_NAME):
                self._remove(name)
            sync_folder(self.path)

    def remove_stop_mark(self) -> None:
        """Remove the mark of a clean stop: from now on the data may change.

        LMDB's lock file, which 0.1.0 left, goes too: nothing uses it.
        """
        with os_errors_translated():
            self._remove(STOP_MARK_NAME)
            self._remove(LMDB_LOCK_NAME)

    def remove_folder(self) -> bool:
        """Remove all that is the store's, under its lock; False where foreign files keep the folder."""
        self.remove_data()
        with os_errors_translated():
            self._remove(FOLDER_LOCK_NAME)
            try:
                os.rmdir(self.path)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return False
            sync_folder(self.path.parent)
        return True

    def _remove(self, name: str) -> None:
        path = self.path / name
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shutil.rmtree(path)


def check_folder(path: Path) -> None:
    """See that a store can be kept there and no other agent has it; raises as `StoreFolder.acquire`."""
    with StoreFolder(path).locked():
        pass


def _make_file(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _check(path: Path, what: str, is_kind: Callable[[int], bool]) -> None:
    found = os.lstat(path)
    if not is_kind(found.st_mode):
        raise StoreError(f"{path} is not a {what}; move it away")
    _refuse(what, private_fault(path, found))


def _refuse(what: str, fault: Fault | None) -> None:
    if fault is not None:
        raise StoreError(f"{what} {fault}")


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
