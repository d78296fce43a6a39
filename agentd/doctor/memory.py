"""What could carry keys out of memory: swap, core dumps, a process that its user may look into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd_client.protocol.results import Status

from ..keys import new_pages
from . import proc
from .finding import Finding, note, ok, warning
from .scene import Limits, Scene

LOCK, SECRET, SWAP = "memory.lock", "memory.secret", "memory.swap"
CORES, PROCESS = "memory.cores", "memory.process"
NAMES = (LOCK, SECRET, SWAP, CORES, PROCESS)

NEEDED_BYTES = 32 * 1024
"""Some pages for keys, and those for a passphrase at work."""

_CAP_IPC_LOCK = 1 << 14
_ROOT = 0


class Facts(NamedTuple):
    """limits: of this shell. agent_limits: of the agent's process; None where none runs.

    unlimited: whether this shell may lock whatever it likes (CAP_IPC_LOCK).
    has_secret: whether a process started from here gets secret memory, memfd_secret(2).
    is_closed: whether the agent's memory is closed to others of its user; None where that cannot be told.
    """

    limits: Limits
    agent_limits: Limits | None
    unlimited: bool
    has_secret: bool
    status: Status | None
    swap: list[str]
    core_pattern: str
    is_closed: bool | None


def gather(scene: Scene) -> Facts:
    """Read /proc, of the agent's process too."""
    pid = str(scene.serving[0]) if scene.serving else None
    return Facts(
        scene.limits,
        None if pid is None else _limits_of(pid),
        _may_lock(proc.read("self", "status")),
        new_pages(1).is_secret,
        scene.answer.status,
        proc.swap_devices(proc.read("swaps")),
        proc.read("sys", "kernel", "core_pattern").strip(),
        None if pid is None else _is_closed(proc.PROC / pid, scene.uid),
    )


def judge(facts: Facts) -> Iterator[Finding]:
    """Findings about the agent where it runs, otherwise about what one started from here would have."""
    is_locked, finding = _judge_lock(facts)
    yield finding
    yield from _judge_secret(facts)
    yield _judge_swap(facts.swap, is_locked)
    yield _judge_cores(facts)
    yield from _judge_process(facts)


def _judge_lock(facts: Facts) -> tuple[bool, Finding]:
    raising = "raise `ulimit -l`, or `LimitMEMLOCK=` in the unit (`systemctl --user edit agentd.service`)"
    if facts.status is not None:
        if facts.status.memory_locked:
            return True, ok(LOCK, "the agent's keys are in locked memory")
        return False, warning(LOCK, "the agent's keys are not in locked memory: the system refused", raising)
    limit = facts.limits.memlock
    if facts.unlimited or limit is None or limit >= NEEDED_BYTES:
        return True, ok(LOCK, "an agent started from here can lock the memory of its keys")
    return False, warning(
        LOCK, f"an agent started from here may lock {limit:.0f} bytes of memory, less than it needs", raising
    )


def _judge_secret(facts: Facts) -> Iterator[Finding]:
    if facts.status is None:
        if facts.has_secret:
            yield ok(SECRET, "an agent started from here keeps its keys where no other process can read them")
        else:
            yield _not_secret("an agent started from here gets", "this kernel or a limit")
    elif facts.status.memory_secret:
        yield ok(SECRET, "the agent's keys are where no other process can read them (memfd_secret)")
    elif facts.status.memory_secret is not None:  # an older agent does not say
        yield _not_secret("the agent has", "its unit" if facts.has_secret else "this kernel or a limit")


def _not_secret(whose: str, refuser: str) -> Finding:
    return note(
        SECRET,
        f"{whose} no secret memory for its keys, because {refuser} refuses it: whoever opened the agent's "
        "memory in the first moments of its start can read them",
        "Linux 5.14 or later with CONFIG_SECRETMEM, before 6.5 also `secretmem.enable=1` at boot; see "
        'docs/operations.md, "Secret memory"',
    )


def _judge_swap(swap: list[str], is_locked: bool) -> Finding:
    if not swap:
        return ok(SWAP, "nothing is swapped to a disk")
    if is_locked:
        return ok(SWAP, f"there is swap ({', '.join(swap)}), and the keys are kept out of it")
    return warning(
        SWAP,
        f"keys may be written to the swap ({', '.join(swap)}), where they stay",
        "see memory.lock; or encrypt the swap, or turn it off (`swapoff`)",
    )


def _judge_cores(facts: Facts) -> Finding:
    # A pattern that begins with | is a program, and gets cores whatever the limit (core(5)).
    is_piped = facts.core_pattern.startswith("|")
    if not is_piped and not facts.limits.core:
        return ok(CORES, "programs started from here leave no core")
    where = f"go to {facts.core_pattern[1:].split(' ')[0]}" if is_piped else "are written to the disk"
    return note(
        CORES,
        f"the agent leaves no core, but cores of other programs, with the tokens in them, {where}",
        "where that matters: `ulimit -c 0`" + (", and `Storage=none` in coredump.conf" if is_piped else ""),
    )


def _judge_process(facts: Facts) -> Iterator[Finding]:
    if facts.agent_limits is None or (facts.agent_limits.core is None and facts.is_closed is None):
        return  # none runs, or /proc hides it (hidepid= of proc(5))
    if facts.is_closed is False or facts.agent_limits.core:
        yield warning(
            PROCESS,
            "the agent's process can be dumped or looked into by others of its user: "
            "something undid what `agentd serve` does at its start",
            "restart the agent with `agentd serve` or systemd, and not from within another program",
        )
    else:
        closed = ", and its memory is closed to others of its user" if facts.is_closed else ""
        yield ok(PROCESS, f"the agent's process leaves no core{closed}")


def _limits_of(pid: str) -> Limits:
    text = proc.read(pid, "limits")
    return Limits(proc.soft_limit(text, "Max locked memory"), proc.soft_limit(text, "Max core file size"))


def _may_lock(status: str) -> bool:
    for line in status.split("\n"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_IPC_LOCK)
    return False


def _is_closed(process: Path, uid: int) -> bool | None:
    # The kernel gives the files of a process that is not dumpable to root (proc(5)); root's own tell nothing.
    if uid == _ROOT:
        return None
    try:
        return os.stat(process / "environ").st_uid == _ROOT
    except OSError:
        return None
