"""The store's folder: private, locked against a second agent, and removed without traces.

The folder is 0700 and every file in it 0600, whatever the umask. The folder lock is an flock on a file of its
own; LMDB's lock file, with which several processes share an environment, is not used.
"""

from __future__ import annotations

import errno
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

_LOCK_ATTEMPTS = 16  # each failure means that a store was destroyed at that very moment


class StoreFolder:
    """The files of one store. Every method blocks on the disk: call it in a worker thread."""

    def __init__(self, path: Path, served_at: str = "") -> None:
        self.path = path
        self._served_at = served_at
        self.data_file = path / DATA_NAME
        self._lock_fd: int | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder lock for the duration of a `with`."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> None:
        """Create the folder if it is missing, check it, and lock it.

        Raises:
            StoreInUseError: another agent holds the lock, possibly in this process.
            StoreError: the folder, or one above it, belongs to another user or is open to others.
        """
        lock_path = self.path / FOLDER_LOCK_NAME
        with os_errors_translated():
            for _ in range(_LOCK_ATTEMPTS):
                _raise_fault("store folder", make_folders(self.path))
                _check(self.path, "store folder", stat.S_ISDIR)
                try:
                    self._lock_fd = file_locks.open_locked(lock_path)
                except FileNotFoundError:
                    continue  # the folder was removed between creating and locking it
                except BlockingIOError:
                    raise self._in_use(lock_path) from None
                file_locks.sign(self._lock_fd, self._served_at)
                return
        raise StoreInUseError(
            f"{self.path}: the folder lock is removed again and again; something cleans up that folder"
        )

    def _in_use(self, lock_path: Path) -> StoreInUseError:
        holder = file_locks.holder_of(lock_path)
        if holder is None:
            return StoreInUseError(f"{self.path}: another agent uses this store; stop it first")
        return StoreInUseError(
            f"{self.path}: another agent uses this store: {holder}; "
            f"use that one, or stop it first (`kill {holder.pid}`)"
        )

    def release(self) -> None:
        """Release the folder lock; a no-op if it is not held."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)

    def has_data(self) -> bool:
        """Whether there is a data file, valid or not."""
        return os.path.lexists(self.data_file)

    def check_files(self) -> None:
        """Refuse a data file that is not a regular, private file of this user."""
        with os_errors_translated():
            _check(self.data_file, "data file", stat.S_ISREG)

    @contextmanager
    def creating(self) -> Iterator[Path]:
        """A folder to create a data file in, which becomes the store's at the end if nothing fails.

        An unfinished data file never has its final name: wherever the machine stops, the next start finds
        either no store or a whole one.
        """
        made = self.path / CREATING_NAME
        with os_errors_translated():
            self._remove(CREATING_NAME)
            made.mkdir()
            made.chmod(0o700)
            # LMDB opens its file more than once. Under a umask like 0777 only the first open of a file
            # that it creates itself would succeed. It takes an empty file for a new one.
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
        """Remove the mark of a clean stop, because the data may change from now on.

        Also removes LMDB's lock file that 0.1.0 left, which nothing uses.
        """
        with os_errors_translated():
            self._remove(STOP_MARK_NAME)
            self._remove(LMDB_LOCK_NAME)

    def remove_folder(self) -> bool:
        """Remove all of the store's files, under its lock; False if other files keep the folder."""
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
    """Check that a store can be kept there and no other agent uses it; raises as `StoreFolder.acquire`."""
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
    _raise_fault(what, private_fault(path, found))


def _raise_fault(what: str, fault: Fault | None) -> None:
    if fault is not None:
        raise StoreError(f"{what} {fault}")
