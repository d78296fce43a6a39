"""Attempts at a passphrase: one at a time, slower after each wrong one, and fair between processes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from math import inf

import trio

from agentd_client.errors import PassphraseError, TooManyAttemptsError

MAX_WAITING = 64
"""Attempts that wait, of all peers together."""

MAX_WAITING_AFTER_WRONG = 32
"""Of those, attempts of peers that were wrong before: the other places are kept for peers that were not."""

MAX_WAITING_OF_A_PEER = 8

MAX_PEERS = 256
"""Peers whose wrong attempts are remembered; beyond that the one that was wrong longest ago is forgotten."""

MAX_NEWCOMERS = 512
"""Peers that are remembered for having had a place, and take nobody's place for the next attempt."""

MAX_DELAY_SECONDS = 30.0

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 5.0
"""The pause that wrong attempts impose on all peers. Whoever may start processes is a new peer with each, so
this is what bounds how fast can be guessed: once in five seconds and a half, with half a second of work. It
bounds how long others wait for their turn as well, so it is no longer."""

FORGOTTEN_AFTER_SECONDS = 600.0
"""What was wrong so long ago counts for nothing any more."""


def delay_seconds(wrong: int) -> float:
    """How long a peer waits after its last wrong attempt: 0, 1, 2, 4 … 30 s after 0, 1, 2, 3 … of them."""
    return min(MAX_DELAY_SECONDS, 2.0 ** min(wrong - 1, 10)) if wrong else 0.0


def pause_seconds(wrong: int) -> float:
    """How long everybody waits after the last wrong attempt: 0, 0.5, 1, 2, 4, 5 s after 0, 1, 2 … of them."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(wrong - 1, 10)) if wrong else 0.0


class _Wrong:
    """Wrong attempts since the last right one, of one peer or of all."""

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = -inf

    def add(self) -> None:
        self.count, self.last = self.count + 1, trio.current_time()


class _Waiting:
    """An attempt that waits; `look` is set when it is its turn, or its place was taken."""

    def __init__(self, peer: Hashable, number: int, is_first: bool) -> None:
        self.peer = peer
        self.number = number
        self.is_first = is_first
        self.is_pushed_out = False
        self.look = trio.Event()


class PassphraseThrottle:
    """The turns of those who try a passphrase, on trio's clock.

    After a wrong attempt nobody has a turn before a pause is over that grows with all wrong attempts, and
    that peer none before a longer one of its own. Then the turn is a peer's that was wrong least often, and
    among those one's that never had a place before, and one's that did not have the last turn. Among what is
    left the newest attempt and the oldest one have every other turn: so nobody waits behind a crowd that came
    before, and nobody waits for ever because others keep coming.

    Half of the places are kept for peers that were never wrong. A peer that never had a place gets one in a
    full queue too, if need be that of the attempt in the middle, whose turn is farthest away. It does so
    once: those that lost their places and come again at once would push it out in turn.

    A peer is the identity of a process. Who may start processes may be as many peers as it likes; that gives
    it no more attempts in a given time, but its first attempts take turns from others'.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []  # the oldest first
        self._counts = Counter[Hashable]()  # of those that wait, by peer
        self._peers: OrderedDict[Hashable, _Wrong] = OrderedDict()  # that were wrong, the longest ago first
        self._all = _Wrong()
        self._had_place: OrderedDict[Hashable, float] = OrderedDict()  # and since when, the oldest first
        self._number = 0
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
            peer: who tries.
            work: says that the passphrase is wrong by raising PassphraseError, and that it is right by True;
                False is that it was not looked at. That counts for nothing, as other errors do, which are
                raised as they are.
            waiting: cancelled by whoever knows that nobody waits for the answer any more. It ends the wait
                for the turn and no work that has begun.

        Raises:
            TooManyAttemptsError: without running `work`, where too many wait.
        """
        entry = self._enter(peer)
        with waiting or trio.CancelScope() as scope:
            await self._turn(entry)
        if scope.cancelled_caught:
            raise TooManyAttemptsError("nobody waits for this attempt any more; it was not looked at")
        try:
            is_right = await work()
        except PassphraseError:
            self._was_wrong(peer)
            raise
        else:
            if is_right:
                self._peers.pop(peer, None)
                self._had_place.pop(peer, None)
                self._all = _Wrong()
            return is_right
        finally:
            self._is_busy = False
            for entry in self._waiting:  # each has other pauses to wait for now
                entry.look.set()

    @property
    def waiting(self) -> int:
        """How many attempts wait for their turn."""
        return len(self._waiting)

    @property
    def wrong_attempts(self) -> int:
        """How many wrong attempts there were."""
        return self._wrong

    def _enter(self, peer: Hashable) -> _Waiting:
        self._forget_old()
        counts = self._counts
        if counts[peer] >= MAX_WAITING_OF_A_PEER:
            raise self._refusal()
        after_wrong = [each for each in counts if each in self._peers] if peer in self._peers else []
        if sum(counts[each] for each in after_wrong) >= MAX_WAITING_AFTER_WRONG:
            self._push_out(after_wrong, peer)
        elif len(self._waiting) >= MAX_WAITING:
            self._push_out(list(counts), peer)
        self._number += 1
        entry = _Waiting(peer, self._number, self._is_new(peer))
        self._waiting.append(entry)
        counts[peer] += 1
        self._had_place[peer] = trio.current_time()
        self._had_place.move_to_end(peer)
        if len(self._had_place) > MAX_NEWCOMERS:
            self._had_place.popitem(last=False)
        return entry

    def _push_out(self, peers: list[Hashable], newcomer: Hashable) -> None:
        """Take somebody's place for the newcomer, or refuse it."""
        counts = self._counts
        most = max(counts[each] for each in peers)
        if most > counts[newcomer] + 1:
            pushed_out = [entry for entry in self._waiting if counts[entry.peer] == most][-1]
        elif not self._is_new(newcomer):
            raise self._refusal()
        else:
            after_wrong = [entry for entry in self._waiting if entry.peer in self._peers]
            pushed_out = after_wrong[-1] if after_wrong else self._waiting[len(self._waiting) // 2]
        pushed_out.is_pushed_out = True
        self._leave(pushed_out)
        pushed_out.look.set()

    def _leave(self, entry: _Waiting) -> None:
        self._waiting.remove(entry)
        self._counts[entry.peer] -= 1
        if not self._counts[entry.peer]:
            del self._counts[entry.peer]

    def _is_new(self, peer: Hashable) -> bool:
        return peer not in self._had_place and peer not in self._peers

    def _forget_old(self) -> None:
        forgotten = trio.current_time() - FORGOTTEN_AFTER_SECONDS
        while self._peers and next(iter(self._peers.values())).last <= forgotten:
            self._peers.popitem(last=False)
        while self._had_place and next(iter(self._had_place.values())) <= forgotten:
            self._had_place.popitem(last=False)
        if self._all.last <= forgotten:
            self._all = _Wrong()

    async def _turn(self, entry: _Waiting) -> None:
        try:
            while self._is_busy or self._next() is not entry:
                if entry.is_pushed_out:
                    raise self._refusal()
                ready_at = self._ready_at(entry.peer)
                entry.look = trio.Event()
                # Once the pauses are over, only what another does can make it this one's turn.
                with trio.move_on_at(ready_at if ready_at > trio.current_time() else inf):
                    await entry.look.wait()
            self._is_busy, self._last_peer = True, entry.peer
            self._is_newest_next = not self._is_newest_next
        finally:
            if entry in self._waiting:
                self._leave(entry)
            self._tell()

    def _next(self) -> _Waiting | None:
        self._forget_old()
        now = trio.current_time()
        ready = [entry for entry in self._waiting if self._ready_at(entry.peer) <= now]
        return min(ready, key=self._rank, default=None)

    def _rank(self, entry: _Waiting) -> tuple[int, bool, bool, int]:
        age = -entry.number if self._is_newest_next else entry.number
        return self._wrong_of(entry.peer), not entry.is_first, entry.peer == self._last_peer, age

    def _was_wrong(self, peer: Hashable) -> None:
        self._wrong += 1
        self._forget_old()
        self._all.add()
        self._peers.setdefault(peer, _Wrong()).add()
        self._peers.move_to_end(peer)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)

    def _wrong_of(self, peer: Hashable) -> int:
        known = self._peers.get(peer)
        return 0 if known is None else known.count

    def _ready_at(self, peer: Hashable) -> float:
        after_all = self._all.last + pause_seconds(self._all.count)
        known = self._peers.get(peer)
        return after_all if known is None else max(after_all, known.last + delay_seconds(known.count))

    def _tell(self) -> None:
        """Wake whose turn it is by now, if it is anybody's."""
        following = None if self._is_busy else self._next()
        if following is not None:
            following.look.set()

    @staticmethod
    def _refusal() -> TooManyAttemptsError:
        return TooManyAttemptsError("too many passphrases wait to be looked at; try again later")
