"""Locking when the agent is sent a signal."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .reasons import SIGNAL, Lock


async def watch_signal(lock: Lock, signals: AsyncIterator[int]) -> None:
    """Lock the agent at every signal, until cancelled or until there are no more.

    Args:
        lock: what locks; what it raises is raised here.
        signals: what `trio.open_signal_receiver` gives, opened for the signals that lock and for no others.
            It is to be opened before anybody is told that the agent runs: until then such a signal ends it.
    """
    async for _ in signals:
        await lock(SIGNAL)
