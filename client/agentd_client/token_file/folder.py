"""The folder of the token file: made private, checked, locked for one writer at a time.

Everything in it is done through one open descriptor (openat(2) and its family), so that nobody whom the check
(`private`) keeps out can swap a checked folder for another before it is used.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from ..errors import TokenFileBusyError, TokenFileError
from ..file_locks import open_locked
from ..private import FILE_MODE, folders_fault, make_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS = 5.0
"""How long to wait for another writer, whose write takes milliseconds, even on a slow disk."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TokenFolder:
    """An open folder; names are of files in it. Methods raise `OSError` as the system gives it."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def opened_for_writing(cls, path: str) -> Iterator[TokenFolder]:
        """Make the folder where it is missing, and refuse one in which others could replace our files."""
        fault = make_folders(path) or folders_fault(path)
        if fault is not None:
            raise TokenFileError(f"the token file's folder {fault}")
        with cls.opened(path) as folder:
            yield folder

    @classmethod
    @contextmanager
    def opened(cls, path: str) -> Iterator[TokenFolder]:
        """Open the folder as it is: enough to remove something from it."""
        descriptor = os.open(path, _FOLDER_FLAGS)
        try:
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    def open(self, name: str, flags: int, mode: int = 0) -> int:
        """Open a file of this folder; returns its descriptor."""
        return os.open(name, flags, mode, dir_fd=self._descriptor)

    def create(self, name: str, content: bytes) -> None:
        """Write a new file with mode 0600; its content is on the disk when this returns."""
        with open(self.open(name, _NEW_FLAGS, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)  # the umask may have removed our own permissions
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, old: str, new: str) -> None:
        """Replace one file by another, atomically: readers find the one or the other, never none."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> bool:
        """Remove whatever has that name, except a directory; returns whether there was anything."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Write the names to the disk, which syncing a file does not."""
        os.fsync(self._descriptor)

    @contextmanager
    def locked(self, name: str, *, removed_after: bool = False, waiting: bool = True) -> Iterator[None]:
        """Hold the lock file `name`; waits for other writers, at most `LOCK_SECONDS`, or not at all.

        Raises:
            TokenFileBusyError: another writer holds it for longer.
        """
        try:
            descriptor = open_locked(name, seconds=LOCK_SECONDS if waiting else 0.0, dir_fd=self._descriptor)
        except BlockingIOError:
            path = os.path.join(self.path, name)
            raise TokenFileBusyError(
                f"another process holds the token file's lock {path}; "
                f"try again, or find that process with `fuser {path}`"
            ) from None
        try:
            yield
            if removed_after:
                self.remove(name)  # `open_locked` of a waiting process notices and makes a new one
        finally:
            # Unlock before closing: a child that was forked meanwhile shares the open file and would keep
            # the lock as long as it lives.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
