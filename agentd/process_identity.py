"""The identity of a process, which distinguishes it from later processes with the same pid."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
from functools import lru_cache
from typing import NamedTuple

SO_PEERPIDFD = 77
"""asm-generic/socket.h, Linux 6.5 and later; the socket module does not name it."""

PROC = "/proc"
_INTERPRETERS = frozenset(
    b"python pypy perl ruby node nodejs deno bun php php-fpm lua luajit tclsh wish expect guile Rscript R "
    b"julia java dotnet mono beam.smp erl emacs awk gawk mawk gjs electron pwsh octave "
    b"sh bash dash zsh ksh fish busybox".split()
)
"""Interpreters, whatever their version: their names say nothing about the program."""

_LOADERS = (b"ld-linux", b"ld-musl", b"ld.so", b"qemu-")
"""How names begin of what runs any executable that it is given."""

_VERSION = re.compile(rb"[0-9].*", re.DOTALL)
_DELETED = b" (deleted)"  # added by the kernel, proc_pid_exe(5): its package was upgraded

_ENDED_STATES = {b"Z", b"X", b"x"}
_STATE, _START_TIME = 3 - 3, 22 - 3  # the fields' numbers of proc(5), counted from the third


class Process(NamedTuple):
    """The identity of one process.

    started: in clock ticks since boot. None if the process had ended by then, if the agent cannot see it in
    /proc, or if the serial is enough (see `completed`).
    boot_id: of the boot that `started` counts from, random(4).
    serial: the inode of its pidfd, which Linux 6.9 and later give to only one process per boot, also in
    another PID namespace; earlier kernels give the same to all. None if it was not read.
    """

    pid: int
    started: int | None
    boot_id: str
    serial: int | None = None


def identify(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none, or only a zombie."""
    try:
        stat = read_file(f"{PROC}/{pid}/stat")
    except OSError:  # it may end at any moment
        return None
    # The second field is the command in parentheses, and may itself hold spaces and parentheses.
    fields = stat.rpartition(b")")[2].split()
    boot = boot_id()
    if len(fields) <= _START_TIME or fields[_STATE] in _ENDED_STATES or not boot:
        return None
    return Process(pid, int(fields[_START_TIME]), boot)


def is_alive(process: Process) -> bool:
    """Whether this process still runs. A zombie has ended; so has a process without start and serial."""
    if process.started is not None:
        found = identify(process.pid)
        return found is not None and found == process._replace(serial=None)
    if process.serial is None or not _has_serials():
        return False
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # it has ended, or has no pid here
        return False
    try:
        return os.fstat(pidfd).st_ino == process.serial and not _has_ended(pidfd)
    finally:
        os.close(pidfd)


def completed(process: Process) -> Process | None:
    """The process with its start, for the store; None if it has ended, or cannot be seen in /proc."""
    if process.started is not None:
        return process
    found = identify(process.pid)
    # Checked afterwards: a process that is alive now was alive while the file was read.
    return found._replace(serial=process.serial) if found is not None and is_alive(process) else None


def identify_peer(connection: socket.socket, pid: int) -> Process:
    """The process that connected a Unix socket, with its pid by SO_PEERCRED.

    By now that process may have ended, a child may have its connection, and another process its pid. The
    descriptor of SO_PEERPIDFD, and its serial, are those of the process that connected. Without serials, what
    /proc shows for the pid belongs to that process if it is still alive afterwards. Kernels without
    SO_PEERPIDFD leave the moment between connect(2) and accept(2) in which the pid may be reused.
    """
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        found = identify(pid) if error.errno == errno.ENOPROTOOPT else None
        return found or Process(pid, None, "")  # EINVAL, ESRCH: it has ended; EMFILE: unknown
    try:
        serial = os.fstat(pidfd).st_ino
        if _has_serials():
            return Process(pid, None, "", serial)  # enough for most peers
        found = identify(pid)
        if found is None or _has_ended(pidfd):
            return Process(pid, None, "", serial)
        return found._replace(serial=serial)
    finally:
        os.close(pidfd)


def is_interpreter(name: bytes) -> bool:
    """Whether a program of this name runs other programs, about which it says nothing."""
    name = name.removesuffix(_DELETED)
    if name.startswith(_LOADERS):
        return True
    return name in _INTERPRETERS or _VERSION.sub(b"", name) in _INTERPRETERS


def read_file(path: str) -> bytes:
    """The whole of a file in /proc; raises OSError. A file object would take longer than the reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while more := os.read(descriptor, 4096):
            content += more
        return content
    finally:
        os.close(descriptor)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


@lru_cache(1)
def _has_serials() -> bool:
    """Whether each process has a serial of its own. Before Linux 6.9 all pidfds share one inode."""
    descriptors: list[int] = []
    try:
        descriptors += [os.pidfd_open(os.getpid())]
        descriptors += [os.eventfd(0, os.EFD_CLOEXEC)]
        own, shared = map(os.fstat, descriptors)
        return own.st_dev != shared.st_dev
    except OSError:
        return False
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@lru_cache(1)
def boot_id() -> str:
    """The id of this start of the machine, random(4); empty if it cannot be read."""
    try:
        return read_file(f"{PROC}/sys/kernel/random/boot_id").strip().decode("ascii")
    except OSError:
        return ""
