"""The verify socket: other users can have tokens verified over it, and ask nothing else.

It exists if the settings name a path for it, or if systemd passes a socket for it.
"""

from __future__ import annotations

import grp
import logging
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import trio

from agentd_client.errors import ERRORS, INVALID, AgentdError, AgentInternalError, ConfigError
from agentd_client.protocol import methods
from agentd_client.protocol.results import Verdict, Verification

from . import __version__
from .config import Settings
from .methods import AgentDispatch, VerifyTokenParams
from .server import (
    Access,
    Caller,
    Dispatch,
    FairQueue,
    SocketFile,
    Traffic,
    any_user,
    keep_in_place,
    prepare_folder,
    presented_token,
    serve_connections,
)

if TYPE_CHECKING:
    from .agent import Agent

MAX_COUNTED = 16
"""Verifications that the store writes for at the same time, beside the owner's requests. They have a queue of
their own because their peers are other users."""


class VerifySocket:
    """A claim on the verify socket, held from `__enter__` to `__exit__`. A no-op if none is configured.

    Entered before anything is created and bound once the agent can answer, like the owner's `SocketFile`.

    Args:
        settings: its path, and who may connect.
        passed: the socket that systemd listens on; the settings are ignored then. It is closed here once it
            was bound; until then it stays the caller's.

    Raises, on entering:
        ConfigError: there is no such group.
        SocketPathError, AlreadyServingError: the path is unusable or taken.
    """

    def __init__(self, settings: Settings, passed: socket.socket | None) -> None:
        self._settings = settings
        self._passed = passed
        self._file: SocketFile | None = None
        self._listener: socket.socket | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        path = self._settings.verify_socket_path
        if self._passed is None and path:
            self._file = self._held.enter_context(SocketFile(path, _access(self._settings)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def bind(self) -> None:
        """Listen, if a socket is configured. From now on clients wait to be served.

        Raises:
            SocketPathError, AlreadyServingError: something is in the way, or the system refused.
        """
        if self._passed is not None:
            self._listener = self._held.enter_context(self._passed)
        elif self._file is not None:
            self._listener = self._file.bind()

    async def serve(self, agent: Agent, logger: logging.Logger, traffic: Traffic, stop: trio.Event) -> None:
        """Serve until `stop` is set and what had arrived is answered. A no-op if none is configured."""
        listener = self._listener
        if listener is None:
            return
        logger.info("other users can have tokens verified at %s", listener.getsockname())
        async with trio.open_nursery() as standing:
            if self._file is not None:
                standing.start_soon(keep_in_place, self._file, logger)
            await serve_connections(
                listener,
                verify_dispatch(agent, version=__version__, logger=logger, traffic=traffic),
                logger=logger,
                stop=stop,
                admission=any_user(),
                drain_seconds=self._settings.drain_seconds,
                owns_listener=self._passed is None,
            )
            standing.cancel_scope.cancel()


def check_verify_socket(settings: Settings) -> None:
    """Raise what `VerifySocket` would raise on entering, apart from locks; creates nothing."""
    access = _access(settings)
    prepare_folder(os.path.dirname(SocketFile(settings.verify_socket_path, access).path), access)


def _access(settings: Settings) -> Access:
    name, gid = settings.verify_socket_group, None
    if name:
        try:
            gid = grp.getgrnam(name).gr_gid
        except KeyError:
            raise ConfigError(
                f"verify_socket_group: there is no group {name!r}; make it, or leave the setting out"
            ) from None
    return Access("verify_socket_path", is_private=False, mode=int(settings.verify_socket_mode, 8), gid=gid)


def verify_dispatch(
    agent: Agent, *, version: str, logger: logging.Logger, traffic: Traffic | None = None
) -> Dispatch:
    """The table of methods: `hello` and `verifyToken`.

    Args:
        agent: verifies.
        version: see `AgentDispatch`, as for `logger`.
        logger: for failures of the agent.
        traffic: counts the requests, together with those of the owner's socket.
    """
    table = _VerifyDispatch(version, logger, traffic)
    handlers = _VerifyMethods(agent)
    table.register(
        methods.VERIFY_TOKEN,
        VerifyTokenParams,
        handlers.verify_nowait,
        fallback=handlers.verify_and_consume,
        queue=FairQueue(MAX_COUNTED),
    )
    return table


class _VerifyDispatch(AgentDispatch):
    """Answers a failure of the agent with its code and that code's general sentence.

    The full sentence names paths and records. It is for the owner, who gets it over the owner's socket.
    """

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        if isinstance(error, AgentdError) and error.number != INVALID:
            error = ERRORS.get(error.code, AgentInternalError)()
        return super()._error_reply(msgid, name, error)


class _VerifyMethods:
    """The handlers. Peers learn the verdict, and not which session it is or who opened it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def verify_nowait(self, params: VerifyTokenParams, caller: Caller) -> Verdict | None:
        """Verify a token; None if the answer takes a write."""
        found = self._agent.manager.verify_nowait(
            presented_token(params.token), audience=params.audience, scopes=params.scopes, by=caller.identity
        )
        return None if found is None else _verdict(found)

    async def verify_and_consume(self, params: VerifyTokenParams, caller: Caller) -> Verdict:
        """Verify a token of a session with limited uses."""
        return _verdict(
            await self._agent.manager.verify_and_consume(
                presented_token(params.token),
                audience=params.audience,
                scopes=params.scopes,
                by=caller.identity,
            )
        )


def _verdict(found: Verification) -> Verdict:
    # Only the reason for a token that is not valid: a peer that was refused for the wrong audience must not
    # learn which one to name next time.
    session = found.session
    if not found.valid or session is None:
        return Verdict(found.valid, found.reason, None, None)
    return Verdict(True, None, session.audience, session.scopes)
