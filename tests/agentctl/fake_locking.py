"""The part of the scripted agent that can be locked."""

from __future__ import annotations

from typing import Any

from agentd_client.errors import AgentLockedError, NoPassphraseError, PassphraseError
from agentd_client.protocol.results import LockState, Protection, Status

WHILE_LOCKED = {"hello", "getStatus", "subscribe", "lock", "unlock", "changePassphrase"}


class FakeLocking:
    """What a test sets: `passphrase` (None for a plain key file), `locked`, `locked_at`, `lock_reason`."""

    passphrase: bytes | None = None
    locked = False
    locked_at: float | None = None
    lock_reason: str | None = None
    wrong_passphrases = 0

    def refuse_while_locked(self, method: str) -> None:
        if self.locked and method not in WHILE_LOCKED:
            raise AgentLockedError

    def seen_through_the_lock(self, status: Status) -> Status:
        hidden = dict.fromkeys(("agent_id", "sessions", "key_id", "store_bytes")) if self.locked else {}
        return status._replace(
            locked=self.locked,
            locked_at=self.locked_at,
            lock_reason=self.lock_reason,
            protected=self.passphrase is not None,
            wrong_passphrases=self.wrong_passphrases,
            **hidden,
        )

    def _lock(self, params: dict[str, Any]) -> LockState:
        if self.passphrase is None:
            raise NoPassphraseError
        self.locked, self.lock_reason = True, "asked"
        return LockState(True)

    def _unlock(self, params: dict[str, Any]) -> LockState:
        if self.locked:
            self._check(params["passphrase"])
        self.locked, self.lock_reason = False, None
        return LockState(False)

    def _changePassphrase(self, params: dict[str, Any]) -> Protection:  # noqa: N802 - the wire's name
        self._check(params.get("old"))
        self.passphrase = params.get("new")
        return Protection(self.passphrase is not None)

    def _check(self, given: bytes | None) -> None:
        if given != self.passphrase:
            self.wrong_passphrases += 1
            raise PassphraseError("that is not the passphrase of the key file")
