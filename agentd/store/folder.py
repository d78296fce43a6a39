"""The store's folder: locked against a second agent, private, created and removed without traces.

The folder is 0700 and every file in it 0600, whatever the umask. The folder lock is an flock on a file of its
own; LMDB's lock file, with which several processes share an environment, is not used. All of it blocks on the
disk: call it in a worker thread.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from agentd_client import file_locks
from agentd_client.errors import AgentdError, StoreError, StoreInUseError
from agentd_client.private import make_folders, private_fault, sync_folder

from .data_file import STOP_MARK_NAME, check_header, new_header, verify_data_file, write_mark
from .entries import HEADER, KeyRing
from .environment import DATA_NAME, Environment
from .errors import os_errors_translated

LMDB_LOCK_NAME = "lock.mdb"  # LMDB's own name
FOLDER_LOCK_NAME = "agentd.lock"
CREATING_NAME = "creating"

_LOCK_ATTEMPTS = 16  # each failure means that a store was destroyed at that very moment


class StoreFolder:
    """The files of one store; the arguments are those of `DB`."""

    def __init__(
        self,
        path: Path,
        key_ring: KeyRing,
        *,
        map_bytes: int,
        max_map_bytes: int,
        served_at: str,
        logger: logging.Logger,
    ) -> None:
        self._path = path
        self.data_file = path / DATA_NAME
        self._key_ring = key_ring
        self._open_environment = partial(
            Environment, map_bytes=map_bytes, max_map_bytes=max_map_bytes, logger=logger
        )
        self._served_at = served_at
        self._log = logger
        self._lock_fd = -1  # while it is open

    def open(self, fresh: bool) -> Environment:
        """Lock the folder, create a store if there is none (or `fresh`), and open it.

        On failure, everything is closed again and the lock released. Raises what `DB.start` lists.
        """
        with os_errors_translated(), ExitStack() as undo:
            lock_fd = lock_folder(self._path, self._served_at)
            undo.callback(os.close, lock_fd)
            if fresh:
                self.remove_data()
            if not os.path.lexists(self.data_file):
                self._create()
            _require_private(self.data_file, "data file", stat.S_ISREG)
            verify_data_file(self.data_file, self._key_ring, self._log)
            environment = self._open_environment(self._path, is_new=False)
            undo.callback(environment.close)
            (header,) = environment.get((HEADER,))
            check_header(self._path, header, self._key_ring)
            self._remove(STOP_MARK_NAME)  # the data may change from now on
            self._remove(LMDB_LOCK_NAME)  # 0.1.0 left it, and nothing uses it
            self._lock_fd = lock_fd
            undo.pop_all()
            return environment

    def close(self, environment: Environment, *, is_clean: bool) -> None:
        """Undo `open`; no transaction may be open. `is_clean`: no commit has failed."""
        try:
            transaction = environment.transaction if is_clean else None
            environment.close()
            if transaction is not None:
                try:
                    write_mark(self.data_file, transaction, self._key_ring)
                except (OSError, AgentdError) as error:
                    # A full disk, or a folder or key ring that is gone. The next start only takes longer.
                    self._log.info("could not mark this stop as clean: %s", error)
        finally:
            os.close(self._lock_fd)

    def remove(self) -> None:
        """Remove the store's files and its folder, under its lock."""
        if not os.path.lexists(self._path):
            return
        lock_fd = lock_folder(self._path, self._served_at)
        try:
            with os_errors_translated():
                self.remove_data()
                self._remove(FOLDER_LOCK_NAME)
                try:
                    os.rmdir(self._path)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    self._log.warning("%s was not removed: it holds other files", self._path)
                else:
                    sync_folder(self._path.parent)
        finally:
            os.close(lock_fd)

    def remove_data(self) -> None:
        """Remove the data, damaged or not; the folder lock must be held."""
        for name in (STOP_MARK_NAME, DATA_NAME, LMDB_LOCK_NAME, CREATING_NAME):
            self._remove(name)
        sync_folder(self._path)

    def _create(self) -> None:
        # An unfinished data file never has its final name: wherever the machine stops, the next start finds
        # either no store or a whole one.
        made = self._path / CREATING_NAME
        self._remove(CREATING_NAME)
        made.mkdir()
        made.chmod(0o700)
        # LMDB opens its file more than once. Under a umask like 0777 only the first open of a file that it
        # creates itself would succeed. It takes an empty file for a new one.
        empty = made / DATA_NAME
        empty.touch(0o600, exist_ok=False)
        empty.chmod(0o600)
        with closing(self._open_environment(made, is_new=True)) as environment:
            environment.write_first(HEADER, new_header(self._key_ring))
        os.rename(empty, self.data_file)
        sync_folder(self._path)
        self._remove(CREATING_NAME)

    def _remove(self, name: str) -> None:
        path = self._path / name
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shutil.rmtree(path)


def check_folder(path: Path) -> None:
    """Check that a store can be kept there and no other agent uses it; raises as `lock_folder`."""
    os.close(lock_folder(path))


def lock_folder(path: Path, served_at: str = "") -> int:
    """Create the folder if it is missing, check it, and lock it until the returned descriptor is closed.

    Raises:
        StoreInUseError: another agent holds the lock, possibly in this process.
        StoreError: the folder, or one above it, belongs to another user or is open to others.
    """
    lock_path = path / FOLDER_LOCK_NAME
    with os_errors_translated():
        for _ in range(_LOCK_ATTEMPTS):
            if (fault := make_folders(path)) is not None:
                raise StoreError(f"store folder {fault}")
            _require_private(path, "store folder", stat.S_ISDIR)
            try:
                lock_fd = file_locks.open_locked(lock_path)
            except FileNotFoundError:
                continue  # the folder was removed between creating and locking it
            except BlockingIOError:
                raise _in_use(lock_path) from None
            file_locks.sign(lock_fd, served_at)
            return lock_fd
    raise StoreInUseError(
        f"{path}: the folder lock is removed again and again; something cleans up that folder"
    )


def _in_use(lock_path: Path) -> StoreInUseError:
    holder = file_locks.holder_of(lock_path)
    if holder is None:
        return StoreInUseError(f"{lock_path.parent}: another agent uses this store; stop it first")
    return StoreInUseError(
        f"{lock_path.parent}: another agent uses this store: {holder}; "
        f"use that one, or stop it first (`kill {holder.pid}`)"
    )


def _require_private(path: Path, what: str, is_kind: Callable[[int], bool]) -> None:
    found = os.lstat(path)
    if not is_kind(found.st_mode):
        raise StoreError(f"{path} is not a {what}; move it away")
    if (fault := private_fault(path, found)) is not None:
        raise StoreError(f"{what} {fault}")
