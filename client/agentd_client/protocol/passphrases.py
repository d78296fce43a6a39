"""What a passphrase is, however it is given: the one set of rules for client and agent.

It is one line of UTF-8 without its line ending and byte order mark, so that an editor's file, the output of
`echo` and typed input mean the same. The first version took all bytes of a file except one newline. So the
bytes as given are tried too (`meanings`), and the rules about the content apply only to a new passphrase.
No function here copies a whole passphrase: what is in a buffer that can be wiped stays there.
"""

from __future__ import annotations

import codecs

from ..errors import PassphraseError
from .limits import MAX_PASSPHRASE_BYTES

EMPTY = f"an empty passphrase protects nothing; give one of 1 to {MAX_PASSPHRASE_BYTES} bytes"
TOO_LONG = f"a passphrase has at most {MAX_PASSPHRASE_BYTES} bytes"
HAS_NUL = "a passphrase holds no NUL byte"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""U+FEFF in UTF-8; some editors begin a file with it."""

LINE_ENDING = b"\r\n"
"""At most this; a line feed alone is one too."""

_OTHER = "choose one that can be typed"


def bounds(given: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Where the passphrase begins and ends in the given bytes."""
    start, stop = 0, len(given)
    while stop and given[stop - 1] in LINE_ENDING:
        stop -= 1
    if stop >= len(BYTE_ORDER_MARK) and all(given[at] == byte for at, byte in enumerate(BYTE_ORDER_MARK)):
        start = len(BYTE_ORDER_MARK)
    return start, stop


def meanings(given: memoryview) -> list[memoryview]:
    """The passphrases that the bytes may stand for, by today's rules first; none of them empty."""
    start, stop = bounds(given)
    today = given[start:stop]
    both = [today] if len(today) == len(given) else [today, given]
    return [meaning for meaning in both if len(meaning)]


def problem(given: bytes | bytearray | memoryview) -> str | None:
    """Why this cannot be set as a passphrase, and what to do; None if it can. Never quotes it."""
    start, stop = bounds(given)
    if start == stop:
        return EMPTY
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
        return (
            "a new passphrase is UTF-8, and this is not (perhaps Latin-1): a terminal would send other bytes"
        )
    return None if is_visible else f"a new passphrase is not white space alone; {_OTHER}"


def _is_format(character: str) -> bool:
    from unicodedata import category  # only needed to set a passphrase

    return category(character) == "Cf"


def sendable_passphrase(passphrase: object) -> bytes | bytearray:
    """The bytes of a passphrase, those of UTF-8 for text; raises `PassphraseError`, which does not quote it.

    A bytearray is passed on as it is, so that its owner can wipe it afterwards.
    """
    given = _utf8(passphrase) if isinstance(passphrase, str) else passphrase
    if not isinstance(given, bytes | bytearray):
        raise PassphraseError("a passphrase is text or bytes; text has to be Unicode")
    if not given:
        raise PassphraseError(EMPTY)
    if len(given) > MAX_PASSPHRASE_BYTES:
        raise PassphraseError(TOO_LONG)
    if 0 in given:
        raise PassphraseError(HAS_NUL)
    return given


def settable_passphrase(passphrase: object) -> bytes | bytearray:
    """As `sendable_passphrase`, for a new passphrase: also refuses what can only be a mistake."""
    given = sendable_passphrase(passphrase)
    reason = problem(given)
    if reason is not None:
        raise PassphraseError(reason)
    return given


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # it holds the text: no error of ours is chained to it
        return None
