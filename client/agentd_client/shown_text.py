"""Which characters may be shown in a terminal: one rule for labels and for the output of the commands.

Control and format characters can control terminals, reorder text or hide in it. Two format characters are
part of ordinary writing: ZERO WIDTH JOINER in emoji and Indic scripts, ZERO WIDTH NON-JOINER in Persian and
other scripts. They are accepted between characters that can join; in scripts without joining, such as Latin,
they would make a word look like a different one (The Unicode Standard, 23.2; RFC 5892, appendix A, which
does not cover emoji).
"""

from __future__ import annotations

import unicodedata

UNSHOWN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""General categories: control, format, surrogate, private use, line and paragraph separator."""

_JOINERS = {"\N{ZERO WIDTH NON-JOINER}", "\N{ZERO WIDTH JOINER}"}
_JOINED = {"Lo", "Mn", "Mc", "So", "Sk"}
"""Letters without case, the marks on them, pictographs, and skin tones."""


def unshown_character(text: str) -> int | None:
    """The index of the first character that must not be shown; None if all may be."""
    if text.isprintable():
        return None
    return next((place for place in range(len(text)) if not _may_be_shown(text, place)), None)


def name_of(character: str) -> str:
    """A character's code point, and its name if it has one: "U+202E RIGHT-TO-LEFT OVERRIDE"."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X} {name}".rstrip()


def printable(text: str) -> str:
    """The text, with escapes for characters that must not be shown."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (character in _JOINERS and _may_be_shown(text, place))
        else character.encode("unicode_escape").decode("ascii")
        for place, character in enumerate(text)
    )


def _may_be_shown(text: str, place: int) -> bool:
    character = text[place]
    if unicodedata.category(character) not in UNSHOWN_CATEGORIES:
        return True
    return (
        character in _JOINERS
        and _can_join(text[place - 1 : place])
        and _can_join(text[place + 1 : place + 2])
    )


def _can_join(character: str) -> bool:
    return bool(character) and not character.isascii() and unicodedata.category(character) in _JOINED
