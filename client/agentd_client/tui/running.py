"""Runs the live view until the person or a signal ends it. The terminal is as before then, in any case."""

from __future__ import annotations

import asyncio
import select
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .app import TopApp

if TYPE_CHECKING:
    from ..cli.options import Settings

HUNG_UP_SECONDS = 1.0
"""How often it is checked whether the terminal is still there."""

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
    watching = loop.create_task(_when_hung_up(partial(end, signal.SIGHUP)))
    try:
        await app.run_async()
    finally:
        watching.cancel()
    if app.failure is not None:
        raise app.failure
    return noted[0] if noted else None


async def _when_hung_up(end: Callable[[], None]) -> None:
    """End it when the terminal is gone. Whom SIGHUP does not reach would read its end again and again."""
    poller = select.poll()
    poller.register(0, 0)  # POLLHUP and POLLERR are always reported
    while not poller.poll(0):  # noqa: ASYNC110 - nothing else tells of it: Textual's thread reads the rest
        await asyncio.sleep(HUNG_UP_SECONDS)
    end()
