"""Who may open sessions, and what can be granted at all: the settings `opening` and `grantable_scopes`."""

from __future__ import annotations

from typing import NamedTuple

from agentd_client.errors import ApprovalRequiredError, NoPassphraseError, NotGrantableError, PassphraseError
from agentd_client.protocol.results import FREE, PASSPHRASE

_HOW = "run `agentctl request`, or call requestToken, and a person decides"


class Policy(NamedTuple):
    """The policy of the agent.

    opening: one of `OPENINGS`. grantable: the scopes that requests may name; None for any, and for none
    named.
    """

    opening: str = FREE
    grantable: frozenset[str] | None = None

    def require_free(self) -> None:
        """Raise ApprovalRequiredError if sessions without a parent are opened only by approval."""
        if self.opening != FREE:
            raise ApprovalRequiredError(
                f"this agent opens sessions only with a person's approval (opening = {self.opening!r}): "
                f"{_HOW}; or name a parent"
            )

    def require_grantable(self, scopes: list[str] | None) -> None:
        """Raise NotGrantableError for what no person can grant."""
        if self.grantable is None:
            return
        if not scopes:
            raise NotGrantableError(
                f"this agent grants named scopes only (grantable_scopes): {self._all}; nobody was asked"
            )
        if excess := [name for name in scopes if name not in self.grantable]:
            raise NotGrantableError(
                f"nobody can grant {', '.join(excess)} here (grantable_scopes: {self._all}); nobody was asked"
            )

    def require_presence(self, *, is_proven: bool, has_passphrase: bool) -> None:
        """Raise PassphraseError if whoever approves has to prove that they know it, and has not."""
        if self.opening != PASSPHRASE or is_proven:
            return
        if not has_passphrase:
            raise NoPassphraseError(
                f"the settings say opening = {PASSPHRASE!r}, but the key file had no passphrase when the "
                "agent started, so nobody can approve; set one with `agentctl passwd`, and restart the agent"
            )
        raise PassphraseError("this agent takes an approval only with its passphrase; give it")

    @property
    def _all(self) -> str:
        return ", ".join(sorted(self.grantable or ()))


FREE_FOR_ALL = Policy()
"""The policy of an agent whose settings say nothing."""
