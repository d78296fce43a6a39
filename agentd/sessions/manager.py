"""SessionManager: the session key, the sessions, and every operation on them."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import trio

from agentd_client.errors import (
    AgentdError,
    InvalidParamsError,
    SessionManagerDestroyedError,
    SessionManagerNotRunningError,
    SessionManagerRunningError,
)
from agentd_client.lifecycle import Lifecycle, Observer, State
from agentd_client.protocol.calls import is_sendable_token
from agentd_client.protocol.results import CreatedToken, Opener, Verification

from ..crypto import random_bytes
from ..tokens import Claims, seal_token
from ..tokens.paseto import NONCE_BYTES
from . import identifiers
from .clock import Clock, SystemClock
from .key_holder import KeyHolder
from .records import KEY_PATH, SESSIONS_PATH, KeyRecord, SessionRecord, session_path, sessions_of_key
from .rules import checked_label, expiry_seconds, new_record
from .sweeper import Sweeper
from .verifier import Readable, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..keys import KeyRing
    from ..store import DB, Transaction, View
    from .session_key import SessionKey

SWEEP_INTERVAL_SECONDS = 600.0
TIDYING_SECONDS = 2.0  # for what a stop still writes
_MAX_ID_CHARACTERS = 64


class SessionManager:
    """Opens, judges and ends sessions. Create it with `create_session_manager`.

    Every operation takes a `tran` of the same store: it then reads and writes through it, and nothing is
    seen elsewhere until it commits. Without one, an operation answers once its write is on the disk.
    """

    def __init__(
        self,
        db: DB,
        key_ring: KeyRing,
        expiry: int | str | None = None,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._db = db
        self._key_ring = key_ring
        self._expiry = expiry_seconds(expiry, None)
        self._log = logger or logging.getLogger("agentd.sessions")
        self._clock = clock or SystemClock()
        self._lifecycle = Lifecycle(
            running=SessionManagerRunningError,
            destroyed=SessionManagerDestroyedError,
            not_running=SessionManagerNotRunningError,
        )
        self._lock = trio.Lock()
        self._subject = str(os.geteuid())
        # Bound into every token: one made by another agent opens here under no circumstances.
        self._implicit = b"agentd:" + key_ring.agent_id.encode()
        self._keys = KeyHolder(db, key_ring, self._clock)
        self._verifier = Verifier(db, self._keys, self._implicit, self._clock)
        self._sweeper = Sweeper(db, self._verifier, self._clock)

    @classmethod
    async def create_session_manager(
        cls,
        *,
        db: DB,
        key_ring: KeyRing,
        expiry: int | str | None = None,
        logger: logging.Logger | None = None,
        fresh: bool = False,
        clock: Clock | None = None,
    ) -> Self:
        """Construct and start.

        Args:
            db: a running store; it must outlive the manager.
            key_ring: the running key ring of that store.
            expiry: how long a session lasts where its opener does not say, in whole seconds; None is never.
            logger: where to say what was done; never a token or a key.
            fresh: end every session and draw a new session key.
            clock: where to read the time.

        Raises:
            InvalidExpiryError: the default expiry is not usable.
            StoreError: the store failed or is damaged.
        """
        manager = cls(db, key_ring, expiry, logger, clock)
        await manager.start(fresh=fresh)
        return manager

    async def start(self, *, fresh: bool = False) -> None:
        """Make sure that there is a session key; with `fresh`, forget every session and the key first."""
        async with self._lock:
            with self._lifecycle.starting() as needed:
                if needed:
                    self._keys.open()
                    try:
                        if fresh:
                            await self._clear()
                        await self._setup_key()
                    except BaseException:
                        self._keys.close()
                        raise

    async def stop(self) -> None:
        """Wipe the session key from memory. Sessions and key stay in the store."""
        async with self._lock:
            with self._lifecycle.stopping() as needed:
                if needed:
                    try:
                        # Space, and what a clock set back might revive: not worth keeping the key for.
                        with trio.move_on_after(TIDYING_SECONDS):
                            await self._sweeper.delete_seen_expired()
                    except AgentdError as error:
                        self._log.warning("expired sessions are left for the next sweep: %s", error)
                    finally:
                        self._verifier.forget()
                        self._keys.close()

    async def destroy(self) -> None:
        """Clear every session-related record from the store, which must still be running."""
        async with self._lock:
            with self._lifecycle.destroying() as needed:
                if needed:
                    await self._clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        with trio.CancelScope(shield=True):  # bounded by TIDYING_SECONDS
            await self.stop()

    @property
    def state(self) -> State:
        """Stopped, running or destroyed."""
        return self._lifecycle.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Be told of every life-cycle event; returns the function that ends this."""
        return self._lifecycle.observe(observer)

    async def setup_key(self) -> SessionKey:
        """The session key; draws one only where there is none."""
        self._lifecycle.require_running()
        return await self._setup_key()

    async def reset_key(self, tran: Transaction | None = None) -> str:
        """Replace the session key: every earlier token is invalid from then on. Returns the new key's id.

        One record is written, however many sessions there are; theirs no longer count and are swept later.
        """
        self._lifecycle.require_running()
        if tran is not None:
            return self._keys.replace(tran).key_id
        record = await self._db.write(self._keys.replace, reserved=True)
        self._verifier.forget()
        # Committed: nothing from here on may raise, though manager and store may have been stopped meanwhile.
        with suppress(AgentdError):
            self._keys.current(self._db.sealed(KEY_PATH)[0])  # wipes the one that was replaced
        self._log.info("session key replaced; earlier sessions have ended")
        return record.key_id

    async def create_token(self, expiry: int | str | None = None, tran: Transaction | None = None) -> str:
        """Open a session and return the token that proves it; `expiry` as for `open_session`."""
        return (await self.open_session(expiry, tran=tran)).token

    async def open_session(
        self,
        expiry: object = None,
        label: object = None,
        opened_by: Opener | None = None,
        tran: Transaction | None = None,
    ) -> CreatedToken:
        """Open a session.

        Args:
            expiry: whole seconds, `NEVER`, or None for the manager's default.
            label: one line for people.
            opened_by: the peer, as the kernel reported it.
            tran: the transaction to write through.

        Raises:
            InvalidExpiryError, InvalidLabelError: nothing was stored.
            StoreError: nothing was stored.
        """
        self._lifecycle.require_running()
        lasts = expiry_seconds(expiry, self._expiry)
        now = self._clock.read()
        session_id = identifiers.session_id(random_bytes(identifiers.RANDOM_BYTES), now.wall)
        record = new_record(session_id, checked_label(label), lasts, opened_by, now)
        stored = record.encode()

        def enter(view: View) -> KeyRecord:
            key = self._keys.ensure(view)
            view.put(session_path(key.key_id, session_id), stored)
            return key

        if tran is not None:
            token = self._mint(self._keys.of(enter(tran)), record)
        else:
            token = await self._enter_and_mint(enter, record)
        return CreatedToken(token, session_id, record.expires)

    async def verify_token(self, token: object, tran: Transaction | None = None) -> bool:
        """Whether this is a valid token, whatever it is that was handed in.

        Raises only where the agent cannot know: not running, locked, or the store failed.
        """
        return (await self.inspect_token(token, tran)).valid

    async def inspect_token(self, token: object, tran: Transaction | None = None) -> Verification:
        """All that is known of a token: whether it is valid, why not, and its session."""
        self._lifecycle.require_running()
        await trio.lowlevel.checkpoint()
        return self.judge(token) if tran is None else self._verifier.judge_through(tran, token)

    def judge(self, token: object) -> Verification:
        """`inspect_token` without a transaction: never waits, and is fast for a token seen before."""
        self._lifecycle.require_running()
        return self._verifier.judge(token)

    async def revoke_token(
        self, token: object = None, *, id: object = None, tran: Transaction | None = None
    ) -> bool:
        """End one session, by its token or its id. Returns whether there was one to end.

        After this has answered, no verification that starts later says yes.
        """
        self._lifecycle.require_running()
        if (token is None) == (id is None):
            raise InvalidParamsError("revoke takes either a token or an id")
        if id is not None and not (isinstance(id, str) and 0 < len(id) <= _MAX_ID_CHARACTERS):
            raise InvalidParamsError("an id is the text that createToken answered")
        if id is None and (type(token) is not str or not is_sendable_token(token)):
            return False

        def path_in(view: Readable) -> tuple[str, str, str] | None:
            if isinstance(token, str):
                return self._verifier.find(view, token)
            stored = view.get(KEY_PATH)
            return None if stored is None else session_path(KeyRecord.decode(stored).key_id, str(id))

        if tran is not None:
            path = path_in(tran)
            return path is not None and tran.delete(path)
        # The path names the key that the token was made with, so it means the same whatever runs beside.
        path = path_in(self._db)
        if path is None:
            return False
        return await self._db.write(lambda view: view.delete(path))

    @property
    def session_count(self) -> int:
        """Sessions under the present key, those included that expired and are not yet swept."""
        return self._db.count(sessions_of_key(self.key_id))

    @property
    def key_id(self) -> str:
        """The id of the present session key; empty where there is none."""
        self._lifecycle.require_running()
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        return "" if key is None else key.id

    async def run(self, *, sweep_interval_seconds: float = SWEEP_INTERVAL_SECONDS) -> None:
        """The standing task: sweep what has ended, now and then. Nothing but space depends on it."""
        while True:
            await trio.sleep(sweep_interval_seconds)
            if self._lifecycle.is_running:
                try:
                    await self.sweep()
                except AgentdError as error:  # the store failed, or store and manager were stopped meanwhile
                    self._log.warning("sweeping put off: %s", error)

    async def sweep(self) -> int:
        """Delete the records of every session that has ended, in small steps; returns how many."""
        self._lifecycle.require_running()
        return await self._sweeper.sweep()

    async def _setup_key(self) -> SessionKey:
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        return key or self._keys.of(await self._db.write(self._keys.ensure, reserved=True))

    async def _clear(self) -> None:
        # The key goes first: from then on no session counts, wherever this is interrupted.
        await self._db.delete(KEY_PATH)
        await self._db.clear(SESSIONS_PATH)

    async def _enter_and_mint(self, enter: Callable[[View], KeyRecord], record: SessionRecord) -> str:
        """Store a record and make its token, the one while the other is on its way to the disk.

        The token belongs to the key that the record stands under. A reset at the same time either comes
        first, and then the token is made once more with that key, or later, and ends this session too.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        storing = self._db.begin_write(enter)
        try:
            token = None if key is None else self._mint(key, record)
        except BaseException:
            storing.give_up()
            raise
        key_record = await storing.durable()
        self._lifecycle.require_running()
        if token is None or key is None or key.id != key_record.key_id:
            token = self._mint(self._keys.of(key_record), record)
        return token

    def _mint(self, key: SessionKey, record: SessionRecord) -> str:
        claims = Claims(
            iss=self._key_ring.agent_id,
            sub=self._subject,
            jti=record.session_id,
            iat=record.made,
            exp=record.expires,
            gen=record.generation,
        )
        nonce = random_bytes(NONCE_BYTES)
        with key as secret:
            return seal_token(secret, key.id, claims, implicit=self._implicit, nonce=nonce)
