"""The owner's socket and the two for others: the verify socket, and the ask socket."""

from __future__ import annotations

import grp
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import trio

from agentd_client.errors import ConfigError

from .config import Settings, SharedSocket
from .server import Access, Admission, Dispatch, SocketFile, keep_in_place, prepare_folder, serve_connections
from .systemd import NONE_PASSED, Passed


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


class Sockets(NamedTuple):
    """The agent's sockets, which listen."""

    owners: ServedSocket
    verify: ServedSocket
    ask: ServedSocket


class SocketFiles(NamedTuple):
    """The claims on the sockets' paths; None where there is no socket, or a service manager has it."""

    owners: SocketFile
    verify: SocketFile | None
    ask: SocketFile | None

    def listen(self, passed: Passed = NONE_PASSED) -> Sockets:
        """Listen at each path, or take the socket that was passed for it."""
        return Sockets(*map(ServedSocket, self, passed))


@contextmanager
def socket_files(settings: Settings, passed: Passed = NONE_PASSED) -> Iterator[SocketFiles]:
    """Claim the paths of the sockets, as the settings name them; raises what `SocketFile` raises.

    The owner's comes first. So of several agents that start at once, only one goes on.

    Raises:
        ConfigError: there is no such group.
    """
    with (
        SocketFile(settings.socket_path) as owners,
        _shared_socket_file(settings.verify_socket, passed.verify) as verify,
        _shared_socket_file(settings.ask_socket, passed.ask) as ask,
    ):
        yield SocketFiles(owners, verify, ask)


def _shared_socket_file(
    shared: SharedSocket, passed: socket.socket | None
) -> AbstractContextManager[SocketFile | None]:
    is_ours = bool(shared.path) and passed is None
    return SocketFile(shared.path, _access(shared)) if is_ours else nullcontext()


def check_shared_socket(shared: SharedSocket) -> None:
    """Raise what claiming its path would raise, apart from locks; creates nothing."""
    access = _access(shared)
    prepare_folder(os.path.dirname(SocketFile(shared.path, access).path), access)


def _access(shared: SharedSocket) -> Access:
    gid = None
    if shared.group:
        try:
            gid = grp.getgrnam(shared.group).gr_gid
        except KeyError:
            raise ConfigError(
                f"{shared.name}_group: there is no group {shared.group!r}; make it, or leave the setting out"
            ) from None
    return Access(f"{shared.name}_path", is_private=False, mode=int(shared.mode, 8), gid=gid)
