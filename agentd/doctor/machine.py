"""The machine: what could carry keys out of memory (swap, core dumps, other processes), and the clocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from agentd_client.durations import format_duration
from agentd_client.protocol.results import Status

from ..keys import new_pages
from ..sessions import Instant, SystemClock
from ..sessions.records import timestamp_in_path
from .findings import Finding, error, note, ok, warning
from .installation import Check, Installation, Limits
from .system import PROC, read_proc, soft_limit, swap_devices

LOCK, SECRET, SWAP = "memory.lock", "memory.secret", "memory.swap"
CORES, PROCESS = "memory.cores", "memory.process"
YEAR, RECORDS, SET, BOOT = "clock.year", "clock.records", "clock.set", "clock.boot"

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


class Memory(Check, frozen=True):
    """What could carry keys out of memory.

    limits: of this shell. agent_limits: of the agent's process; None if none runs.
    unlimited: whether this shell may lock any amount of memory (CAP_IPC_LOCK).
    has_secret: whether a process started from here gets secret memory, memfd_secret(2).
    is_closed: whether the agent's memory is closed to other processes of its user; None if that is not known.
    """

    limits: Limits
    agent_limits: Limits | None
    unlimited: bool
    has_secret: bool
    status: Status | None
    swap: list[str]
    core_pattern: str
    is_closed: bool | None

    NAMES: ClassVar = (LOCK, SECRET, SWAP, CORES, PROCESS)

    @classmethod
    def gather(cls, installation: Installation) -> Memory:
        """Read /proc, of the agent's process too."""
        pid = str(installation.serving[0]) if installation.serving else None
        return cls(
            installation.limits,
            None if pid is None else _limits_of(pid),
            may_lock(read_proc("self", "status")),
            new_pages(1).is_secret,
            installation.answer.status,
            swap_devices(read_proc("swaps")),
            read_proc("sys", "kernel", "core_pattern").strip(),
            None if pid is None else _is_closed(PROC / pid, installation.uid),
        )

    def judge(self) -> Iterator[Finding]:
        """Findings about the agent if it runs, otherwise about one that would be started from here."""
        is_locked, finding = self._judge_lock()
        yield finding
        yield from self._judge_secret()
        yield self._judge_swap(is_locked)
        yield self._judge_cores()
        yield from self._judge_process()

    def _judge_lock(self) -> tuple[bool, Finding]:
        raising = "raise `ulimit -l`, or `LimitMEMLOCK=` in the unit (`systemctl --user edit agentd.service`)"
        if self.status is not None:
            if self.status.memory_locked:
                return True, ok(LOCK, "the agent's keys are in locked memory")
            return False, warning(
                LOCK, "the agent's keys are not in locked memory: the system refused it", raising
            )
        limit = self.limits.memlock
        if self.unlimited or limit is None or limit >= NEEDED_BYTES:
            return True, ok(LOCK, "an agent started from here can lock the memory of its keys")
        return False, warning(
            LOCK,
            f"an agent started from here may lock {limit:.0f} bytes of memory, less than it needs",
            raising,
        )

    def _judge_secret(self) -> Iterator[Finding]:
        if self.status is None:
            if self.has_secret:
                yield ok(SECRET, "an agent started from here hides its keys from every other process")
            else:
                yield _not_secret("an agent started from here gets", "this kernel or a limit")
        elif self.status.memory_secret:
            yield ok(SECRET, "the agent's keys are hidden from every other process (memfd_secret)")
        elif self.status.memory_secret is not None:  # an older agent does not say
            yield _not_secret("the agent has", "its unit" if self.has_secret else "this kernel or a limit")

    def _judge_swap(self, is_locked: bool) -> Finding:
        if not self.swap:
            return ok(SWAP, "nothing is swapped to a disk")
        if is_locked:
            return ok(SWAP, f"there is swap ({', '.join(self.swap)}), and the keys are kept out of it")
        return warning(
            SWAP,
            f"keys may be written to the swap ({', '.join(self.swap)}), where they stay",
            "see memory.lock; or encrypt the swap, or turn it off (`swapoff`)",
        )

    def _judge_cores(self) -> Finding:
        # A pattern that begins with | is a program, and gets cores regardless of the limit (core(5)).
        is_piped = self.core_pattern.startswith("|")
        if not is_piped and not self.limits.core:
            return ok(CORES, "programs started from here leave no core")
        where = f"go to {self.core_pattern[1:].split(' ')[0]}" if is_piped else "are written to the disk"
        return note(
            CORES,
            f"the agent leaves no core, but cores of other programs, with the tokens in them, {where}",
            "if that matters: `ulimit -c 0`" + (", and `Storage=none` in coredump.conf" if is_piped else ""),
        )

    def _judge_process(self) -> Iterator[Finding]:
        limits = self.agent_limits
        if limits is None or (limits.core is None and self.is_closed is None):
            return  # none runs, or /proc hides it (hidepid= of proc(5))
        if self.is_closed is False or limits.core:
            yield warning(
                PROCESS,
                "other processes of its user can dump the agent's process or read its memory: "
                "something undid what `agentd serve` does when it starts",
                "restart the agent with `agentd serve` or systemd, and not from within another program",
            )
        else:
            closed = ", and its memory is closed to other processes of its user" if self.is_closed else ""
            yield ok(PROCESS, f"the agent's process leaves no core{closed}")


def may_lock(status: str) -> bool:
    """Whether a process may lock any amount of memory, by the text of /proc/PID/status."""
    for line in status.split("\n"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_IPC_LOCK)
    return False


def _not_secret(whose: str, refuser: str) -> Finding:
    return note(
        SECRET,
        f"{whose} no secret memory for its keys, because {refuser} refuses it: a process that opened the "
        "agent's memory in the first moments of its start can read them",
        "Linux 5.14 or later with CONFIG_SECRETMEM, before 6.5 also `secretmem.enable=1` at boot; see "
        'docs/operations.md, "Secret memory"',
    )


def _limits_of(pid: str) -> Limits:
    text = read_proc(pid, "limits")
    return Limits(soft_limit(text, "Max locked memory"), soft_limit(text, "Max core file size"))


def _is_closed(process: Path, uid: int) -> bool | None:
    # The kernel gives the files of a process that is not dumpable to root (proc(5)); root's own show nothing.
    if uid == _ROOT:
        return None
    try:
        return os.stat(process / "environ").st_uid == _ROOT
    except OSError:
        return None


class Clocks(Check, frozen=True):
    """The clocks that sessions end by. newest: the time of the newest record; None if that is not known."""

    now: Instant
    newest: float | None
    status: Status | None

    NAMES: ClassVar = (YEAR, RECORDS, SET, BOOT)

    @classmethod
    def gather(cls, installation: Installation) -> Clocks:
        """Read the clocks, the newest record's time, and when the agent says it started."""
        examined = installation.store.examined
        status = installation.answer.status
        moments = [timestamp_in_path(path) for path in examined.newest] if examined is not None else []
        newest = max((moment for moment in moments if moment is not None), default=None)
        # The clock comes last: a record that the agent writes meanwhile must not seem to be from the future.
        return cls(SystemClock().read(), newest, status)

    def judge(self) -> Iterator[Finding]:
        """Up to four findings."""
        wall = self.now.wall
        if not 0 <= wall <= _MAX_SECONDS or datetime.fromtimestamp(wall, UTC).year not in YEARS:
            yield error(YEAR, f"the clock says {_shown(wall)}, so no session ends when it should", _SET_CLOCK)
        else:
            yield ok(YEAR, f"the clock says {_shown(wall)}")
        if self.newest is not None:
            yield _judge_records(wall, self.newest)
        if self.status is not None:
            yield _judge_set(wall, self.status)
        if self.now.boot_id:
            yield ok(BOOT, "sessions also end by the clock of this boot, which nobody can set")
        else:
            yield warning(
                BOOT,
                "the id of this boot cannot be read, so sessions end by the wall clock alone",
                "mount /proc where the agent runs",
            )


def _judge_records(wall: float, newest: float) -> Finding:
    if newest > wall + TOLERATED_SECONDS:
        behind = format_duration(newest - wall)
        return warning(
            RECORDS,
            f"the clock is {behind} behind the newest record ({_shown(newest)}): "
            "it is wrong now, or it was wrong then",
            f"{_SET_CLOCK}; if it was wrong then, `agentctl reset-key`: sessions of that time last too long",
        )
    return ok(RECORDS, f"the newest record is from {_shown(newest)}")


def _judge_set(wall: float, status: Status) -> Finding:
    moved = wall - (status.started_at + status.uptime_seconds)
    if abs(moved) > TOLERATED_SECONDS:
        direction = "forward" if moved > 0 else "back"
        return note(
            SET,
            f"the clock was set {direction} by {format_duration(abs(moved))} since the agent started",
            "check that it is right now; sessions of this boot end in time anyway",
        )
    return ok(SET, "the clock was not set since the agent started")


def _shown(wall: float) -> str:
    if not 0 <= wall <= _MAX_SECONDS:
        return f"{wall:.0f} seconds since 1970"
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
