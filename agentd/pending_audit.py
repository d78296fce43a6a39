"""Audit entries about the agent as a whole, written to the store or kept until there is one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import trio

from agentd_client.errors import AgentdError
from agentd_client.protocol.results import PASSPHRASE_CHANGED, PASSPHRASE_REFUSED, PeerIdentity

from .sessions import SessionManager

WRITE_SECONDS = 1.0
"""For one batch of entries: a lock writes them before it wipes the keys, and must not wait long."""


class AuditEntry(NamedTuple):
    """One entry, as `SessionManager.write_audit_entry` takes it."""

    kind: str
    by: PeerIdentity | None = None
    reason: str | None = None
    times: int = 1


class PendingAudit:
    """The entries that wait for an unlocked store.

    Args:
        wrong_passphrases: how many there were since the agent started. `take` reports the new ones in one
            entry: with an entry for each, guessing would push the history out of the log.
        logger: for entries that could not be written.
    """

    def __init__(self, wrong_passphrases: Callable[[], int], logger: logging.Logger) -> None:
        self._wrong_passphrases = wrong_passphrases
        self._log = logger
        self._reported_wrong = 0
        self._changes = Counter[PeerIdentity]()

    def add_change(self, by: PeerIdentity) -> None:
        """Keep that the passphrase was changed while the agent was locked."""
        self._changes[by] += 1

    def take(self) -> list[AuditEntry]:
        """Remove and return what has been kept; the caller writes it."""
        entries = [AuditEntry(PASSPHRASE_CHANGED, by, times=times) for by, times in self._changes.items()]
        self._changes.clear()
        new = self._wrong_passphrases() - self._reported_wrong
        if new:
            self._reported_wrong += new
            entries.append(AuditEntry(PASSPHRASE_REFUSED, times=new))
        return entries

    async def write(self, manager: SessionManager, *entries: AuditEntry) -> None:
        """Write the entries in this order, within `WRITE_SECONDS`; a failure is logged."""
        kinds = ", ".join(entry.kind for entry in entries)
        with trio.move_on_after(WRITE_SECONDS) as writing:
            try:
                for kind, by, reason, times in entries:
                    await manager.write_audit_entry(kind, by=by, reason=reason, times=times)
            except AgentdError as error:
                self._log.error("not in the audit log: %s (%s)", kinds, error.sentence)
        if writing.cancelled_caught:
            self._log.error("not in the audit log: %s (the store takes too long)", kinds)
