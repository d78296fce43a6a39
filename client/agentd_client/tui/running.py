"""Runs the live view until the person or a signal ends it. The terminal is as before then, in any case."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from .app import TopApp

if TYPE_CHECKING:
    from ..cli.options import Settings

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def run(settings: Settings) -> None:
    """Run it; ends the process by SIGTERM or SIGHUP if one came, and returns after SIGINT.

    Raises:
        Exception: a fault of this program ended it.
    """
    noted = asyncio.run(_run(TopApp(settings)))
    if noted in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(noted, signal.SIG_DFL)
        signal.raise_signal(noted)


async def _run(app: TopApp) -> signal.Signals | None:
    noted: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        noted.append(number)
        app.exit()

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # inherited, and meant to stay
            loop.add_signal_handler(number, end, number)
    await app.run_async()
    if app.failure is not None:
        raise app.failure
    return noted[0] if noted else None
