"""Answers that still hold: a "yes" is kept only while the agent's events would report its end.

A background thread reads the events. Any event that may end a session empties the cache, because a session
ends with those above it. Without a connection on which events come, nothing is kept and nothing is used.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from ..errors import AgentdError
from ..protocol.results import (
    APPROVED,
    CREATED,
    DENIED,
    FORGOTTEN,
    REFUSED,
    REQUEST_EXPIRED,
    REQUESTED,
    WITHDRAWN,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..transport.events import Events
    from .bearer import Admission

LONGEST_SECONDS = 30.0
"""After so long the agent is asked again in any case, so that it sees that the session is in use."""

MOST_ENTRIES = 1024
PAUSES_SECONDS = (0.1, 0.5, 2.0, 10.0)
"""Before the agent is asked for events again, after the first, second and later failures."""

_HARMLESS = {CREATED, REFUSED, REQUESTED, APPROVED, DENIED, REQUEST_EXPIRED, WITHDRAWN, FORGOTTEN}
"""Kinds that end no session. Anybody who may ask for one can cause some of them."""


class Cache:
    """Admissions by what was asked. Thread-safe, and for one process: the thread does not survive a fork.

    `epoch` changes whenever anything may have ended. An answer is kept only if the epoch is still that of
    before the agent was asked: otherwise the end of the session could have been reported, and forgotten,
    while the answer was on its way.
    """

    def __init__(self, subscribe: Callable[[], Events]) -> None:
        self._subscribe = subscribe
        self._guard = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Admission]] = OrderedDict()
        self._epoch = 0
        self._is_live = False
        self._closed = threading.Event()
        self._events: Events | None = None
        self._secret = os.urandom(32)

    def start(self) -> None:
        """Read events from now on; a RuntimeError if there can be no further thread."""
        threading.Thread(target=self._follow, name="agentd-guard-events", daemon=True).start()

    def key(self, token: str, audience: str | None, scopes: Sequence[str]) -> bytes:
        """What stands for a question; no token is kept."""
        # Unambiguous whatever characters the parts have: some servers pass on what cannot be a token.
        asked = repr((token, audience, tuple(scopes))).encode()
        return blake2b(asked, key=self._secret, digest_size=32).digest()

    def get(self, key: bytes) -> Admission | None:
        """The answer, if it still holds."""
        until, admission = self._kept.get(key, (0.0, None))
        if admission is None or _boottime() >= until or _is_over(admission):
            return None
        return admission

    @property
    def epoch(self) -> int:
        """To be read before the agent is asked, and passed to `keep`."""
        return self._epoch

    def keep(self, key: bytes, admission: Admission, epoch: int) -> None:
        """Keep an answer that the agent gave after `epoch` was read."""
        session = admission.session
        if session is None or session.uses_left is not None:
            return  # each use of it counts, or it is unknown when it ends
        with self._guard:
            if not self._is_live or epoch != self._epoch:
                return
            self._kept[key] = (_boottime() + _seconds_left(admission), admission)
            self._kept.move_to_end(key)
            if len(self._kept) > MOST_ENTRIES:
                self._kept.popitem(last=False)

    def close(self) -> None:
        """End the thread; nothing is kept from now on."""
        self._closed.set()
        self._forget(is_live=False)
        if self._events is not None:
            self._events.close()

    def _follow(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                with suppress(AgentdError), self._subscribe() as events:
                    failures = 0
                    self._read(events)
            finally:
                self._forget(is_live=False)
            self._closed.wait(PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)])
            failures += 1

    def _read(self, events: Events) -> None:
        self._events = events
        self._forget(is_live=True)
        if self._closed.is_set():  # `close` did not see these events
            return
        for event in events:
            if event.missed or event.kind not in _HARMLESS:
                self._forget(is_live=True)

    def _forget(self, *, is_live: bool) -> None:
        with self._guard:
            self._is_live = is_live and not self._closed.is_set()
            self._epoch += 1
            self._kept.clear()


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # counts time in suspend, clock_gettime(2)


def _seconds_left(admission: Admission) -> float:
    # By the clock of the boot as well: the agent ends a session in time even if the other clock is set back.
    if admission.expires_at is None:
        return LONGEST_SECONDS
    return min(LONGEST_SECONDS, admission.expires_at - time.time())


def _is_over(admission: Admission) -> bool:
    return admission.expires_at is not None and time.time() >= admission.expires_at
