"""The answer to those who wait at the sockets of an agent that could not start.

A service manager holds the socket, so people connect before there is an agent, and what they send waits in
the queue. Left there, it would make the manager start the agent again at once, for ever.
"""

from __future__ import annotations

import logging
import select
import socket

import trio

from agentd_client.errors import StartError

from .admission import Admission, anybody, owner_only
from .dispatch import Caller, Dispatch
from .requests import AnyRequest
from .server import serve_connections

REFUSING_SECONDS = 1.0
"""For all of it: whoever connects later makes the next attempt."""

_AT_VERIFY_SOCKET = "its owner is told why"


class _Refusal(Dispatch):
    """Whatever is asked, the answer is that there is no agent, and why."""

    def __init__(self, sentence: str, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._error = StartError(f"the agent could not start: {sentence}")

    def answer(self, request: AnyRequest, caller: Caller) -> bytes:
        return self._refusal(request.msgid, request.method, self._error)


async def refuse_waiting(
    owners: socket.socket | None, verify: socket.socket | None, sentence: str, *, logger: logging.Logger
) -> None:
    """Answer every request that waits in the queues with a `StartError`, and leave the listeners as they are.

    Nothing is carried out. A connection without a request is closed, which its client notices before it
    can send one. Takes `REFUSING_SECONDS` at the most.

    Args:
        owners: the owner's socket, listening; whoever made it closes it. None where none was passed.
        verify: the same of the verify socket, whose peers are not told why: that is about the owner's files.
        sentence: why the agent could not start, and what to do.
        logger: told of peers that were refused or cut off.
    """
    async with trio.open_nursery() as sockets:
        if owners is not None:
            sockets.start_soon(_refuse, owners, _Refusal(sentence, logger), owner_only(), logger)
        if verify is not None:
            sockets.start_soon(_refuse, verify, _Refusal(_AT_VERIFY_SOCKET, logger), anybody(), logger)


async def _refuse(
    listener: socket.socket, refusal: Dispatch, admission: Admission, logger: logging.Logger
) -> None:
    stop = trio.Event()

    async def serve() -> None:
        await serve_connections(
            listener,
            refusal,
            logger=logger,
            stop=stop,
            admission=admission,
            drain_seconds=REFUSING_SECONDS,
            owns_listener=False,
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
