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

from agentd_client.errors import ConfigError

from . import __version__
from .config import Settings
from .methods import verify_dispatch
from .server import (
    Access,
    SocketFile,
    Traffic,
    any_user,
    keep_in_place,
    prepare_folder,
    serve_connections,
)

if TYPE_CHECKING:
    from .agent import Agent


class VerifySocket:
    """A claim on the verify socket, held from `__enter__` to `__exit__`. A no-op if none is configured.

    Entered before anything is created and bound once the agent can answer, like the owner's `SocketFile`,
    and raises the same; ConfigError if there is no such group. A socket that systemd passed takes precedence
    over the settings. It is closed here once it was bound; until then it stays the caller's.
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
        """Listen, if a socket is configured. From now on clients wait to be served."""
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
