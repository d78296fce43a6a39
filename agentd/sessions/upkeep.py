"""The standing tasks: write what is noted in memory, and delete records that no longer prove anything.

Sweeping only frees space. A record that expired, or whose key was replaced, is rejected whether or not it was
swept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import SESSION_EXPIRED

from .listing import find_matching
from .records import (
    SESSIONS_PATH,
    Readable,
    SessionPath,
    SessionRecord,
    accepted_key_ids,
    bound_path,
    read_key_record,
    session_path,
)
from .rules import has_expired, is_in_grace

if TYPE_CHECKING:
    import logging

    from ..lifecycle import LoopLifecycle
    from ..store import View
    from .binding import Binder
    from .manager_lifecycle import Context

SWEEP_INTERVAL_SECONDS = 600.0
WRITE_INTERVAL_SECONDS = 60.0
"""How often what is noted in memory is written: last uses, and what the audit log counts."""

_SCATTERED_RECORDS = 16
"""Records deleted in one write wherever they are stored: each may change pages of its own, and a full store
has room for a few changed pages only."""

_REST_SECONDS = 1.0
_REST_SHARE = 10
"""A store full of live sessions is swept in vain, so sweeping takes at most a tenth of the time."""


class Upkeep:
    """Keeps the store small and up to date.

    It finds records to delete first and deletes them in a later write. A reset or a new session may come in
    between, so the transaction that deletes a record checks it again.
    """

    def __init__(
        self, context: Context, binder: Binder, lifecycle: LoopLifecycle, logger: logging.Logger
    ) -> None:
        self._db, self._keys, self._verifier, self._journal, self._clock = context
        self._binder = binder
        self._lifecycle = lifecycle
        self._log = logger
        self._room_wanted = trio.Event()
        self._rest_seconds = 0.0

    async def run(self, sweep_interval_seconds: float, task_status: trio.TaskStatus[None]) -> None:
        """See `SessionManager.run`."""
        async with trio.open_nursery() as tasks:
            await tasks.start(self._binder.run)
            task_status.started()
            tasks.start_soon(self._repeat, trio.sleep, WRITE_INTERVAL_SECONDS, self.write_pending)
            tasks.start_soon(self._repeat, self._until_due, sweep_interval_seconds, self.sweep)

    async def _repeat(
        self,
        pause: Callable[[float], Awaitable[None]],
        seconds: float,
        task: Callable[[], Awaitable[object]],
    ) -> None:
        while True:
            await pause(seconds)
            if self._lifecycle.is_running:
                try:
                    await task()
                except AgentdError as error:  # the store failed, or both were stopped during the task
                    self._log.warning("sweeping or writing postponed: %s", error)

    async def write_pending(self) -> None:
        """Write last uses and what the audit log counts, and trim it."""
        await self._journal.flush()
        await self._verifier.uses.write_last_uses()
        await self._verifier.uses.drop_persisted_first_uses()
        await self._journal.trim()

    def want_room(self) -> None:
        """There was no room for a new session; sweeping may make some."""
        self._room_wanted.set()

    async def _until_due(self, interval_seconds: float) -> None:
        # Also due once room is wanted and the rest after the last sweep is over.
        with trio.move_on_after(interval_seconds):
            await trio.sleep(self._rest_seconds)
            await self._room_wanted.wait()
        self._room_wanted = trio.Event()

    async def sweep(self) -> int:
        """Examine every record once, in small steps; returns how many were deleted."""
        started = trio.current_time()
        try:
            swept = await self._sweep()
            await self._binder.forget_ended()
            return swept
        finally:
            self._rest_seconds = max(_REST_SECONDS, _REST_SHARE * (trio.current_time() - started))

    async def _sweep(self) -> int:
        await self._end_grace()
        swept = await self.delete_known_expired()
        key_ids = accepted_key_ids(self._db, self._clock.read())
        has_ended, after = partial(self._has_ended, self._db, key_ids), None
        while True:
            ended, after = await find_matching(self._db, SESSIONS_PATH, has_ended, after)
            if ended:
                deleted, expired = await self._db.write(partial(self._delete_ended, paths=ended))
                swept += deleted
                for record in expired:
                    self._journal.publish(SESSION_EXPIRED, record)
            if after is None:
                return swept

    async def delete_known_expired(self) -> int:
        """Delete the sessions once found expired, so that they stay so after this process ends."""
        known = sorted(self._verifier.known_expired)
        swept = 0
        for start in range(0, len(known), _SCATTERED_RECORDS):
            paths = known[start : start + _SCATTERED_RECORDS]
            # Expiry is final: these are not checked again, whatever the clock says now.
            swept += await self._db.write(partial(_delete_all, paths=paths))
            self._verifier.known_expired.difference_update(paths)
        return swept

    async def _end_grace(self) -> None:
        key = read_key_record(self._db)
        if key is None or not key.earlier_key_id:
            return
        if not is_in_grace(key, key.earlier_key_id, self._clock.read()):
            await self._db.write(self._keys.end_grace, reserved=True)
            self._keys.current()  # wipes the earlier key

    def _delete_ended(self, view: View, paths: Sequence[SessionPath]) -> tuple[int, list[SessionRecord]]:
        """Delete those that have ended; how many, and the records of those that expired."""
        now = self._clock.read()
        key_ids = accepted_key_ids(view, now)
        ended, expired = [], []
        for path in paths:
            stored = view.get(path)
            if stored is not None and self._has_ended(view, key_ids, path, stored):
                ended.append(path)
                # Sessions ended by a reset are deleted unread.
                if path[1] in key_ids and has_expired(record := SessionRecord.decode(stored), now):
                    expired.append(record)
        return _delete_all(view, ended), expired

    def _has_ended(self, view: Readable, key_ids: list[str], path: SessionPath, stored: bytes) -> bool:
        if path[1] not in key_ids:
            return True
        record = SessionRecord.decode(stored)
        if has_expired(record, self._clock.read()):
            return True
        return any(view.get(session_path(path[1], ancestor)) is None for ancestor in record.ancestors)


def _delete_all(view: View, paths: Sequence[SessionPath]) -> int:
    for path in paths:
        view.delete(bound_path(path))
    return sum(view.delete(path) for path in paths)
