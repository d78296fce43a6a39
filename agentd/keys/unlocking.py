"""Attempts at a passphrase: one at a time, slower after each wrong one, and fair between processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import trio

from agentd_client.errors import PassphraseError, TooManyAttemptsError

Result = TypeVar("Result")

MAX_WAITING = 64
"""Attempts that wait, of all peers together."""

MAX_WAITING_OF_A_PEER = 8

MAX_PEERS = 256
"""Peers whose wrong attempts are remembered; beyond that the one that was wrong longest ago is forgotten."""

MAX_DELAY_SECONDS = 30.0
FORGOTTEN_AFTER_SECONDS = 600.0
"""A peer that has not been wrong for so long begins anew: its pid may be another process by now."""


def delay_seconds(wrong: int) -> float:
    """How long a peer waits after its last wrong attempt: 0, 1, 2, 4 … 30 s after 0, 1, 2, 3 … of them."""
    return min(MAX_DELAY_SECONDS, 2.0 ** min(wrong - 1, 10)) if wrong else 0.0


@dataclass
class _Peer:
    wrong: int
    last_wrong: float


@dataclass(eq=False)
class _Waiting:
    peer: int
    number: int
    is_pushed_out: bool = False


class UnlockQueue:
    """The turns of those who try a passphrase, on trio's clock.

    Whose turn is next: of those whose delay is over, whoever was wrong least often, then whoever did not
    have the last turn, then whoever came first. So a peer's first attempt waits for the one that runs, and
    for the first attempts of others, never for a second one of theirs. A full queue refuses the newest
    attempt of the peer that has the most. A peer is a pid: who may start processes may also be many peers,
    whose attempts still run one after the other.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._peers: OrderedDict[int, _Peer] = OrderedDict()
        self._number = 0
        self._is_busy = False
        self._last_peer: int | None = None
        self._changed = trio.Event()
        self._wrong = 0

    async def attempt(self, peer: int, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run `work` when it is this peer's turn.

        `work` says that the passphrase is wrong by raising PassphraseError. Its other errors count for
        nothing, and are raised as they are.

        Raises TooManyAttemptsError, without running `work`, where too many wait.
        """
        await self._turn(self._enter(peer))
        try:
            result = await work()
        except PassphraseError:
            self._was_wrong(peer)
            raise
        else:
            self._peers.pop(peer, None)
            return result
        finally:
            self._is_busy = False
            self._tell()

    @property
    def waiting(self) -> int:
        """How many attempts wait for their turn."""
        return len(self._waiting)

    @property
    def wrong_attempts(self) -> int:
        """How many wrong attempts there were."""
        return self._wrong

    def _enter(self, peer: int) -> _Waiting:
        if self._count(peer) >= MAX_WAITING_OF_A_PEER:
            raise self._refusal()
        if len(self._waiting) >= MAX_WAITING:
            self._push_out(peer)
        self._number += 1
        waiting = _Waiting(peer, self._number)
        self._waiting.append(waiting)
        return waiting

    def _push_out(self, newcomer: int) -> None:
        newest = max(self._waiting, key=lambda waiting: (self._count(waiting.peer), waiting.number))
        if self._count(newest.peer) <= self._count(newcomer) + 1:
            raise self._refusal()
        newest.is_pushed_out = True
        self._waiting.remove(newest)
        self._tell()

    async def _turn(self, waiting: _Waiting) -> None:
        try:
            while self._is_busy or self._next() is not waiting:
                if waiting.is_pushed_out:
                    raise self._refusal()
                ready_at = self._ready_at(waiting.peer)
                # Once its own delay is over, only what another does can make it this one's turn.
                with trio.move_on_at(ready_at if ready_at > trio.current_time() else inf):
                    await self._changed.wait()
            self._is_busy, self._last_peer = True, waiting.peer
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            self._tell()

    def _next(self) -> _Waiting | None:
        now = trio.current_time()
        ready = [waiting for waiting in self._waiting if self._ready_at(waiting.peer) <= now]
        return min(ready, key=self._rank, default=None)

    def _rank(self, waiting: _Waiting) -> tuple[int, bool, int]:
        return self._wrong_of(waiting.peer), waiting.peer == self._last_peer, waiting.number

    def _was_wrong(self, peer: int) -> None:
        self._wrong += 1
        self._peers[peer] = _Peer(self._wrong_of(peer) + 1, trio.current_time())
        self._peers.move_to_end(peer)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)

    def _wrong_of(self, peer: int) -> int:
        known = self._peers.get(peer)
        if known is None or trio.current_time() - known.last_wrong >= FORGOTTEN_AFTER_SECONDS:
            return 0
        return known.wrong

    def _ready_at(self, peer: int) -> float:
        known = self._peers.get(peer)
        return -inf if known is None else known.last_wrong + delay_seconds(known.wrong)

    def _count(self, peer: int) -> int:
        return sum(waiting.peer == peer for waiting in self._waiting)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @staticmethod
    def _refusal() -> TooManyAttemptsError:
        return TooManyAttemptsError("too many passphrases wait to be looked at; try again later")
