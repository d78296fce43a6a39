"""The async twin of `events.Events`."""

from __future__ import annotations

from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from .aio_waiting import run
from .events import Feed
from .protocol.results import Event


class AsyncEvents:
    """What happens at the agent, in its order; made by `AsyncClient.subscribe`. See `events.Events`.

    An async iterator, and an async context manager that closes it. Each event goes to one of the tasks that
    wait. A cancelled task loses no event: another, or the same one later, gets it.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._turn = anyio.Lock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            async with self._turn:
                event = await run(self._feed.next_event())
        finally:
            self._let_go()
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """See `Events.close`."""
        self._close()
        await checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()  # no checkpoint: closing is at once, also in a cancelled task

    def _close(self) -> None:
        self._feed.close()
        self._let_go()

    def _let_go(self) -> None:
        # Not while another task waits on the descriptor: that one comes by here afterwards.
        if self._feed.is_closed() and not self._turn.locked():
            self._feed.release()
