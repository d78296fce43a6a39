"""Throttling of passphrase attempts: one at a time, slower after each wrong one, fair between processes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from math import inf

import trio

from agentd_client.errors import PassphraseError, TooManyAttemptsError

MAX_WAITING = 64
"""Waiting attempts of all peers together."""

MAX_WAITING_AFTER_WRONG = 32
"""Of those, attempts of peers that were wrong before; the other places are kept for peers that were not."""

MAX_WAITING_OF_A_PEER = 8

MAX_PEERS = 256
"""Peers whose wrong attempts are remembered; beyond that, the one that was wrong longest ago is forgotten."""

MAX_SEEN_PEERS = 512
"""Peers that are remembered for having waited before, and so may no longer evict another attempt."""

MAX_DELAY_SECONDS = 30.0

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 5.0
"""The longest pause that wrong attempts impose on all peers. Every new process is a new peer, so this is what
limits guessing: one attempt in five and a half seconds, of which half a second is Argon2id. It is not longer
because honest peers wait for it too."""

FORGOTTEN_AFTER_SECONDS = 600.0
"""When wrong attempts are forgotten."""

_TOO_MANY = "too many passphrase attempts are waiting; try again later"


def delay_seconds(wrong: int) -> float:
    """How long a peer waits after its last wrong attempt: 0, 1, 2, 4 … 30 s after 0, 1, 2, 3 … of them."""
    return min(MAX_DELAY_SECONDS, 2.0 ** min(wrong - 1, 10)) if wrong else 0.0


def pause_seconds(wrong: int) -> float:
    """How long all peers wait after the last wrong attempt: 0, 0.5, 1, 2, 4, 5 s after 0, 1, 2 … of them."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(wrong - 1, 10)) if wrong else 0.0


class _Failures:
    """Wrong attempts since the last right one, of one peer or of all."""

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = -inf

    def add(self) -> None:
        self.count, self.last = self.count + 1, trio.current_time()


_NEVER_WRONG = _Failures()


class _Waiting:
    """A waiting attempt; `wake` is set when it may be its turn, and when it was evicted."""

    def __init__(self, peer: Hashable, is_first: bool) -> None:
        self.peer = peer
        self.is_first = is_first
        self.wake = trio.Event()


class PassphraseThrottle:
    """Runs passphrase attempts in turn, on trio's clock.

    After a wrong attempt all peers wait for a pause that grows with the number of wrong attempts, and the
    peer that was wrong waits longer. The next turn goes to the peer that was wrong least often; among those
    to one that has not waited before; among those to one that did not have the last turn. Ties go to the
    newest and the oldest attempt alternately, so that no attempt waits behind a crowd that came before it, or
    for ever because others keep coming.

    Half of the places are kept for peers that were never wrong. A peer that has not waited before gets a
    place even in a full queue, if necessary by evicting the newest attempt of those that were wrong or, if
    there is none, the attempt in the middle, whose turn is farthest away. It can do so only once, or evicted
    peers that retry at once would evict each other.

    A peer is the identity of a process. A user who starts many processes is many peers. That gives no more
    attempts in a given time, but their first attempts take turns from those of others.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []  # the oldest first
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()  # by peer, the longest ago first
        self._all = _Failures()
        self._seen: OrderedDict[Hashable, float] = OrderedDict()  # when peers last waited, the oldest first
        self._is_busy = False
        self._last_peer: Hashable = None
        self._is_newest_next = True
        self._wrong = 0

    async def attempt(
        self,
        peer: Hashable,
        work: Callable[[], Awaitable[bool]],
        waiting: trio.CancelScope | None = None,
    ) -> bool:
        """Run `work` when it is this peer's turn.

        Args:
            peer: identifies the process that tries.
            work: raises PassphraseError if the passphrase is wrong. Returns True if it is right, False if it
                was not checked; False and other errors, which are raised unchanged, count as no attempt.
            waiting: cancel it when the client has gone. That ends the wait for a turn, not work in progress.

        Raises:
            TooManyAttemptsError: too many attempts are waiting; `work` was not run.
        """
        entry = self._admit(peer)
        with waiting or trio.CancelScope() as scope:
            await self._turn(entry)
        if scope.cancelled_caught:
            raise TooManyAttemptsError("the client has gone; this attempt was not checked")
        try:
            is_right = await work()
        except PassphraseError:
            self._was_wrong(peer)
            raise
        else:
            if is_right:
                self._failures.pop(peer, None)
                self._seen.pop(peer, None)
                self._all = _Failures()
            return is_right
        finally:
            self._is_busy = False
            for entry in self._waiting:  # their pauses have changed
                entry.wake.set()

    @property
    def waiting(self) -> int:
        """How many attempts are waiting."""
        return len(self._waiting)

    @property
    def wrong_attempts(self) -> int:
        """How many wrong attempts there were in total."""
        return self._wrong

    def _admit(self, peer: Hashable) -> _Waiting:
        self._forget_old()
        counts = self._waiting_by_peer()
        if counts[peer] >= MAX_WAITING_OF_A_PEER:
            raise TooManyAttemptsError(_TOO_MANY)
        after_wrong = [each for each in counts if each in self._failures] if peer in self._failures else []
        if sum(counts[each] for each in after_wrong) >= MAX_WAITING_AFTER_WRONG:
            self._evict(after_wrong, peer)
        elif len(self._waiting) >= MAX_WAITING:
            self._evict(list(counts), peer)
        entry = _Waiting(peer, self._is_new(peer))
        self._waiting.append(entry)
        self._seen[peer] = trio.current_time()
        self._seen.move_to_end(peer)
        if len(self._seen) > MAX_SEEN_PEERS:
            self._seen.popitem(last=False)
        return entry

    def _evict(self, peers: list[Hashable], newcomer: Hashable) -> None:
        """Evict an attempt of one of `peers` for the newcomer, or refuse the newcomer."""
        counts = self._waiting_by_peer()
        most = max(counts[each] for each in peers)
        if most > counts[newcomer] + 1:
            evicted = [entry for entry in self._waiting if counts[entry.peer] == most][-1]
        elif not self._is_new(newcomer):
            raise TooManyAttemptsError(_TOO_MANY)
        else:
            after_wrong = [entry for entry in self._waiting if entry.peer in self._failures]
            evicted = after_wrong[-1] if after_wrong else self._waiting[len(self._waiting) // 2]
        self._waiting.remove(evicted)
        evicted.wake.set()

    def _waiting_by_peer(self) -> Counter[Hashable]:
        return Counter(entry.peer for entry in self._waiting)

    def _is_new(self, peer: Hashable) -> bool:
        return peer not in self._seen and peer not in self._failures

    def _forget_old(self) -> None:
        forgotten = trio.current_time() - FORGOTTEN_AFTER_SECONDS
        while self._failures and next(iter(self._failures.values())).last <= forgotten:
            self._failures.popitem(last=False)
        while self._seen and next(iter(self._seen.values())) <= forgotten:
            self._seen.popitem(last=False)
        if self._all.last <= forgotten:
            self._all = _Failures()

    async def _turn(self, entry: _Waiting) -> None:
        try:
            while self._is_busy or self._next() is not entry:
                if entry not in self._waiting:  # evicted
                    raise TooManyAttemptsError(_TOO_MANY)
                ready_at = self._ready_at(entry.peer)
                entry.wake = trio.Event()
                # Once the pauses are over, only another attempt can make it this one's turn.
                with trio.move_on_at(ready_at if ready_at > trio.current_time() else inf):
                    await entry.wake.wait()
            self._is_busy, self._last_peer = True, entry.peer
            self._is_newest_next = not self._is_newest_next
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
            if not self._is_busy and (following := self._next()):
                following.wake.set()

    def _next(self) -> _Waiting | None:
        self._forget_old()
        now = trio.current_time()
        in_turn = reversed(self._waiting) if self._is_newest_next else self._waiting
        ready = [entry for entry in in_turn if self._ready_at(entry.peer) <= now]
        return min(ready, key=self._rank, default=None)

    def _rank(self, entry: _Waiting) -> tuple[int, bool, bool]:
        wrong = self._failures.get(entry.peer, _NEVER_WRONG).count
        return wrong, not entry.is_first, entry.peer == self._last_peer

    def _was_wrong(self, peer: Hashable) -> None:
        self._wrong += 1
        self._forget_old()
        self._all.add()
        self._failures.setdefault(peer, _Failures()).add()
        self._failures.move_to_end(peer)
        if len(self._failures) > MAX_PEERS:
            self._failures.popitem(last=False)

    def _ready_at(self, peer: Hashable) -> float:
        own = self._failures.get(peer, _NEVER_WRONG)
        return max(self._all.last + pause_seconds(self._all.count), own.last + delay_seconds(own.count))
