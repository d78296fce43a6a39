"""Argon2id takes hundreds of MiB and a whole processor: one run at a time, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple

import trio
from trio.lowlevel import RunVar

Arguments = TypeVarTuple("Arguments")

_LIMITER: RunVar[trio.CapacityLimiter] = RunVar("agentd_argon2_limiter")


async def in_argon2_thread(work: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
    """Run `work` in a thread when no other runs. Once it runs, a cancellation waits for its end."""
    try:
        limiter = _LIMITER.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _LIMITER.set(limiter)
    await trio.to_thread.run_sync(work, *arguments, limiter=limiter)
