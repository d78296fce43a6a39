"""The machine: what could carry keys out of memory (swap, core dumps, other processes), and the clocks."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime

from agentd_client.durations import format_duration
from agentd_client.protocol.results import Status

from .. import process
from ..keys import new_pages
from ..sessions import Instant, SystemClock
from ..sessions.records import timestamp_in_path
from .findings import Finding, Severity, error, note, ok, warning
from .installation import Installation
from .system import read_proc, swap_devices

NEEDED_BYTES = 32 * 1024
"""Some pages for keys, and those for a passphrase in use."""

YEARS = range(2025, 2100)
"""There was no agentd before; a clock beyond the end is at the limit of some counter."""

TOLERATED_SECONDS = 60.0
"""NTP corrects a clock by less."""

_CAP_IPC_LOCK = 1 << 14
_ROOT = 0
_SET_CLOCK = "set the clock (`timedatectl set-ntp true`)"
_MAX_SECONDS = 253_402_300_799.0  # the end of the year 9999, the last of datetime


def check_memory(installation: Installation) -> Iterator[Finding]:
    """What could carry keys out of memory: of the agent if it runs, otherwise of one started from here."""
    status = installation.answer.status
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    lock = judge_lock(status, limit, may_lock(read_proc("self", "status")))
    yield lock
    yield from judge_secret(status, new_pages(1).is_secret)
    yield judge_swap(swap_devices(read_proc("swaps")), lock.severity is Severity.OK)
    yield judge_cores(read_proc("sys", "kernel", "core_pattern").strip(), process.core_limit_of_caller())
    if installation.serving:
        pid = installation.serving[0]
        yield from judge_process(_core_limit(pid), _is_closed(pid))


def judge_lock(status: Status | None, limit: int, may_lock_all: bool) -> Finding:
    """Whether keys are in locked memory. The limit, in bytes, is that of a process started from here."""
    raising = "raise `ulimit -l`, or `LimitMEMLOCK=` in the unit (`systemctl --user edit agentd.service`)"
    if status is not None:
        if status.memory_locked:
            return ok("memory.lock", "the agent's keys are in locked memory")
        says = "the agent's keys are not in locked memory: the system refused it"
    elif may_lock_all or limit == resource.RLIM_INFINITY or limit >= NEEDED_BYTES:
        return ok("memory.lock", "an agent started from here can lock the memory of its keys")
    else:
        says = f"an agent started from here may lock {limit} bytes of memory, less than it needs"
    return warning("memory.lock", says, raising)


def judge_secret(status: Status | None, has_secret: bool) -> Iterator[Finding]:
    """Whether keys are in secret memory, memfd_secret(2), which a process started from here may get."""
    if status is None:
        if has_secret:
            yield ok("memory.secret", "an agent started from here hides its keys from every other process")
        else:
            yield _not_secret("an agent started from here gets", "this kernel or a limit")
    elif status.memory_secret:
        yield ok("memory.secret", "the agent's keys are hidden from every other process (memfd_secret)")
    elif status.memory_secret is not None:  # an older agent does not say
        yield _not_secret("the agent has", "its unit" if has_secret else "this kernel or a limit")


def _not_secret(whose: str, refuser: str) -> Finding:
    return note(
        "memory.secret",
        f"{whose} no secret memory for its keys, because {refuser} refuses it: a process that opened the "
        "agent's memory in the first moments of its start can read them",
        "Linux 5.14 or later with CONFIG_SECRETMEM, before 6.5 also `secretmem.enable=1` at boot; see "
        'docs/operations.md, "Secret memory"',
    )


def judge_swap(swap: list[str], is_locked: bool) -> Finding:
    """Whether keys may be written to the swap areas."""
    if not swap:
        return ok("memory.swap", "nothing is swapped to a disk")
    if is_locked:
        return ok("memory.swap", f"there is swap ({', '.join(swap)}), and the keys are kept out of it")
    return warning(
        "memory.swap",
        f"keys may be written to the swap ({', '.join(swap)}), where they stay",
        "see memory.lock; or encrypt the swap, or turn it off (`swapoff`)",
    )


def judge_cores(pattern: str, limit: int) -> Finding:
    """Whether programs started from here leave cores, by the system's core(5) pattern and their limit."""
    # A pattern that begins with | is a program, and gets cores regardless of the limit.
    is_piped = pattern.startswith("|")
    if not is_piped and not limit:
        return ok("memory.cores", "programs started from here leave no core")
    where = f"go to {pattern[1:].split(' ')[0]}" if is_piped else "are written to the disk"
    return note(
        "memory.cores",
        f"the agent leaves no core, but cores of other programs, with the tokens in them, {where}",
        "if that matters: `ulimit -c 0`" + (", and `Storage=none` in coredump.conf" if is_piped else ""),
    )


def judge_process(core_limit: int | None, is_closed: bool | None) -> Iterator[Finding]:
    """Whether other processes of its user can read the agent's memory; no finding if neither is known."""
    if is_closed is False or core_limit:
        yield warning(
            "memory.process",
            "other processes of its user can dump the agent's process or read its memory: "
            "something undid what `agentd serve` does when it starts",
            "restart the agent with `agentd serve` or systemd, and not from within another program",
        )
    elif is_closed or core_limit is not None:
        closed = ", and its memory is closed to other processes of its user" if is_closed else ""
        yield ok("memory.process", f"the agent's process leaves no core{closed}")


def may_lock(status: str) -> bool:
    """Whether a process may lock any amount of memory, by the text of /proc/PID/status."""
    for line in status.split("\n"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_IPC_LOCK)
    return False


def _core_limit(pid: int) -> int | None:
    try:
        return resource.prlimit(pid, resource.RLIMIT_CORE)[0]
    except OSError:
        return None


def _is_closed(pid: int) -> bool | None:
    # The kernel gives the files of a process that is not dumpable to root (proc(5)); root's own show nothing.
    if os.geteuid() == _ROOT:
        return None
    try:
        return os.stat(f"/proc/{pid}/environ").st_uid == _ROOT
    except OSError:
        return None


def check_clocks(installation: Installation) -> Iterator[Finding]:
    """The clocks that sessions end by."""
    examined, status = installation.store.examined, installation.answer.status
    moments = [timestamp_in_path(path) for path in examined.newest] if examined is not None else []
    newest = max((moment for moment in moments if moment is not None), default=None)
    # The clock comes last: a record that the agent writes meanwhile must not seem to be from the future.
    yield from judge_clocks(SystemClock().read(), newest, status)


def judge_clocks(now: Instant, newest: float | None, status: Status | None) -> Iterator[Finding]:
    """Up to four findings; `newest` is the time of the newest record, None if that is not known."""
    wall = now.wall
    if not 0 <= wall <= _MAX_SECONDS or datetime.fromtimestamp(wall, UTC).year not in YEARS:
        says = f"the clock says {_shown(wall)}, so no session ends when it should"
        yield error("clock.year", says, _SET_CLOCK)
    else:
        yield ok("clock.year", f"the clock says {_shown(wall)}")
    if newest is not None:
        yield _judge_newest(wall, newest)
    if status is not None:
        yield _judge_set(wall - (status.started_at + status.uptime_seconds))
    if now.boot_id:
        yield ok("clock.boot", "sessions also end by the clock of this boot, which nobody can set")
    else:
        yield warning(
            "clock.boot",
            "the id of this boot cannot be read, so sessions end by the wall clock alone",
            "mount /proc where the agent runs",
        )


def _judge_newest(wall: float, newest: float) -> Finding:
    if newest <= wall + TOLERATED_SECONDS:
        return ok("clock.records", f"the newest record is from {_shown(newest)}")
    return warning(
        "clock.records",
        f"the clock is {format_duration(newest - wall)} behind the newest record ({_shown(newest)}): "
        "it is wrong now, or it was wrong then",
        f"{_SET_CLOCK}; if it was wrong then, `agentctl reset-key`: sessions of that time last too long",
    )


def _judge_set(moved: float) -> Finding:
    if abs(moved) <= TOLERATED_SECONDS:
        return ok("clock.set", "the clock was not set since the agent started")
    direction = "forward" if moved > 0 else "back"
    return note(
        "clock.set",
        f"the clock was set {direction} by {format_duration(abs(moved))} since the agent started",
        "check that it is right now; sessions of this boot end in time anyway",
    )


def _shown(wall: float) -> str:
    if not 0 <= wall <= _MAX_SECONDS:
        return f"{wall:.0f} seconds since 1970"
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
