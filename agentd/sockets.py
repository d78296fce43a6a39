"""The owner's socket, and the verify socket, over which other users can have tokens verified."""

from __future__ import annotations

import grp
import logging
import os
import socket
from contextlib import AbstractContextManager, nullcontext

import trio

from agentd_client.errors import ConfigError

from .config import Settings
from .server import Access, Admission, Dispatch, SocketFile, keep_in_place, prepare_folder, serve_connections


class ServedSocket:
    """A socket that listens from its creation on, so clients wait for `serve`; it raises what `bind` raises.

    Args:
        file: the claim on its path, which is kept in place; None without one.
        passed: the socket that a service manager listens on. `serve` closes it; until then it stays the
            caller's. With neither of the two, nothing is served.
    """

    def __init__(self, file: SocketFile | None, passed: socket.socket | None = None) -> None:
        self._file = file
        self._passed = passed
        self._listener = passed
        if file is not None:
            if passed is None:
                self._listener = file.bind()
            else:
                file.adopt(passed)
        self.path: str | None = None if self._listener is None else self._listener.getsockname()

    async def serve(
        self,
        dispatch: Dispatch,
        admission: Admission,
        drain_seconds: float,
        stop: trio.Event,
        logger: logging.Logger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is set and what had arrived is answered."""
        if self._listener is None:
            return
        with self._passed or nullcontext():
            async with trio.open_nursery() as standing:
                if self._file is not None:
                    standing.start_soon(keep_in_place, self._file, logger)
                await serve_connections(
                    self._listener,
                    dispatch,
                    logger=logger,
                    stop=stop,
                    admission=admission,
                    drain_seconds=drain_seconds,
                    owns_listener=self._passed is None,
                    task_status=task_status,
                )
                standing.cancel_scope.cancel()


def verify_socket_file(settings: Settings) -> AbstractContextManager[SocketFile | None]:
    """The claim on the verify socket's path, if the settings name one; ConfigError without such a group."""
    path = settings.verify_socket_path
    return SocketFile(path, _verify_access(settings)) if path else nullcontext()


def check_verify_socket(settings: Settings) -> None:
    """Raise what claiming the verify socket would raise, apart from locks; creates nothing."""
    access = _verify_access(settings)
    prepare_folder(os.path.dirname(SocketFile(settings.verify_socket_path, access).path), access)


def _verify_access(settings: Settings) -> Access:
    name, gid = settings.verify_socket_group, None
    if name:
        try:
            gid = grp.getgrnam(name).gr_gid
        except KeyError:
            raise ConfigError(
                f"verify_socket_group: there is no group {name!r}; make it, or leave the setting out"
            ) from None
    return Access("verify_socket_path", is_private=False, mode=int(settings.verify_socket_mode, 8), gid=gid)
