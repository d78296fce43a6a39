"""A socket of the agent's in the file system: its folder, its lock and its file, and what keeps them there.

In two steps: the agent takes the lock before it touches keys and store, and binds when it can answer::

    with SocketFile(path) as socket_file:      # of many agents that start at once, one gets past this line
        ...
        listener = socket_file.bind()
        ...                                    # and in a task beside: keep_in_place(socket_file, logger)
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self

import trio

from agentd_client import file_locks
from agentd_client.errors import AgentdError, AlreadyServingError, SocketPathError
from agentd_client.private import OTHERS, OTHERS_WRITE, folders_fault, make_folders

MAX_PATH_BYTES = 107
"""unix(7): sun_path has 108 bytes, the last one for the terminating NUL."""

BACKLOG = 128
"""Connections that wait to be accepted; more than that many at one instant wait in connect(2)."""

CHECK_SECONDS = 1.0
"""Between two looks, each of two system calls; so long nobody can connect to a socket that was removed."""

PRIVATE_MODE = 0o600
"""A socket's, until it is given to others on purpose."""

_FOLDER_NAME = "agentd"


class Access(NamedTuple):
    """Who can reach a socket, and where its path is set, for the errors.

    is_private: its folder is made where it is missing, and is nobody else's to enter. Otherwise others may
    pass through the folder, and whoever set the path made it: only they know for whom.
    gid: of the socket's group; None for the one that the folder or the process gives it.
    """

    setting: str
    is_private: bool
    mode: int
    gid: int | None


OWNERS = Access("AGENTD_SOCKET or --socket", is_private=True, mode=PRIVATE_MODE, gid=None)
"""The socket over which everything can be asked."""


class SocketFile:
    """A claim on one socket path, held from `__enter__` to `__exit__`.

    Entering makes the folder (0700) and locks ``<path>.lock`` in it; whoever holds that lock is the one
    agent of this path, and the only one who may remove a socket file that a killed agent left behind.

    Args:
        path: of the socket.
        access: who can reach it.

    Raises, on entering:
        SocketPathError: no socket can be made there; says why and what to do.
        AlreadyServingError: another agent holds the path.
    """

    def __init__(self, path: str | os.PathLike[str], access: Access = OWNERS) -> None:
        self._access = access
        given = os.fspath(path)
        if not given or "\0" in given:
            raise SocketPathError(
                f"{given!r} is no path for a socket; set {access.setting} to an absolute path"
            )
        self.path = os.path.abspath(given)
        length = len(os.fsencode(self.path))
        if length > MAX_PATH_BYTES:
            raise SocketPathError(
                f"{self.path} has {length} bytes, and a socket's path at most {MAX_PATH_BYTES}; "
                f"set {access.setting} to a shorter one"
            )
        self._lock: int | None = None
        self._listener: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        self._is_ours = False

    def __enter__(self) -> Self:
        with self._translated():
            prepare_folder(os.path.dirname(self.path), self._access)
            self._lock = _lock(self.path, self._access.setting)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._lock is not None
        try:
            self._remove()
        finally:
            os.close(self._lock)  # and with it the lock
            self._lock = None

    def bind(self) -> socket.socket:
        """The listening socket, non-blocking; leaving the context closes it and removes its file.

        Raises:
            SocketPathError: something else is in the way, or the file system refused.
            AlreadyServingError: a program that does not take the lock listens there.
        """
        assert self._lock is not None
        assert self._listener is None
        with self._translated():
            self._listener, self._file = self._bound()
        self._is_ours = True
        return self._listener

    def adopt(self, listener: socket.socket) -> None:
        """Take over a socket that a service manager made at this path; its file stays that manager's."""
        self._listener, self._file = listener, _identity(self.path)

    def is_in_place(self) -> bool:
        """Whether socket and lock still stand under their names, where others look for them."""
        assert self._lock is not None
        return (
            self._file is not None
            and _identity(self.path) == self._file
            and file_locks.is_at(self._lock, f"{self.path}.lock")
        )

    def renew(self, closing: Callable[[socket.socket], None]) -> None:
        """Make folder, lock and socket again as far as they are gone; the listener stays the same object.

        Who waited to be accepted by the one before is turned away, and connects anew.

        Args:
            closing: told of the listener before its descriptor becomes another's.

        Raises:
            SocketPathError: it cannot be made there.
            AlreadyServingError: another agent has the path by now.
        """
        assert self._lock is not None
        assert self._listener is not None
        with self._translated():
            prepare_folder(os.path.dirname(self.path), self._access)
            if not file_locks.is_at(self._lock, f"{self.path}.lock"):
                before, self._lock = self._lock, _lock(self.path, self._access.setting)
                os.close(before)
            if self._file is not None and _identity(self.path) == self._file:
                return
            listener, self._file = self._bound()
        self._is_ours = True
        with listener:
            closing(self._listener)
            os.dup2(listener.fileno(), self._listener.fileno(), inheritable=False)

    def _bound(self) -> tuple[socket.socket, tuple[int, int]]:
        """A listening socket at the path, and its file's identity."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made: tuple[int, int] | None = None
        try:
            listener.setblocking(False)
            _remove_stale(self.path, self._access.setting)
            # From the first instant on it is closed to others; a chmod afterwards would leave a gap. The
            # mask is the process's: what another thread makes meanwhile is private too.
            umask = os.umask(0o777 & ~PRIVATE_MODE)
            try:
                listener.bind(self.path)
            finally:
                os.umask(umask)
            found = os.lstat(self.path)
            made = (found.st_dev, found.st_ino)
            if stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
                mode = stat.S_IMODE(found.st_mode)
                raise SocketPathError(
                    f"{self.path} was made with mode {mode:04o}, not {PRIVATE_MODE:04o}; "
                    "remove the default access list (setfacl -k) of its folder, or choose another"
                )
            self._open_to_others()
            listener.listen(BACKLOG)
        except BaseException:
            _unlink_and_close(self.path, made, listener)
            raise
        return listener, made

    def _open_to_others(self) -> None:
        """Give the file its group and mode; nobody can connect before it listens.

        The path still means the file that was made: nobody else may write to its folder.
        """
        mode, gid = self._access.mode, self._access.gid
        if gid is not None:
            try:
                os.chown(self.path, -1, gid, follow_symlinks=False)
            except OSError as error:
                raise SocketPathError(
                    f"{self.path} cannot be given to the group with the id {gid}: {error.strerror}; "
                    "only a member of a group can, who has logged in anew since becoming one"
                ) from error
        if mode != PRIVATE_MODE:
            os.chmod(self.path, mode)

    def _remove(self) -> None:
        listener, file = self._listener, self._file
        self._listener = self._file = None
        if listener is not None and self._is_ours:
            _unlink_and_close(self.path, file, listener)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _failed(self.path, error, self._access) from error


async def keep_in_place(socket_file: SocketFile, logger: logging.Logger) -> None:
    """Make the socket again wherever it is gone. What cannot be mended is logged once, and tried again."""
    told = ""
    while True:
        await trio.sleep(CHECK_SECONDS)
        if socket_file.is_in_place():
            told = ""
            continue
        try:
            socket_file.renew(trio.lowlevel.notify_closing)
        except AgentdError as error:
            if error.sentence != told:
                told = error.sentence
                logger.error("%s was removed, and nobody can connect: %s", socket_file.path, told)
        else:
            told = ""
            logger.warning("%s was removed while it was served; it was made again", socket_file.path)


def prepare_folder(folder: str, access: Access) -> None:
    """Make a socket's folder, or see that it is safe; raises SocketPathError, or the system's OSError."""
    setting = access.setting
    fault = make_folders(folder) if access.is_private else folders_fault(os.path.dirname(folder))
    if fault is not None:
        raise SocketPathError(f"{fault}, or set {setting} to another path")
    if not os.path.lexists(folder):
        raise SocketPathError(
            f"{folder} does not exist; make it so that others can pass through it, "
            f"or set {setting} to a path in another folder"
        )
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise SocketPathError(f"{folder} is not a folder; move it away, or set {setting} to another path")
    if found.st_uid != os.geteuid():
        raise SocketPathError(
            f"{folder} belongs to uid {found.st_uid}; set {setting} to a path in a folder of your own"
        )
    others = stat.S_IMODE(found.st_mode) & OTHERS
    if not access.is_private and others & OTHERS_WRITE:
        # They could put a socket of their own in its place.
        raise SocketPathError(
            f"others may write to {folder}; take that right from them (chmod go-w), "
            f"or set {setting} to a path in a folder of its own"
        )
    if access.is_private and others:
        # Whoever follows advice to close /tmp, / or a home folder breaks more than the agent.
        is_the_agents = os.path.basename(folder) == _FOLDER_NAME and not found.st_mode & stat.S_ISVTX
        closing = f"run `chmod 700 {folder}`, or " if is_the_agents else ""
        raise SocketPathError(
            f"others may enter {folder}; {closing}set {setting} to a path in a folder of its own"
        )


def _identity(path: str) -> tuple[int, int] | None:
    """Which file stands under that name; None for none, or where that cannot be seen."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unlink_and_close(path: str, made: tuple[int, int] | None, listener: socket.socket) -> None:
    try:
        # Before the close: an open socket holds its inode, so no other file can have the same number.
        if made is not None and _identity(path) == made:
            with suppress(FileNotFoundError):
                os.unlink(path)
    finally:
        listener.close()


def _failed(path: str, error: OSError, access: Access) -> SocketPathError:
    where = f" ({error.filename})" if error.filename not in (None, path) else ""
    return SocketPathError(
        f"no socket can be made at {path}: {error.strerror}{where}; set {access.setting} to another path"
    )


def _lock(path: str, setting: str) -> int:
    try:
        descriptor = file_locks.open_locked(f"{path}.lock")
    except BlockingIOError:
        holder = file_locks.holder_of(f"{path}.lock")
        which, stop = (f" (process {holder.pid})", f" (`kill {holder.pid}`)") if holder else ("", "")
        raise AlreadyServingError(
            f"another agent already serves {path}{which}; use it, stop it{stop}, "
            f"or set {setting} to another path"
        ) from None
    file_locks.sign(descriptor, path)
    return descriptor


def _remove_stale(path: str, setting: str) -> None:
    """Remove what a killed agent left; the caller holds the lock, so no agent listens there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketPathError(
            f"{path} is in the way and no socket; move it away, or set {setting} to another path"
        )
    # Some other program, a service manager's socket unit for instance, knows nothing of the lock.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(path)
    if result in (0, errno.EAGAIN):
        raise AlreadyServingError(
            f"another program listens at {path}; stop it (where systemd does, "
            f"`systemctl --user stop agentd.socket`), or set {setting} to another path"
        )
    if result != errno.ECONNREFUSED:
        raise OSError(result, os.strerror(result), path)
    os.unlink(path)
