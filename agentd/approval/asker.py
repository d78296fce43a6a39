"""Who asks: the process, the program that it runs, and how it is confined, as far as /proc shows it."""

from __future__ import annotations

import os
from typing import NamedTuple

from agentd_client.protocol.limits import MAX_SHOWN_CHARACTERS
from agentd_client.protocol.results import PeerIdentity
from agentd_client.user_namespace import stands_for_others

from ..process_identity import PROC, Process, is_alive, is_interpreter, read_file
from .executable import Executable, executable_of

MAX_ANCESTORS = 64
"""How far up the tree of processes a line of descent is followed. Longer ones count as related."""

_PARENT = 4 - 3  # the field's number in proc_pid_stat(5), counted from the third
_SERVICE = ".service"
_FILTERED = b"2"  # SECCOMP_MODE_FILTER


class Program(NamedTuple):
    """What tells the program of a process from others, for approvals that are remembered.

    A name proves nothing, because a process chooses its own. So a program is an executable file (not its
    path, which means another file in another mount namespace), else the systemd service it runs in, and if
    the agent can see neither, or the executable is an interpreter, the one process. So it is where all other
    users look like one: a service of the same name may be another user's.

    key: equal for the same program. words: for people.
    """

    key: tuple[object, ...]
    words: str


class Asker(NamedTuple):
    """The process at the other end of a request's connection.

    identity: for people. process: its identity by the kernel. socket: over which one it asks.
    """

    identity: PeerIdentity
    process: Process
    socket: str


def program_of(asker: Asker) -> Program:
    """The program that a process runs now."""
    uid, pid, exe, unit = asker.identity
    this_process = Program((uid, asker.socket, asker.process), f"this one process, {pid}")
    if stands_for_others(uid):
        return this_process
    executable = None if exe is None else _executable(pid, exe)
    if executable is not None and is_alive(asker.process):
        return Program((uid, asker.socket, executable), f"the program {exe}")
    if unit is not None and unit.endswith(_SERVICE):
        return Program((uid, asker.socket, unit), f"the service {unit}")
    return this_process


def _executable(pid: int, exe: str) -> Executable | None:
    """A process's executable; None for an interpreter, or if it cannot be seen."""
    path = exe.encode()
    if not exe.startswith("/") or len(path) >= MAX_SHOWN_CHARACTERS:  # a longer one was cut
        return None
    return None if is_interpreter(os.path.basename(path)) else executable_of(pid)


def sandbox_of(process: Process) -> list[str]:
    """How a process is confined, in words, as far as the agent can see; empty if it is not, or has ended.

    A mount namespace shows where the executable does, whose path means something else there. A network
    namespace does not show in any file that the agent may read.
    """
    found: list[str] = []
    try:
        status = _fields(read_file(f"{PROC}/{process.pid}/status"))
        if _user_namespace(process.pid) != _user_namespace(1):
            found.append("own user namespace")
        if _depth(status) > _depth(_fields(read_file(f"{PROC}/1/status"))):
            found.append("own PID namespace")
        if _mount_namespace(process.pid) not in (None, _mount_namespace("self")):
            found.append("own mount namespace")
    except (OSError, KeyError):
        return []
    if status.get(b"Seccomp") == _FILTERED:
        found.append("filtered system calls")
    if status.get(b"NoNewPrivs") == b"1":
        found.append("no new privileges")
    return found if is_alive(process) else []


def is_related(process: Process, other: Process) -> bool:
    """Whether two processes are the same, or one descends from the other. True if that cannot be seen."""
    pid, other_pid = process.pid, other.pid
    return process == other or pid == other_pid or _descends(pid, other_pid) or _descends(other_pid, pid)


def _descends(pid: int, ancestor: int) -> bool:
    for _ in range(MAX_ANCESTORS):
        try:
            stat = read_file(f"{PROC}/{pid}/stat")
        except OSError:
            return True  # it has ended, or cannot be seen: unknown, which is not a no
        pid = int(stat.rpartition(b")")[2].split()[_PARENT])
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
    return True


def _fields(status: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in status.split(b"\n"))
    return {name: value.strip() for name, _, value in lines}


def _depth(status: dict[bytes, bytes]) -> int:
    # One pid for each PID namespace that the process is in, pid_namespaces(7).
    return len(status[b"NSpid"].split())


def _user_namespace(pid: int) -> list[bytes]:
    return read_file(f"{PROC}/{pid}/uid_map").split()


def _mount_namespace(pid: int | str) -> str | None:
    try:
        return os.readlink(f"{PROC}/{pid}/ns/mnt")
    except OSError:  # another user's, or the agent's own user namespace hides it
        return None
