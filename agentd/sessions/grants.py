"""What a session is good for: its label, audience, scopes and uses. Pure.

None is no restriction. A child's grant lies inside its parent's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentd_client.errors import (
    AgentdError,
    InvalidAudienceError,
    InvalidLabelError,
    InvalidScopesError,
    InvalidUsesError,
    NotWithinParentError,
)
from agentd_client.protocol import reasons
from agentd_client.protocol.limits import (
    MAX_AUDIENCE_CHARACTERS,
    MAX_AUDIENCES,
    MAX_LABEL_CHARACTERS,
    MAX_SCOPE_CHARACTERS,
    MAX_SCOPES,
    MAX_USES,
)
from agentd_client.shown_text import name_of, unshown_character

if TYPE_CHECKING:
    from .records import SessionRecord

# RFC 6749, 3.3: NQCHAR, the characters of a scope token. Audiences take the same: both end up in terminals.
_NAME_CHARACTERS = frozenset(map(chr, (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))))


class Grant(NamedTuple):
    """What somebody asks a new session to be good for, checked."""

    audience: list[str] | None
    scopes: list[str] | None
    uses: int | None


def checked_label(label: object) -> str:
    """The label, or `InvalidLabelError`: labels end up in terminals, so control characters stay out.

    Refused with them: Unicode's format characters (they reorder or hide what is shown), surrogates, and
    line and paragraph separators. Joiners are taken where they belong: `shown_text`.
    """
    if label is None:
        return ""
    if not isinstance(label, str):
        raise InvalidLabelError(f"a label is text, not {type(label).__name__}")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise InvalidLabelError(f"a label has at most {MAX_LABEL_CHARACTERS} characters, not {len(label)}")
    place = unshown_character(label)
    if place is not None:
        raise InvalidLabelError(
            f"a label holds no {name_of(label[place])} (character {place + 1}): control and format "
            "characters are refused, and joiners outside of emoji and of scripts that use them"
        )
    return label


def checked_grant(audience: object, scopes: object, uses: object) -> Grant:
    """What was asked for, or InvalidAudienceError, InvalidScopesError, InvalidUsesError."""
    if uses is not None and (
        isinstance(uses, bool) or not isinstance(uses, int) or not 1 <= uses <= MAX_USES
    ):
        raise InvalidUsesError
    return Grant(checked_audience(audience), checked_scopes(scopes), uses)


def checked_audience(audience: object) -> list[str] | None:
    """The names of an audience, or `InvalidAudienceError`."""
    return _checked_names(audience, MAX_AUDIENCES, MAX_AUDIENCE_CHARACTERS, InvalidAudienceError)


def checked_scopes(scopes: object) -> list[str] | None:
    """The scopes, or `InvalidScopesError`."""
    return _checked_names(scopes, MAX_SCOPES, MAX_SCOPE_CHARACTERS, InvalidScopesError)


def checked_asker(audience: object) -> str | None:
    """Who asks, or `InvalidAudienceError`."""
    if audience is None:
        return None
    checked = checked_audience([audience])
    assert checked is not None
    return checked[0]


def within(grant: Grant, parent: SessionRecord) -> Grant:
    """The grant of a child: what it did not ask for it has from its parent.

    Raises:
        NotWithinParentError: it asks for more than the parent has.
    """
    if parent.uses_left is not None and (grant.uses is None or grant.uses > parent.uses_left):
        raise NotWithinParentError(
            f"the parent has {parent.uses_left} uses left, and a child takes its own from them: ask for fewer"
        )
    return Grant(
        _inside(grant.audience, parent.audience, "audience"),
        _inside(grant.scopes, parent.scopes, "scopes"),
        grant.uses,
    )


def misfit(record: SessionRecord, audience: str | None, scopes: list[str] | None) -> str | None:
    """Why a session is not good for this asker; None where it is.

    RFC 7519, 4.1.3: who does not name itself as one of the audience is refused.
    """
    if record.audience is not None and audience not in record.audience:
        return reasons.WRONG_AUDIENCE
    if scopes and record.scopes is not None and not set(scopes) <= set(record.scopes):
        return reasons.MISSING_SCOPE
    if record.uses_left is not None and record.uses_left <= 0:
        return reasons.USED_UP
    return None


def _inside(asked: list[str] | None, has: list[str] | None, what: str) -> list[str] | None:
    if asked is None or has is None:
        return has if asked is None else asked
    if beyond := [name for name in asked if name not in has]:
        raise NotWithinParentError(f"beyond the parent's {what}: {', '.join(beyond)}; nothing was stored")
    return asked


def _checked_names(names: object, most: int, longest: int, error: type[AgentdError]) -> list[str] | None:
    if names is None:
        return None
    if not isinstance(names, list | tuple) or len(names) > most:
        raise error
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= longest or not _NAME_CHARACTERS.issuperset(name):
            raise error
    if len(set(names)) != len(names):
        raise error
    return list(names)
