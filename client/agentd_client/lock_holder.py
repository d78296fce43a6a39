"""Who holds a lock file: what its holder wrote into it, believed where the kernel names the same process.

What stands in the file outlives its writer, and pids are used again. /proc/locks names the process that holds
the lock now, as far as it is in this pid namespace; asking it takes no lock, so nobody's start fails by it.
"""

from __future__ import annotations

import os
import stat

from . import paths
from .errors import AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from .light_typing import NamedTuple

_LOCK = r"^\d+: FLOCK +\w+ +\w+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) "
"""A line of proc_locks(5)."""

_MAX_BYTES = 512
"""A pid, and a path of at most 107 bytes."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STORE_LOCK = ("store", "agentd.lock")


class Holder(NamedTuple):
    """The agent that holds a lock; `socket_path` is where it is reached, empty where it did not say."""

    pid: int
    socket_path: str

    def __str__(self) -> str:
        return f"process {self.pid}" + (f", which serves {self.socket_path}" if self.socket_path else "")


def sign(descriptor: int, socket_path: str) -> None:
    """Write into a lock file, which is locked, who holds it; without room on the disk it stays unsaid."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"{os.getpid()}\n{socket_path}\n"), 0)
    except OSError:
        pass


def holder_of(path: str | os.PathLike[str]) -> Holder | None:
    """Who holds that lock file; None where nobody does, or it cannot be known."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
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

    A process of another pid namespace is not in there. btrfs and overlayfs give stat(2) another device than
    the kernel itself uses: there, where the major number is 0, the inode has to do.
    """
    import re  # for those who find no agent

    numbers = (os.major(device), os.minor(device))
    return [
        int(pid)
        for pid, major, minor, found in re.findall(_LOCK, locks, re.MULTILINE)
        if int(found) == inode and ((int(major, 16), int(minor, 16)) == numbers or int(major, 16) == 0)
    ]


def agent_elsewhere(path: str) -> str | None:
    """What to do where nobody answers at `path` and an agent of this user runs; None where none is known.

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
