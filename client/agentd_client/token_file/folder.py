"""The folder of the token file: made private, checked, locked for one writer at a time.

Everything in it is done through one open descriptor (openat(2) and its family), so that a folder that was
checked cannot be swapped for another before it is used: not by those whom the check (`private`) keeps out.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager

from ..errors import TokenFileBusyError, TokenFileError
from ..file_locks import lock_within
from ..private import FILE_MODE, folders_fault, make_folders
from . import folder_refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS = 5.0
"""For another writer to let go of the lock; a write takes milliseconds, even where the disk is slow."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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
            raise folder_refused(fault)
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

    def rename(self, old: str, new: str) -> None:
        """Put one file in the place of another: whoever looks finds the one or the other, never none."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> bool:
        """Remove the name, whatever it is but a directory; whether there was one."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Bring the names to the disk: a file's own fsync does not."""
        os.fsync(self._descriptor)

    @contextmanager
    def locked(self, name: str, *, removed_after: bool = False, waiting: bool = True) -> Iterator[None]:
        """Hold the lock file `name`; waits for other writers, at most `LOCK_SECONDS`, or not at all.

        Raises:
            TokenFileBusyError: another writer holds it for longer.
            TokenFileError: it is not a file of our own.
        """
        deadline = time.monotonic() + (LOCK_SECONDS if waiting else 0)
        while (descriptor := self._lock(name, deadline - time.monotonic())) is None:
            pass  # it was removed meanwhile: the one that the folder names now is the lock
        try:
            yield
            if removed_after:
                self.remove(name)  # whoever waits for it finds out in _lock, and makes a new one
        finally:
            # Unlocked, not only closed: a child forked meanwhile shares the open file, and would keep the
            # lock for its whole life.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _lock(self, name: str, seconds: float) -> int | None:
        descriptor = self.open(name, _LOCK_FLAGS, FILE_MODE)
        kept = False
        try:
            ours = os.fstat(descriptor)
            if not stat.S_ISREG(ours.st_mode) or ours.st_uid != os.geteuid():
                path = os.path.join(self.path, name)
                raise TokenFileError(
                    f"the token file's lock {path} is not a file of your own; choose another path"
                )
            if stat.S_IMODE(ours.st_mode) != FILE_MODE:
                os.fchmod(descriptor, FILE_MODE)  # a umask took our own rights, or others could hold the lock
            if not lock_within(descriptor, seconds):
                path = os.path.join(self.path, name)
                raise TokenFileBusyError(
                    f"another process holds the token file's lock {path}; "
                    f"try again, or see who with `fuser {path}`"
                )
            # Removed between open and flock, and made anew by another: both would hold "the" lock.
            kept = self._is_still(name, ours)
        finally:
            if not kept:
                os.close(descriptor)
        return descriptor if kept else None

    def _is_still(self, name: str, ours: os.stat_result) -> bool:
        try:
            named = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, ours)
