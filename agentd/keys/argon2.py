"""Argon2id: the bounds of its cost, the cost that suits this machine, and running it one at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVarTuple

import trio
from trio.lowlevel import RunVar

from ..crypto import KEY_BYTES, SALT_BYTES, argon2id_into

KIB = 1024
MIB = 1024 * KIB

MIN_MEMORY_BYTES = 19 * MIB
"""With two passes the least that OWASP's Password Storage Cheat Sheet recommends."""

MAX_MEMORY_BYTES = 1024 * MIB
"""More would let a manipulated key file exhaust the machine's memory."""

MIN_PASSES = 2
MAX_PASSES = 64

MAX_WORK_BYTES = 16 * 1024 * MIB
"""Memory times passes, about half a minute; more would let a manipulated key file block the agent."""

LANES = 1
"""libsodium supports no other number."""

TARGET_SECONDS = 0.5
USUAL_MEMORY_BYTES = 256 * MIB

Arguments = TypeVarTuple("Arguments")

_limiter: RunVar[trio.CapacityLimiter] = RunVar("agentd_argon2_limiter")


class CostError(ValueError):
    """A cost is out of bounds; the text names the parameter and its bounds."""


class Cost(NamedTuple):
    """The parameters of one Argon2id run."""

    memory_bytes: int
    passes: int
    lanes: int = LANES

    def check(self) -> Cost:
        """The cost itself, or CostError; allocates nothing."""
        if self.lanes != LANES:
            raise CostError(f"parallelism is {self.lanes}, and only {LANES} is supported")
        if not MIN_MEMORY_BYTES <= self.memory_bytes <= MAX_MEMORY_BYTES or self.memory_bytes % KIB:
            raise CostError(
                f"memory is {self.memory_bytes} bytes, not whole KiB "
                f"from {MIN_MEMORY_BYTES // MIB} to {MAX_MEMORY_BYTES // MIB} MiB"
            )
        if not MIN_PASSES <= self.passes <= MAX_PASSES:
            raise CostError(f"time is {self.passes} passes, not {MIN_PASSES} to {MAX_PASSES}")
        if self.memory_bytes * self.passes > MAX_WORK_BYTES:
            raise CostError(f"memory times time is over {MAX_WORK_BYTES // MIB} MiB")
        return self


def calibrated() -> Cost:
    """The cost that takes about `TARGET_SECONDS` on this machine, measured by one short run."""
    memory_bytes, target = memory_for(_available_bytes()), bytearray(KEY_BYTES)
    began = time.perf_counter()
    argon2id_into(b"", bytes(SALT_BYTES), passes=MIN_PASSES, memory_bytes=memory_bytes, target=target)
    return Cost(memory_bytes, passes_for((time.perf_counter() - began) / MIN_PASSES))


def memory_for(available_bytes: int | None) -> int:
    """The usual memory; on a machine with little, a quarter of what is available, in whole MiB."""
    if available_bytes is None:
        return USUAL_MEMORY_BYTES
    return max(MIN_MEMORY_BYTES, min(USUAL_MEMORY_BYTES, available_bytes // 4 // MIB * MIB))


def passes_for(seconds_per_pass: float) -> int:
    """The number of passes nearest to `TARGET_SECONDS`, within the bounds."""
    wanted = TARGET_SECONDS / max(seconds_per_pass, TARGET_SECONDS / MAX_PASSES)
    return max(MIN_PASSES, min(MAX_PASSES, round(wanted)))


def _available_bytes() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * KIB if found else None


async def run_argon2(work: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
    """Run `work`, which calls Argon2id, in a thread; shielded from cancellation once it runs.

    One at a time, because each run takes hundreds of MiB and a whole processor.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _limiter.set(limiter)
    await trio.to_thread.run_sync(work, *arguments, limiter=limiter)
