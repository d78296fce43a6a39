"""A socket's folder, lock and file, and the task that re-creates them if they are removed.

In two steps: the agent takes the lock before it touches keys and store, and binds when it can answer::

    with SocketFile(path) as socket_file:      # of many agents that start at once, one gets past this line
        ...
        listener = socket_file.bind()
        ...                                    # meanwhile in a task: keep_in_place(socket_file, logger)
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
"""Connections that may wait to be accepted; further clients wait in connect(2)."""

CHECK_SECONDS = 1.0
"""Between two checks of two system calls each. For so long a removed socket is unreachable."""

PRIVATE_MODE = 0o600
"""The mode of a socket until it is opened to others on purpose."""

_FOLDER_NAME = "agentd"


class Access(NamedTuple):
    """Who can reach a socket, and which setting names its path, for errors.

    is_private: the folder is created if it is missing, and only the owner may enter it. Otherwise others may
    pass through the folder, and it has to exist: only the owner knows for whom it is.
    gid: of the socket's group; None for the default of the folder or process.
    """

    setting: str
    is_private: bool
    mode: int
    gid: int | None


OWNERS = Access("AGENTD_SOCKET or --socket", is_private=True, mode=PRIVATE_MODE, gid=None)
"""The agent's own socket, with every method."""


class SocketFile:
    """A claim on one socket path, held from `__enter__` to `__exit__`.

    Entering creates the folder (0700) and locks ``<path>.lock`` in it. Only the holder of that lock serves
    this path, and may remove a socket file that a killed agent left behind.

    Args:
        path: of the socket.
        access: who can reach it.

    Raises, on entering:
        SocketPathError: no socket can be created there; says why and what to do.
        AlreadyServingError: another agent holds the path.
    """

    def __init__(self, path: str | os.PathLike[str], access: Access = OWNERS) -> None:
        self._access = access
        given = os.fspath(path)
        if not given or "\0" in given:
            raise SocketPathError(
                f"{given!r} is not a path for a socket; set {access.setting} to an absolute path"
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
        listener, file = self._listener, self._file
        self._listener = self._file = None
        try:
            if listener is not None and self._is_ours:
                _unlink_and_close(self.path, file, listener)
        finally:
            os.close(self._lock)  # and with it the lock
            self._lock = None

    def bind(self) -> socket.socket:
        """The listening socket, non-blocking; leaving the context closes it and removes its file.

        Raises:
            SocketPathError: something else is in the way, or the file system refused.
            AlreadyServingError: a program that ignores the lock listens there.
        """
        assert self._lock is not None
        assert self._listener is None
        with self._translated():
            self._listener, self._file = self._bound()
        self._is_ours = True
        return self._listener

    def adopt(self, listener: socket.socket) -> None:
        """Use a socket that a service manager created at this path. The file stays the manager's."""
        self._listener, self._file = listener, _identity(self.path)

    def is_in_place(self) -> bool:
        """Whether the files of socket and lock are still this agent's."""
        assert self._lock is not None
        return (
            self._file is not None
            and _identity(self.path) == self._file
            and file_locks.is_at(self._lock, f"{self.path}.lock")
        )

    def renew(self, closing: Callable[[socket.socket], None]) -> None:
        """Re-create what is missing of folder, lock and socket. The listener stays the same object.

        Clients in the old socket's queue are disconnected, and reconnect.

        Args:
            closing: called with the listener before the new socket takes over its descriptor.

        Raises:
            SocketPathError: no socket can be created there.
            AlreadyServingError: another agent has taken the path.
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
            listener, file = self._bound()
            with listener:
                closing(self._listener)
                os.dup2(listener.fileno(), self._listener.fileno(), inheritable=False)
        # Only now: until the listener has taken over, the socket is not in place.
        self._file, self._is_ours = file, True

    def _bound(self) -> tuple[socket.socket, tuple[int, int]]:
        """A listening socket at the path, and its file's identity."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made: tuple[int, int] | None = None
        try:
            listener.setblocking(False)
            _remove_stale(self.path, self._access.setting)
            # Private from the start: a chmod afterwards would leave a gap. The umask is the whole process's,
            # so what other threads create meanwhile is private too.
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
                    f"{self.path} was created with mode {mode:04o}, not {PRIVATE_MODE:04o}; "
                    "remove the default access list (setfacl -k) of its folder, or choose another"
                )
            self._open_to_others()
            listener.listen(BACKLOG)
        except BaseException:
            _unlink_and_close(self.path, made, listener)
            raise
        return listener, made

    def _open_to_others(self) -> None:
        """Give the file its group and mode. Nobody can connect before it listens.

        The path still names the file that was bound, because nobody else may write to its folder.
        """
        mode, gid = self._access.mode, self._access.gid
        if gid is not None:
            try:
                os.chown(self.path, -1, gid, follow_symlinks=False)
            except OSError as error:
                raise SocketPathError(
                    f"{self.path} cannot be given to the group with the id {gid}: {error.strerror}; "
                    "only a member of the group can do that, after logging in again"
                ) from error
        if mode != PRIVATE_MODE:
            os.chmod(self.path, mode)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename not in (None, self.path) else ""
            raise SocketPathError(
                f"no socket can be created at {self.path}: {error.strerror}{where}; "
                f"set {self._access.setting} to another path"
            ) from error


async def keep_in_place(socket_file: SocketFile, logger: logging.Logger) -> None:
    """Re-create the socket when it is removed. A failure is logged once, and tried again."""
    logged = ""
    while True:
        await trio.sleep(CHECK_SECONDS)
        if socket_file.is_in_place():
            logged = ""
            continue
        try:
            socket_file.renew(trio.lowlevel.notify_closing)
        except AgentdError as error:
            if error.sentence != logged:
                logged = error.sentence
                logger.error("%s was removed, and nobody can connect: %s", socket_file.path, logged)
        else:
            logged = ""
            logger.warning("%s was removed while it was served; it was re-created", socket_file.path)


def prepare_folder(folder: str, access: Access) -> None:
    """Create a socket's folder, or check that it is safe; raises SocketPathError, or the system's OSError."""
    setting = access.setting
    fault = make_folders(folder) if access.is_private else folders_fault(os.path.dirname(folder))
    if fault is not None:
        raise SocketPathError(f"{fault}, or set {setting} to another path")
    if not os.path.lexists(folder):
        raise SocketPathError(
            f"{folder} does not exist; create it so that others can pass through it, "
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
        # Advice to close /tmp, / or a home folder would break more than the agent.
        is_the_agents = os.path.basename(folder) == _FOLDER_NAME and not found.st_mode & stat.S_ISVTX
        closing = f"run `chmod 700 {folder}`, or " if is_the_agents else ""
        raise SocketPathError(
            f"others may enter {folder}; {closing}set {setting} to a path in a folder of its own"
        )


def _identity(path: str) -> tuple[int, int] | None:
    """The device and inode of the file; None if there is none, or it cannot be seen."""
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
    """Remove what a killed agent left. The caller holds the lock, so no agent listens there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketPathError(
            f"{path} is in the way and not a socket; move it away, or set {setting} to another path"
        )
    # Other programs, such as a service manager's socket unit, ignore the lock.
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
