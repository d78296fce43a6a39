"""What a passphrase is, whichever way it comes: one rule for client and agent.

It is UTF-8 on one line. The line's end and a byte order mark are not part of it, so that a file written by an
editor on any system, what `echo` prints and what is typed mean the same. Nothing else is stripped or
normalised.

The first version took all bytes of a file but one newline for the passphrase. So what was given is also tried
as it stands (`meanings`), and the rules about the content hold only for a passphrase that is set: nobody is
locked out by what could be set before.

No copy of the whole is made: what is in a buffer that can be wiped stays there.
"""

from __future__ import annotations

import codecs

MARK = b"\xef\xbb\xbf"
"""U+FEFF in UTF-8, with which some editors begin a file."""

_LINE_ENDS = b"\r\n"

_OTHER = "choose one that can be typed"


def bounds(given: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Where the passphrase begins and ends in what was given."""
    start, stop = 0, len(given)
    while stop and given[stop - 1] in _LINE_ENDS:
        stop -= 1
    if stop >= len(MARK) and all(given[at] == byte for at, byte in enumerate(MARK)):
        start = len(MARK)
    return start, stop


def meanings(given: memoryview) -> list[memoryview]:
    """What may be meant, the passphrase as it is set today first; none of them empty."""
    start, stop = bounds(given)
    found = [given[start:stop], given]
    return [one for one in found[: 1 if len(found[0]) == len(given) else 2] if len(one)]


def problem(given: bytes | bytearray | memoryview) -> str | None:
    """Why this is not taken for a new passphrase, and what to do; None where it is. Never quotes it."""
    start, stop = bounds(given)
    if start == stop:
        return "an empty passphrase protects nothing; give one of 1 to 1024 bytes"
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_visible = False
    try:
        for at in range(start, stop):
            character = decoder.decode(bytes((given[at],)))
            if not character:
                continue
            if character == "\0":
                return f"a new passphrase holds no NUL byte; {_OTHER}"
            if character < " " or "\x7f" <= character <= "\x9f":
                return f"a new passphrase is one line without control characters; {_OTHER}"
            is_visible = is_visible or not (character.isspace() or _is_format(character))
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return "a new passphrase is UTF-8, and this is not (Latin-1?): a terminal would send other bytes"
    return None if is_visible else f"a new passphrase of white space alone cannot be meant; {_OTHER}"


def _is_format(character: str) -> bool:
    from unicodedata import category  # needed once in the life of a passphrase

    return category(character) == "Cf"
