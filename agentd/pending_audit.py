"""What happened to the passphrase, until there is an unlocked store to audit it in."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from agentd_client.protocol.results import PASSPHRASE_CHANGED, PASSPHRASE_REFUSED, PeerIdentity

from .keys import PassphraseThrottle


class AuditNote(NamedTuple):
    """An audit entry, as `SessionManager.write_audit_entry` takes it."""

    kind: str
    by: PeerIdentity | None = None
    reason: str | None = None
    times: int = 1


class PendingAudit:
    """Counts changes by who made them, and wrong passphrases together.

    One entry for all wrong ones: with an entry for each, guessing would push the history out of the log.
    """

    def __init__(self, throttle: PassphraseThrottle) -> None:
        self._throttle = throttle
        self._changes = Counter[PeerIdentity]()
        self._audited = 0

    def add_change(self, by: PeerIdentity) -> None:
        """Note a change of the passphrase of a locked agent."""
        self._changes[by] += 1

    def take(self) -> list[AuditNote]:
        """Remove and return what is to be written now."""
        entries = [AuditNote(PASSPHRASE_CHANGED, by, times=times) for by, times in self._changes.items()]
        self._changes.clear()
        wrong = self._throttle.wrong_attempts - self._audited
        if wrong:
            self._audited += wrong
            entries.append(AuditNote(PASSPHRASE_REFUSED, times=wrong))
        return entries
