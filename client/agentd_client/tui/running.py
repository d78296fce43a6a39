"""Runs the live view until the person or a signal ends it. The terminal is as before then, in any case."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .app import TopApp

if TYPE_CHECKING:
    from ..cli.options import Settings

HUNG_UP_SECONDS = 1.0
"""How often it is checked whether the terminal is still there, and how long leaving may take if it is not."""

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
    over = threading.Event()
    hang_up = partial(loop.call_soon_threadsafe, end, signal.SIGHUP)
    threading.Thread(target=_watch_terminal, args=(hang_up, over), daemon=True).start()
    try:
        await app.run_async()
    finally:
        over.set()
    if app.failure is not None:
        raise app.failure
    return noted[0] if noted else None


def _watch_terminal(hang_up: Callable[[], object], over: threading.Event) -> None:
    """End it when the terminal is gone, for whom SIGHUP may not reach.

    Textual reads the end of such a terminal again and again. Its thread that writes fails, and then nobody
    takes what the event loop waits to have written: so this is a thread, and ends the process if need be.
    """
    poller = select.poll()
    poller.register(0, 0)  # POLLHUP and POLLERR are always reported
    while not poller.poll(0):
        if over.wait(HUNG_UP_SECONDS):
            return
    with suppress(RuntimeError):  # the event loop has ended
        hang_up()
    if not over.wait(HUNG_UP_SECONDS):
        os._exit(128 + signal.SIGHUP)  # there is no terminal to restore
