"""Lock files: taking an flock(2) with a deadline, and finding out who holds one.

flock(2) has no timeout, and polling is unfair: under load a lock is free for microseconds. So a thread waits
in the kernel, which wakes waiters in turn; it is left behind when the time is up. The holder writes its pid
and its socket into the file. That text outlives it, and pids are reused, so it counts only if /proc/locks
names the same process. Reading that takes no lock, so it cannot make another process's start fail.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from . import paths
from .errors import AgentdError
from .private import FILE_MODE, READ_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from .light_typing import NamedTuple

_LOCK = r"^\d+: FLOCK +\w+ +\w+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) "
"""A line of proc_locks(5)."""

_MAX_BYTES = 512
"""A pid, and a path of at most 107 bytes."""

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STORE_LOCK = ("store", "agentd.lock")

_ATTEMPTS = 16
"""Each one lost means that the lock file was removed at that very moment."""


def open_locked(path: str | os.PathLike[str], *, seconds: float = 0.0, dir_fd: int | None = None) -> int:
    """Lock a lock file, which is made with mode 0600 if it is missing; returns its descriptor.

    Args:
        path: the lock file.
        seconds: how long to wait for another process to release it.
        dir_fd: the open folder that a relative path is in.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: it cannot be locked, or is something else than a file of this user's.
    """
    deadline = time.monotonic() + seconds
    attempt = 0
    while attempt < _ATTEMPTS or time.monotonic() < deadline:
        attempt += 1
        descriptor = _open(path, dir_fd)
        try:
            if not lock_within(descriptor, deadline - time.monotonic()):
                raise BlockingIOError(errno.EAGAIN, "another process holds the lock", path)
            # A lock file that was removed between open and flock can be locked, and so can the one that was
            # made in its place. Only the file that the path leads to counts.
            if is_at(descriptor, path, dir_fd=dir_fd):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise OSError(errno.ESTALE, "it is removed again and again", path)


def is_at(descriptor: int, path: str | os.PathLike[str], *, dir_fd: int | None = None) -> bool:
    """Whether a path still leads to that open file."""
    try:
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)


def _open(path: str | os.PathLike[str], dir_fd: int | None) -> int:
    foreign = OSError(errno.EINVAL, "not a lock file of your own, move it away", path)
    try:
        descriptor = os.open(path, _LOCK_FLAGS, FILE_MODE, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise foreign from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise foreign
        if stat.S_IMODE(found.st_mode) != FILE_MODE:
            os.fchmod(descriptor, FILE_MODE)  # the umask took our own rights, or others could hold the lock
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file exclusively; False if another process held it for all of `seconds`.

    Raises OSError as flock(2) gives it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return seconds > 0 and _Waiting(descriptor).granted_within(seconds)
    return True


class _Waiting:
    """A thread that waits in flock(2), on a duplicate descriptor: the lock belongs to the open file."""

    def __init__(self, descriptor: int) -> None:
        import threading  # only needed when another process holds the lock

        self._descriptor = os.dup(descriptor)
        self._decision = threading.Lock()
        self._granted = threading.Event()
        self._given_up = False
        threading.Thread(target=self._wait, name="agentd-file-lock", daemon=True).start()

    def granted_within(self, seconds: float) -> bool:
        """Wait for the lock; one that is granted too late is released again."""
        try:
            self._granted.wait(seconds)
        finally:  # also where Ctrl-C ends the wait
            with self._decision:
                self._given_up = not self._granted.is_set()
        return not self._given_up

    def _wait(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with self._decision:
                if self._given_up:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                else:
                    self._granted.set()
        finally:
            os.close(self._descriptor)


class Holder(NamedTuple):
    """The agent that holds a lock; `socket_path` is where it is reached, empty where it did not say."""

    pid: int
    socket_path: str

    def __str__(self) -> str:
        return f"process {self.pid}" + (f", which serves {self.socket_path}" if self.socket_path else "")


def sign(descriptor: int, socket_path: str) -> None:
    """Write into a lock file, which this process holds, who holds it; skipped if the disk is full."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"{os.getpid()}\n{socket_path}\n"), 0)
    except OSError:
        pass


def holder_of(path: str | os.PathLike[str]) -> Holder | None:
    """Who holds that lock file; None if nobody does or if it is not known."""
    try:
        descriptor = os.open(path, READ_FLAGS)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return None
            lines = os.fsdecode(os.pread(descriptor, _MAX_BYTES, 0)).split("\n")
        finally:
            os.close(descriptor)
        with open("/proc/locks", errors="surrogateescape") as locks:
            pids = flock_holders(locks.read(), found.st_dev, found.st_ino)
    except OSError:
        return None
    if len(lines) < 3 or not lines[0].isdecimal() or int(lines[0]) not in pids:
        return None
    return Holder(int(lines[0]), lines[1] if lines[1].isprintable() else "")


def flock_holders(locks: str, device: int, inode: int) -> list[int]:
    """The processes that hold an flock(2) on a file, by the text of /proc/locks.

    Processes of other pid namespaces are not in it. On btrfs and overlayfs, stat(2) reports another device
    than the kernel uses: there, where the major number is 0, only the inode is compared.
    """
    import re  # only needed when no agent answers

    numbers = (os.major(device), os.minor(device))
    return [
        int(pid)
        for pid, major, minor, found in re.findall(_LOCK, locks, re.MULTILINE)
        if int(found) == inode and ((int(major, 16), int(minor, 16)) == numbers or int(major, 16) == 0)
    ]


def agent_elsewhere(path: str) -> str | None:
    """What to do if nobody answers at `path` although an agent of this user runs; None if none is known.

    It is found by the lock of that socket, or by that of the store in the default state folder.
    """
    holder = holder_of(f"{path}.lock")
    if holder is not None:
        return (
            f"process {holder.pid} is the agent of that socket, and about to make it (again): try again, "
            f"or see its log; `kill {holder.pid}` ends it"
        )
    try:
        holder = holder_of(os.path.join(paths.state_dir(), *_STORE_LOCK))
    except AgentdError:
        return None
    if holder is None or not holder.socket_path:
        return None
    if holder.socket_path == path:
        return (
            f"process {holder.pid} is the agent of that socket, which was removed under it: it makes it "
            "again in a second; where it cannot, run `systemctl --user restart agentd.socket`, or "
            f"`kill {holder.pid}` and `agentd serve`"
        )
    return (
        f"your agent is {holder}: set AGENTD_SOCKET to that path, or end it (`kill {holder.pid}`) and start "
        "one here with `agentd serve`"
    )
