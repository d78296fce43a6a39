"""Files and folders that nobody else may read, change or replace, for client and agent.

Whoever can rename a folder decides what is in it, so every folder above a private file is checked, as sshd's
StrictModes does: each belongs to this user or to root, and nobody else can write to it. A sticky folder such
as /tmp passes. The folders of a symbolic link's target are checked too. What is wrong is returned as a
`Fault`, which the caller turns into the error that fits.
"""

from __future__ import annotations

import errno
import os
import stat

from .user_namespace import own_uid_fault, stands_for_others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from .light_typing import NamedTuple

FOLDER_MODE = 0o700
FILE_MODE = 0o600

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""To open what may be no file at all: waits for no writer of a FIFO and follows no symbolic link."""

OTHERS = 0o077
"""All permissions of the group and of others."""

OTHERS_WRITE = 0o022

_MAX_LINKS = 40
"""As many as the kernel follows in one path, path_resolution(7)."""


class Fault(NamedTuple):
    """Why a file or folder is not trusted, and how to fix it."""

    path: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path} is refused: {self.reason}; {self.remedy}"


def folders_fault(path: str | os.PathLike[str]) -> Fault | None:
    """The first file or folder from / down to `path` that another user could replace or change.

    `path` itself is checked too, whether it is a file or a folder. What does not exist yet is no fault: this
    process will make it, in folders that passed.

    Raises:
        OSError: the path cannot be followed: a permission is missing, or symbolic links form a loop.
    """
    here = "/"
    fault = _fault(here, found := os.lstat(here), None)
    to_go = os.path.abspath(path).split("/")[::-1]
    links = 0
    while to_go and fault is None:
        name = to_go.pop()
        if name in ("", "."):
            continue
        if name == "..":  # of a link's target; `here` holds no links, so its text is right
            here = os.path.dirname(here)
            found = os.lstat(here)
            continue
        child = f"{here.rstrip('/')}/{name}"
        node = _lstat(child)
        if node is None:
            return None
        fault = _fault(child, node, found)
        if not stat.S_ISLNK(node.st_mode):
            here, found = child, node
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        target = os.readlink(child)
        if target.startswith("/"):
            here, found = "/", os.lstat("/")
        to_go.extend(target.split("/")[::-1])
    return fault


def private_fault(path: str | os.PathLike[str], found: os.stat_result) -> Fault | None:
    """Why a file or folder is not private: another owner, or permissions for others."""
    name, uid = os.fspath(path), os.geteuid()
    if found.st_uid != uid:
        return Fault(
            name,
            f"it belongs to uid {found.st_uid}, not to you (uid {uid})",
            "use one of your own",
        )
    if (whose := own_uid_fault()) is not None:
        return Fault(name, "anybody may be its owner", whose)
    if found.st_mode & OTHERS:
        mode = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
        return Fault(
            name,
            f"it is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            f"run `chmod {mode:o} {_quoted(name)}`",
        )
    return None


def make_folders(path: str | os.PathLike[str]) -> Fault | None:
    """Make a folder and its missing parents, each with mode 0700, unless a folder above has a fault.

    The folders are synced when this returns. An existing folder is left as it is; the caller checks it.

    Raises:
        OSError: as `folders_fault`, or the folder cannot be made.
    """
    folder = os.path.abspath(path)
    fault = folders_fault(os.path.dirname(folder))
    if fault is not None or not _make(folder):
        return fault
    # Check again: in a sticky folder another user may have made one of them first.
    return folders_fault(folder)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Sync a folder, so that the names in it are on the disk: fsync(2) of a file does not do that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: str) -> bool:
    if os.path.lexists(path):
        return False
    parent = os.path.dirname(path)
    _make(parent)
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:  # another process made it meanwhile
        return True
    if stat.S_IMODE(os.lstat(path).st_mode) != FOLDER_MODE:
        os.chmod(path, FOLDER_MODE)  # the umask removed our own permissions, or setgid was inherited
    sync_folder(parent)
    return True


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):  # the latter shows when the path is used
        return None


def _fault(path: str, found: os.stat_result, above: os.stat_result | None) -> Fault | None:
    uid = os.geteuid()
    if found.st_uid not in (uid, 0) and not _may_be_roots(found, above):
        owner = f"it belongs to uid {found.st_uid}, and you are uid {uid}"
        if uid == 0:  # do not advise root to take over a user's own folder
            return Fault(path, owner, "run this as that user, or choose a path in a folder of your own")
        return Fault(
            path,
            owner,
            f"have root run `chown {uid} {_quoted(path)}`, or choose a path in a folder of your own",
        )
    shared = found.st_mode & OTHERS_WRITE
    if not shared or stat.S_ISLNK(found.st_mode) or stat.S_ISCHR(found.st_mode) or _is_sticky(found):
        return None
    mode = stat.S_IMODE(found.st_mode)
    return Fault(path, f"others may write to it (mode {mode:04o})", f"run `chmod go-w {_quoted(path)}`")


def _is_sticky(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)


def _may_be_roots(found: os.stat_result, above: os.stat_result | None) -> bool:
    """Whether the owner is not mapped in this user namespace, so that it may be root.

    In such a namespace (a service with PrivateUsers=yes, a rootless container) root and all other unmapped
    users appear as the overflow uid. A file with that owner passes only if nobody but the owner of the folder
    above can have put it there: not in a folder that others can write to.
    """
    if above is not None and above.st_mode & OTHERS_WRITE:
        return False
    return stands_for_others(found.st_uid)


def _quoted(path: str) -> str:
    from shlex import quote  # only needed when something is refused

    return quote(path)
