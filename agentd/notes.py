"""What happens to the agent as a whole, for the audit log: written, or kept until there is a store."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import trio

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import PASSPHRASE_CHANGED, PASSPHRASE_REFUSED, PeerIdentity

from .sessions import SessionManager

NOTING_SECONDS = 1.0
"""For what is written together, before the keys go: whoever locks wants them gone, and soon."""


class Note(NamedTuple):
    """One entry of the audit log."""

    kind: str
    by: PeerIdentity | None = None
    reason: str | None = None
    times: int = 1


class Notes:
    """Keeps what has to wait, and writes.

    Args:
        refused: how many passphrases were refused so far. Each time that `waiting` is asked for, the new ones
            are one note: were every one of them an entry, guessing would push the history out.
        logger: told of what could not be written.
    """

    def __init__(self, refused: Callable[[], int], logger: logging.Logger) -> None:
        self._refused = refused
        self._log = logger
        self._noted_refused = 0
        self._changed = Counter[PeerIdentity]()

    def keep_change(self, by: PeerIdentity) -> None:
        """The passphrase was changed while there was no store to note it in."""
        self._changed[by] += 1

    def waiting(self) -> list[Note]:
        """What was kept; it is the caller's to write now."""
        notes = [Note(PASSPHRASE_CHANGED, by, times=times) for by, times in self._changed.items()]
        self._changed.clear()
        new = self._refused() - self._noted_refused
        if new:
            self._noted_refused += new
            notes.append(Note(PASSPHRASE_REFUSED, times=new))
        return notes

    async def write(self, manager: SessionManager, *notes: Note) -> None:
        """Write them in this order, all of them within `NOTING_SECONDS`; what fails is logged."""
        kinds = ", ".join(note.kind for note in notes)
        with trio.move_on_after(NOTING_SECONDS) as noting:
            try:
                for kind, by, reason, times in notes:
                    await manager.note(kind, by=by, reason=reason, times=times)
            except AgentdError as error:
                self._log.error("not in the audit log: %s (%s)", kinds, error.sentence)
        if noting.cancelled_caught:
            self._log.error("not in the audit log: %s (the store takes too long)", kinds)
