"""Sessions that end with a process: bound when they are opened, and again when the agent starts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from agentd_client.errors import CannotBindError
from agentd_client.protocol.reasons import PROCESS_ENDED

from ..process_identity import Process, completed
from .ender import path_of
from .processes import ProcessWatch
from .records import BOUND_PATH, session_path
from .standing import record_at, standing

if TYPE_CHECKING:
    import logging
    from collections.abc import Hashable

    from ..store import DB, View
    from .clock import Clock
    from .ender import Ender
    from .records import SessionPath, SessionRecord
    from .verifier import Verifier


class Binder:
    """Watches the processes of bound sessions, by the sessions' ids, and ends a session with its process."""

    def __init__(
        self, db: DB, ender: Ender, verifier: Verifier, clock: Clock, logger: logging.Logger
    ) -> None:
        self._db = db
        self._ender = ender
        self._verifier = verifier
        self._clock = clock
        self._watch = ProcessWatch(logger)
        self._is_running = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End sessions whose process ends, until cancelled; from `started` on sessions can be bound."""
        self._is_running = True
        task_status.started()
        try:
            await self._watch.run(self._end)
        finally:
            self._is_running = False

    def bind(self, session_id: str, process: Process | None) -> Process:
        """Watch the process of a session that is about to be opened.

        Args:
            session_id: of that session.
            process: None where there was none with the opener's pid.

        Raises:
            CannotBindError: it has ended, cannot be watched, or nobody would notice its end.
        """
        if not self._is_running:
            raise CannotBindError(
                "this session manager watches no processes: nothing runs its standing tasks"
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
        """The session was not opened after all."""
        self._watch.forget(session_id)

    async def make_room(self) -> None:
        """If as many processes are watched as may be, see whose sessions have ended."""
        if self._watch.is_full:
            await self.forget_ended()

    async def forget_ended(self) -> None:
        """Watch no longer for sessions that ended in another way than with their process."""
        ids = [str(key) for key in self._watch.keys]
        if not ids:
            return
        # By an operation, after whatever was handed over before: one may be on its way to the disk.
        found = await self._db.write(partial(_standing, ids=ids, clock=self._clock), reserved=True)
        now = self._clock.read()
        for session_id in ids:
            path, record = found.get(session_id, (None, None))
            if path is None or record is None or self._verifier.is_over(path, record, now, is_telling=True):
                self._watch.forget(session_id)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watch.close()

    async def bind_again(self) -> None:
        """Watch the processes of all bound sessions there are; end those whose process has ended."""
        for note, _ in self._db.iterate(BOUND_PATH):
            path = session_path(note[1].decode(), note[2].decode())
            found = standing(self._db, path, self._clock.read())
            if found is not None and self._is_watched(path[2], found.record):
                continue
            if record_at(self._db, path) is not None:
                await self._ender.end(path, by=None, reason=PROCESS_ENDED)
            await self._db.delete(note)

    def _is_watched(self, session_id: str, record: SessionRecord) -> bool:
        if record.bound_pid is None:
            return False
        process = Process(record.bound_pid, record.bound_started, record.bound_boot_id)
        try:
            return self._watch.watch(session_id, process)
        except CannotBindError:
            return False  # a session that nobody would end with its process ends now

    async def _end(self, session_id: Hashable) -> None:
        # Looked up by an operation, after whatever was handed over before: the process may end while
        # its session is still on its way to the disk.
        path = await self._db.write(lambda view: path_of(view, str(session_id), self._clock), reserved=True)
        if path is not None:
            await self._ender.end(path, by=None, reason=PROCESS_ENDED)


def _standing(view: View, ids: list[str], clock: Clock) -> dict[str, tuple[SessionPath, SessionRecord]]:
    """Those of the sessions that count, with their records."""
    found = {}
    for session_id in ids:
        path = path_of(view, session_id, clock)
        counting = None if path is None else standing(view, path, clock.read())
        if path is not None and counting is not None:
            found[session_id] = path, counting.record
    return found
