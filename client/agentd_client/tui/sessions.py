"""The sessions that are known, as pages and events tell of them in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..protocol.results import EXPIRED, SessionInfo

MAX_ENDED = 4096
"""How many ended sessions are remembered, so that an answer from before does not bring one back."""


class Sessions:
    """The known sessions by id.

    Reading all of them from the agent is a pass: `begin_pass`, its pages, `end_pass`. Events come meanwhile.
    `revision` changes with every change.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.is_complete = False
        self._known: dict[str, SessionInfo] = {}
        self._children: dict[str, set[str]] = {}
        self._ended: dict[str, None] = {}
        self._unseen: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, session_id: str) -> SessionInfo | None:
        """The session, if it is known."""
        return self._known.get(session_id)

    def newest_first(self) -> list[SessionInfo]:
        """All of them."""
        return sorted(
            self._known.values(), key=lambda session: (session.created_at, session.id), reverse=True
        )

    def below(self, session_id: str) -> int:
        """How many known sessions end with this one."""
        return sum(1 for _ in self._descendants(session_id))

    def begin_pass(self) -> None:
        """From here on, whatever the agent no longer lists is gone."""
        self._unseen = set(self._known)

    def add_page(self, sessions: Iterable[SessionInfo]) -> None:
        """Take a page of a pass."""
        for session in sessions:
            self.put(session)

    def end_pass(self) -> None:
        """Drop what the pass did not list. Nothing can be dropped after a pass that was given up."""
        for session_id in self._unseen:
            self._drop(session_id)
        self._unseen = set()
        if not self.is_complete:
            self.is_complete = True
            self.revision += 1

    def put(self, session: SessionInfo) -> None:
        """Add or replace a session, unless it is known to have ended."""
        self._unseen.discard(session.id)
        if session.id in self._ended or self._known.get(session.id) == session:
            return
        self._known[session.id] = session
        if session.parent is not None:
            self._children.setdefault(session.parent, set()).add(session.id)
        self.revision += 1

    def end(self, session_id: str) -> None:
        """Drop a session and those below it."""
        for ended in [session_id, *self._descendants(session_id)]:
            self._drop(ended)
            self._ended[ended] = None
        for oldest in list(islice(self._ended, max(0, len(self._ended) - MAX_ENDED))):
            del self._ended[oldest]

    def expire(self, session_id: str) -> None:
        """Mark a session as expired."""
        session = self._known.get(session_id)
        if session is not None:
            self.put(session._replace(state=EXPIRED))

    def clear(self) -> None:
        """Forget everything: the agent may be another one."""
        self._known.clear()
        self._children.clear()
        self._ended.clear()
        self._unseen.clear()
        self.is_complete = False
        self.revision += 1

    def _drop(self, session_id: str) -> None:
        session = self._known.pop(session_id, None)
        if session is None:
            return
        self.revision += 1
        siblings = None if session.parent is None else self._children.get(session.parent)
        if siblings is not None:
            siblings.discard(session_id)
            if not siblings:
                del self._children[str(session.parent)]

    def _descendants(self, session_id: str) -> Iterator[str]:
        # Each once: no honest agent sends sessions that are each other's parent, but one may be sent.
        seen, waiting = {session_id}, [session_id]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
                    yield child
