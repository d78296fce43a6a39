"""What clients are told when the agent could not start, while a service manager holds its sockets.

Clients connect before there is an agent, and what they send waits in the queue. If nobody answered it, the
manager would start the agent again at once, for ever.
"""

from __future__ import annotations

import logging
import select
import socket

import trio

from agentd_client.errors import StartError

from .admission import Admission, any_user, owner_only
from .dispatch import AnyRequest, Dispatch
from .peer import Caller
from .server import serve_connections

ANSWER_SECONDS = 1.0
"""For all answers together. A client that connects later makes the service manager try another start."""

_FOR_OTHER_USERS = "its owner is told why"


class _StartupFailure(Dispatch):
    """Answers every request with the reason why there is no agent."""

    def __init__(self, sentence: str, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._error = StartError(f"the agent could not start: {sentence}")

    def answer(self, request: AnyRequest, caller: Caller) -> bytes:
        return self._error_reply(request.msgid, request.method, self._error)


async def report_startup_failure(
    owners: socket.socket | None, verify: socket.socket | None, sentence: str, *, logger: logging.Logger
) -> None:
    """Answer every queued request with a `StartError`, and leave the listeners as they are.

    Nothing is carried out. A connection without a request is closed, which its client notices before it
    can send one. Takes at most `ANSWER_SECONDS`.

    Args:
        owners: the owner's listening socket; its creator closes it. None if none was passed.
        verify: the same for the verify socket. Its peers are not told why, which concerns the owner's files.
        sentence: why the agent could not start, and what to do.
        logger: for peers that were refused or cut off.
    """
    async with trio.open_nursery() as both:
        if owners is not None:
            both.start_soon(_answer_queued, owners, _StartupFailure(sentence, logger), owner_only(), logger)
        if verify is not None:
            failure = _StartupFailure(_FOR_OTHER_USERS, logger)
            both.start_soon(_answer_queued, verify, failure, any_user(), logger)


async def _answer_queued(
    listener: socket.socket, failure: Dispatch, admission: Admission, logger: logging.Logger
) -> None:
    stop = trio.Event()

    async def serve() -> None:
        await serve_connections(
            listener,
            failure,
            logger=logger,
            stop=stop,
            admission=admission,
            drain_seconds=ANSWER_SECONDS,
            owns_listener=False,
        )

    queue = select.poll()
    queue.register(listener, select.POLLIN)
    with trio.move_on_after(ANSWER_SECONDS):
        async with trio.open_nursery() as serving:
            serving.start_soon(serve)
            while queue.poll(0):
                await trio.lowlevel.checkpoint()  # the accepting task takes them one by one
            stop.set()
