"""What changes a session that goes on: counting a use, renewing, noting what was seen of it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from agentd_client.errors import AgentdError, TokenNotValidError
from agentd_client.protocol import reasons
from agentd_client.protocol.reasons import sentence
from agentd_client.protocol.results import RENEWED, CreatedToken, PeerIdentity, Verification

from .grants import misfit
from .opened_token import describe
from .records import KEY_PATH, SessionPath, SessionRecord
from .rules import first_seen, renewed
from .standing import record_at, standing

if TYPE_CHECKING:
    from ..store import DB, Transaction, View
    from .clock import Clock
    from .journal import Journal
    from .key_holder import KeyHolder
    from .minter import Minter
    from .opened_token import OpenedToken
    from .verifier import Verifier

_STEP_RECORDS = 64
"""Records whose last use is written in one go."""

StorePath = tuple[bytes, ...]


class NotRenewedError(TokenNotValidError):
    """A token that cannot be renewed, with the answer that a verification gives."""

    def __init__(self, answer: Verification) -> None:
        assert answer.reason is not None
        super().__init__(f"{sentence(answer.reason)} ({answer.reason}); log in again")
        self.answer = answer


class Changer:
    """Changes records, each in one operation of the store that looks again before it writes."""

    def __init__(
        self,
        db: DB,
        keys: KeyHolder,
        verifier: Verifier,
        minter: Minter,
        journal: Journal,
        clock: Clock,
        *,
        lifetime_limit: int | None,
    ) -> None:
        self._db = db
        self._keys = keys
        self._verifier = verifier
        self._minter = minter
        self._journal = journal
        self._clock = clock
        self._limit = lifetime_limit

    async def count_use(self, token: object, audience: str | None, scopes: list[str] | None) -> Verification:
        """Verify a token of a session with limited uses: yes once one use less is on the disk.

        After a crash there may be one use less than there were answers, never one more.
        """
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            return opened
        return await self._db.write(lambda view: self._count(view, opened, audience, scopes), reserved=True)

    def count_use_through(
        self, tran: Transaction, token: object, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        """The same, in a transaction."""
        opened = self._verifier.open(tran, token)
        return opened if isinstance(opened, Verification) else self._count(tran, opened, audience, scopes)

    def _count(
        self, view: View, opened: OpenedToken, audience: str | None, scopes: list[str] | None
    ) -> Verification:
        record = self._verifier.found_in(view, opened, partial(misfit, audience=audience, scopes=scopes))
        if isinstance(record, Verification):
            return record
        uses_left = record.uses_left
        if uses_left is not None:
            now = self._clock.read()
            if opened.claims.gen == record.generation > 0 and record.superseded is None:
                record = first_seen(record, now)
            record = replace(record, uses_left=uses_left - 1, last_used=now.wall)
            view.put(opened.path, record.encode())
        return Verification(True, None, describe(record))

    async def renew(self, token: object, by: PeerIdentity | None) -> CreatedToken:
        """A token of the next generation, once that is on the disk.

        With the token before the newest, as long as that is good, the newest is made once more: whoever lost
        an answer asks again.

        Raises:
            NotRenewedError: the token is not valid, or its key was replaced with grace.
        """
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            raise NotRenewedError(opened)

        def renew_in(view: View) -> tuple[SessionRecord, bool]:
            now = self._clock.read()
            record = self._verifier.found_in(view, opened)
            if isinstance(record, Verification):
                raise NotRenewedError(record)
            found = standing(view, opened.path, now)
            if found is None or not found.is_under_present_key:
                raise NotRenewedError(Verification(False, reasons.KEY_RESET, describe(record)))
            if opened.claims.gen != record.generation:
                return record, False
            record = renewed(record, found.parent, now, self._limit)
            view.put(opened.path, record.encode())
            self._journal.write(view, RENEWED, record, by=by)
            return record, True

        record, is_new = await self._db.write(renew_in)
        self._keys.current(self._db.sealed(KEY_PATH)[0])
        key = self._keys.accepting(opened.key_id, self._clock.read())
        if key is None:  # replaced meanwhile: the session has ended
            raise NotRenewedError(Verification(False, reasons.KEY_RESET, None))
        if is_new:
            self._verifier.used[opened.path] = self._clock.read().wall
            self._journal.tell(RENEWED, record, by=by)
        return self._minter.mint(key, record)

    def note_first_seen(self, path: SessionPath, generation: int) -> None:
        """The newest token was seen: let the one before it go. Nobody waits for it.

        Until it is on the disk the verifier knows it by itself; after a crash the one before is good again,
        until the newest is seen once more.
        """
        now = self._clock.read()

        def note(view: View) -> None:
            record = record_at(view, path)
            if record is not None and record.generation == generation and record.superseded is None:
                view.put(path, first_seen(record, now).encode())

        with suppress(AgentdError):  # a store that refuses: what the verifier knows has to do
            self._db.submit(note)

    async def forget_stored_sights(self) -> None:
        """Let go of the first sights that the records tell of by now."""
        for path, generation in self._verifier.first_sights:
            record = record_at(self._db, path)
            if record is None or record.generation != generation or record.superseded is not None:
                self._verifier.first_seen_is_stored(path, generation)
            await trio.lowlevel.checkpoint()

    async def write_last_uses(self) -> None:
        """Write when sessions were last used, as far as that is known in memory only."""
        used, self._verifier.used = self._verifier.used, {}
        paths = sorted(used)
        for start in range(0, len(paths), _STEP_RECORDS):
            step = paths[start : start + _STEP_RECORDS]
            try:
                await self._db.write(partial(_write_last_uses, used={path: used[path] for path in step}))
            except BaseException:
                self._verifier.used = {path: used[path] for path in paths[start:]} | self._verifier.used
                raise


def _write_last_uses(view: View, used: dict[SessionPath, float]) -> None:
    for path, when in used.items():
        record = record_at(view, path)
        if record is not None:
            view.put(path, replace(record, last_used=when).encode())
