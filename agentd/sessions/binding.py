"""Sessions that end with a process: bound when they are opened, and again when the agent starts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from agentd_client.errors import CannotBindError
from agentd_client.protocol.reasons import PROCESS_ENDED

from ..process_identity import Process, completed
from ..process_watch import ProcessWatch
from .records import (
    BOUND_PATH,
    SessionPath,
    SessionRecord,
    find_live_session,
    find_path,
    read_session,
    session_path,
)

if TYPE_CHECKING:
    import logging

    from ..store import View
    from .clock import Clock
    from .manager_lifecycle import Context
    from .revoker import Revoker


class Binder:
    """Watches the processes of bound sessions, keyed by session id, and ends a session with its process."""

    def __init__(self, context: Context, revoker: Revoker, logger: logging.Logger) -> None:
        self._db, _, self._verifier, _, self._clock = context
        self._revoker = revoker
        self._watch = ProcessWatch(logger)
        self._is_running = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End sessions whose process ends, until cancelled; sessions can be bound once this has started."""
        self._is_running = True
        task_status.started()
        try:
            await self._watch.run(self._end)
        finally:
            self._is_running = False

    def bind(self, session_id: str, process: Process | None) -> Process:
        """Watch the process of a session that is about to be opened; None if no process has the peer's pid.

        Raises:
            CannotBindError: it has ended, cannot be watched, or nothing would notice its end.
        """
        if not self._is_running:
            raise CannotBindError(
                "this session manager watches no processes: its standing tasks (`run`) are not running"
            )
        if process is not None and process.pid == 0:  # how SO_PEERCRED shows it, pid_namespaces(7)
            raise CannotBindError(
                "the process that made this connection is outside of the agent's PID namespace, so the agent "
                "could not notice its end; nothing was stored: run the command where the agent runs, or run "
                "an agent where the command runs"
            )
        process = None if process is None else completed(process)
        if process is None or not self._watch.watch(session_id, process):
            raise CannotBindError(
                "the process that made this connection has ended, or the agent cannot see it in /proc; "
                "nothing was stored: connect from the process that the session is to end with"
            )
        return process

    def unbind(self, session_id: str) -> None:
        """Stop watching for a session that was not opened after all."""
        self._watch.forget(session_id)

    async def make_room(self) -> None:
        """If the maximum is reached, stop watching for sessions that have ended."""
        if self._watch.is_full:
            await self.forget_ended()

    async def forget_ended(self) -> None:
        """Stop watching for sessions that ended other than with their process."""
        ids = self._watch.keys
        if not ids:
            return
        # As an operation, so that it runs after all that was queued: a session may be on its way to disk.
        found = await self._db.write(partial(_live_sessions, ids=ids, clock=self._clock), reserved=True)
        now = self._clock.read()
        for session_id in ids:
            path, record = found.get(session_id, (None, None))
            if path is None or record is None or self._verifier.is_over(path, record, now, remember=True):
                self._watch.forget(session_id)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watch.close()

    async def bind_again(self) -> None:
        """Watch the processes of all bound sessions in the store; end sessions whose process has ended."""
        for marker, _ in self._db.iterate(BOUND_PATH):
            path = session_path(marker[1].decode(), marker[2].decode())
            live = find_live_session(self._db, path, self._clock.read())
            if live is not None and self._is_watched(path[2], live.record):
                continue
            if read_session(self._db, path) is not None:
                await self._revoker.end(path, by=None, reason=PROCESS_ENDED)
            await self._db.delete(marker)

    def _is_watched(self, session_id: str, record: SessionRecord) -> bool:
        if record.bound_pid is None:
            return False
        process = Process(record.bound_pid, record.bound_started, record.bound_boot_id)
        try:
            return self._watch.watch(session_id, process)
        except CannotBindError:
            return False  # a session that could not end with its process ends now

    async def _end(self, session_id: str) -> None:
        # As an operation, so that it runs after all that was queued before: the process may end while its
        # session is still on its way to disk.
        path = await self._db.write(
            lambda view: find_path(view, session_id, self._clock.read()), reserved=True
        )
        if path is not None:
            await self._revoker.end(path, by=None, reason=PROCESS_ENDED)


def _live_sessions(view: View, ids: list[str], clock: Clock) -> dict[str, tuple[SessionPath, SessionRecord]]:
    found = {}
    for session_id in ids:
        path = find_path(view, session_id, clock.read())
        live = None if path is None else find_live_session(view, path, clock.read())
        if path is not None and live is not None:
            found[session_id] = path, live.record
    return found
