"""What a session is asked for and granted, and the one rule of decisions: they only narrow. Pure."""

from __future__ import annotations

from typing import NamedTuple

from agentd_client.errors import InvalidReasonError
from agentd_client.protocol.limits import MAX_REASON_CHARACTERS
from agentd_client.shown_text import name_of, unshown_character


class Terms(NamedTuple):
    """What a session permits; None is no restriction.

    seconds: how long it lasts, None for never. uses: how often it verifies. is_bound: it ends with its
    process.
    """

    audience: list[str] | None
    scopes: list[str] | None
    seconds: int | None
    uses: int | None
    is_bound: bool

    def excess(self, limit: Terms) -> str | None:
        """What these terms have beyond others, in words; None if they lie within them."""
        for name, asked, allowed in (
            ("scopes", self.scopes, limit.scopes),
            ("audience", self.audience, limit.audience),
        ):
            if allowed is not None and (asked is None or not set(asked) <= set(allowed)):
                return name
        for name, amount, most in (("expiry", self.seconds, limit.seconds), ("uses", self.uses, limit.uses)):
            if most is not None and (amount is None or amount > most):
                return name
        return "lifetime, as it is not bound to its process" if limit.is_bound and not self.is_bound else None

    def narrowed(self, limit: Terms) -> Terms | None:
        """What these terms and others have in common; None if that permits nothing."""
        scopes, audience = _common(self.scopes, limit.scopes), _common(self.audience, limit.audience)
        if (scopes == [] and self.scopes) or (audience == [] and self.audience):
            return None
        return Terms(
            audience,
            scopes,
            _least(self.seconds, limit.seconds),
            _least(self.uses, limit.uses),
            self.is_bound or limit.is_bound,
        )


def checked_reason(reason: object) -> str:
    """The reason, or `InvalidReasonError`: what may not be in a label may not be in a reason either."""
    if reason is None:
        return ""
    if not isinstance(reason, str):
        raise InvalidReasonError(f"a reason is text, not {type(reason).__name__}")
    if len(reason) > MAX_REASON_CHARACTERS:
        raise InvalidReasonError(
            f"a reason has at most {MAX_REASON_CHARACTERS} characters, not {len(reason)}"
        )
    place = unshown_character(reason)
    if place is not None:
        raise InvalidReasonError(
            f"a reason cannot contain {name_of(reason[place])} (character {place + 1}): it is one line of "
            "printable text"
        )
    return reason


def _common(names: list[str] | None, others: list[str] | None) -> list[str] | None:
    if names is None or others is None:
        return others if names is None else names
    return [name for name in names if name in others]


def _least(amount: int | None, other: int | None) -> int | None:
    return min((each for each in (amount, other) if each is not None), default=None)
