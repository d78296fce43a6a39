"""What the kernel tells of locks and processes, in /proc: asking takes no lock and wakes nobody.

Parsing is apart from reading. Lines end at line feeds only: the kernel lets nobody put these into names that
stand in such a file, but does let in others that str.splitlines takes for an end (proc(5), cgroups(7)).
"""

from __future__ import annotations

import math
from pathlib import Path

from agentd_client import file_locks

from .node import Node

PROC = Path("/proc")


def read(*parts: str) -> str:
    """The text of a file below /proc; empty where it cannot be read, or its process is gone."""
    try:
        return PROC.joinpath(*parts).read_bytes().decode(errors="surrogateescape")
    except OSError:
        return ""


def flock_holders(locks: str, node: Node) -> list[int]:
    """The processes that hold an flock(2) on a file, by the text of /proc/locks."""
    return [] if node.kind is None else file_locks.flock_holders(locks, node.device, node.inode)


def unit_of(cgroup: str) -> str:
    """The systemd unit of a process, by the text of /proc/PID/cgroup; empty where there is none."""
    for line in cgroup.split("\n"):  # in a hybrid set-up only one of the two hierarchies has it
        last = line.rpartition("/")[2]
        if (line.startswith("0::") or ":name=systemd:" in line) and last.endswith((".service", ".scope")):
            return last
    return ""


def soft_limit(limits: str, title: str) -> float | None:
    """A soft limit in the text of /proc/PID/limits, infinite for unlimited; None where it is not told."""
    for line in limits.split("\n"):
        if line.startswith(title):
            soft = line[len(title) :].split()[0]
            return int(soft) if soft.isdecimal() else math.inf
    return None


def swap_devices(swaps: str) -> list[str]:
    """The swap areas that are not memory themselves (zram), by the text of /proc/swaps."""
    names = [line.split()[0] for line in swaps.split("\n")[1:] if line.split()]
    return [name for name in names if not name.startswith("/dev/zram")]
