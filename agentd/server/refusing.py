"""The answer to those who wait at the socket of an agent that could not start.

A service manager holds the socket, so people connect before there is an agent, and what they send waits in
the queue. Left there, it would make the manager start the agent again at once, for ever.
"""

from __future__ import annotations

import logging
import select
import socket

import trio

from agentd_client.errors import StartError
from agentd_client.protocol.codec import Request

from .caller import Caller
from .dispatch import Dispatch
from .server import serve_connections

REFUSING_SECONDS = 1.0
"""For all of it: whoever connects later makes the next attempt."""


class _Refusal(Dispatch):
    """Whatever is asked, the answer is that there is no agent, and why."""

    def __init__(self, sentence: str, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._error = StartError(f"the agent could not start: {sentence}")

    def answer(self, request: Request, caller: Caller) -> bytes:
        return self._refusal(request.msgid, request.method, self._error)


async def refuse_waiting(listener: socket.socket, sentence: str, *, logger: logging.Logger) -> None:
    """Answer every request that waits in the queue with a `StartError`, and leave the listener as it is.

    Nothing is carried out. A connection without a request is closed, which its client notices before it
    can send one. Takes `REFUSING_SECONDS` at the most.

    Args:
        listener: a listening Unix stream socket; whoever made it closes it.
        sentence: why the agent could not start, and what to do.
        logger: told of peers that were refused or cut off.
    """
    stop = trio.Event()
    refusal = _Refusal(sentence, logger)

    async def serve() -> None:
        await serve_connections(
            listener, refusal, logger=logger, stop=stop, drain_seconds=REFUSING_SECONDS, owns_listener=False
        )

    with trio.move_on_after(REFUSING_SECONDS):
        async with trio.open_nursery() as serving:
            serving.start_soon(serve)
            while _somebody_waits(listener):
                await trio.lowlevel.checkpoint()  # the accepting task takes them one by one
            stop.set()


def _somebody_waits(listener: socket.socket) -> bool:
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return bool(poller.poll(0))
