"""A request for a session in words: who asks, for what, why, and until when.

Whatever shows a request takes its words from here, so that all show the same: the commands, the desktop's
notification, pinentry, the live view. The asker chooses some of these texts, and must not be able to make
them look like ours. So they stand behind a heading of ours and in quotes; they hold no quotes, control
characters or runs of blanks, and no more of a text than its limit; and a line that is too long goes on below
itself, never below the headings (`block`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from ..durations import format_duration
from ..protocol.limits import MAX_LABEL_CHARACTERS, MAX_REASON_CHARACTERS, MAX_SHOWN_CHARACTERS
from ..protocol.results import ASK_SOCKET, REMEMBERED, PeerIdentity, RequestInfo
from ..shown_text import printable
from .table import width_of
from .wording import clock

Row = tuple[str, str]

EVERYTHING = "EVERYTHING (no limit)"
"""For a request that names no scopes. No name of a scope contains a blank."""

ANYONE = "anyone"
"""For a request that names no audience."""

_CUT = "..."
_TAMED = dict.fromkeys(map(ord, '"“”„‟«»″〃〝〞〟❝❞ʺ\N{FULLWIDTH QUOTATION MARK}'), "'") | dict.fromkeys(
    (0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0), " "
)
"""What could pass for the end of the quotes; and letters without ink (the fillers of Hangul, and the empty
pattern of Braille), which could push words to the beginning of a line as runs of blanks do."""

_PLAIN_PATH = r"[\w.+@/:=-]+"
_MOST_MARKS = 3
"""Combining marks on one character. Some scripts need two; a hundred cover the lines around them."""

_MAX_WORD = 24
_MAX_BRIEF_SCOPES = 40
_LEAST_WIDTH = 20


def lines(request: RequestInfo, now: float) -> list[Row]:
    """All that a person needs to decide, as headings and texts."""
    return [row for group in groups(request, now) for row in group]


def groups(request: RequestInfo, now: float) -> list[list[Row]]:
    """The same in four groups: who asks, for what, why, and until when."""
    return [list(rows) for rows in (_who(request), _what(request), _why(request), _until(request, now))]


def summary(request: RequestInfo, now: float) -> str:
    """The request in one line of some 120 characters: "k7m2qd: git (4712) asks for deploy, 10 min"."""
    asker = request.asker
    whose = f"{other}: " if (other := other_user(asker)) else ""
    verb = "may have" if request.state == REMEMBERED else "asks for"
    return (
        f"{word(request.id)}: {whose}{program_name(asker)} ({asker.pid}) {verb} "
        f"{scopes_in_brief(request)}, {lasts(request)}"
    )


def block(rows: Iterable[Row], width: int) -> Iterator[str]:
    """Headings and texts as two columns; a text that is too long goes on in its column.

    A terminal would continue it below the headings, where an asker's words could pass for another row.
    """
    held = list(rows)
    margin = max(len(heading) for heading, _ in held) + 2
    for heading, text in held:
        first = True
        for part in _folded(text, max(width - margin, _LEAST_WIDTH)):
            yield (heading if first else "").ljust(margin) + part
            first = False


def program_name(asker: PeerIdentity) -> str:
    """The name of the asker's program, without its folder."""
    if asker.exe is None:
        return "unknown program"
    called = _own_name(asker.exe)
    return quoted(called, _MAX_WORD) if called else _path(asker.exe.rpartition("/")[2], _MAX_WORD)


def user(asker: PeerIdentity) -> str:
    """The asker's user, and whether it is another one."""
    name = word(_user(asker.uid))
    known = f"uid {asker.uid}" if name == str(asker.uid) else f"{name} (uid {asker.uid})"
    return known if _is_own(asker) else f"{known}, ANOTHER USER"


def other_user(asker: PeerIdentity) -> str:
    """The name of the asker's user, or the uid if it has none; nothing for one's own."""
    return "" if _is_own(asker) else word(_user(asker.uid))


def word(text: str) -> str:
    """An id or a state, as it is shown everywhere."""
    return _bounded(text, _MAX_WORD)


def scopes(request: RequestInfo) -> str:
    """The scopes that are asked for, all of them."""
    return _names(request.scopes, EVERYTHING)


def scopes_in_brief(request: RequestInfo) -> str:
    """As many of the scopes as fit into one column of a table."""
    return _bounded(scopes(request), _MAX_BRIEF_SCOPES)


def audience(request: RequestInfo) -> str:
    """Who may accept the token."""
    return _names(request.audience, ANYONE)


def lasts(request: RequestInfo) -> str:
    """How long the session would last."""
    return "WITHOUT END" if request.expiry is None else format_duration(request.expiry)


def says(request: RequestInfo) -> str:
    """The asker's reason, as the asker's words."""
    return quoted(request.reason, MAX_REASON_CHARACTERS) if request.reason else "nothing"


def quoted(text: str, most: int = MAX_SHOWN_CHARACTERS) -> str:
    """An asker's words in quotes, as one line without anything that could pass for our words."""
    tamed = "".join(_without_piles(text[:most].translate(_TAMED)))
    return f'"{_bounded(tamed, most, longer=len(text) > most)}"'


def _who(request: RequestInfo) -> Iterator[Row]:
    asker = request.asker
    yield ("request", word(request.id))
    yield ("user", user(asker))
    yield ("program", _program(request))
    yield ("process", str(asker.pid))
    if asker.unit is not None:
        yield ("unit", _path(asker.unit))
    yield ("sandbox", ", ".join(map(_bounded, request.sandbox)) or "none that the agent can see")
    if request.socket == ASK_SOCKET:
        yield ("over", "the ask socket, which others can reach")


def _program(request: RequestInfo) -> str:
    exe = request.asker.exe
    if exe is None:
        return "unknown"
    called = _own_name(exe)
    if called:
        return f"calls itself {quoted(called)}"
    # Whoever makes a sandbox decides what is where in it.
    return f"{quoted(exe)}, as its sandbox has it" if request.sandbox else _path(exe)


def _own_name(exe: str) -> str:
    """The name that a process gives itself, or nothing.

    The agent puts it in brackets if it cannot see the executable, and if that is an interpreter, which says
    nothing of the program.
    """
    return exe[1:-1] if exe.startswith("[") and exe.endswith("]") else ""


def _what(request: RequestInfo) -> Iterator[Row]:
    yield ("scopes", scopes(request))
    yield ("audience", audience(request))
    yield ("lasts", lasts(request))
    yield ("uses", "unlimited" if request.max_uses is None else str(request.max_uses))
    if request.bound:
        yield ("ends", f"with process {request.asker.pid}, if that is earlier")


def _why(request: RequestInfo) -> Iterator[Row]:
    yield ("says", says(request))
    if request.label:
        yield ("labels it", quoted(request.label, MAX_LABEL_CHARACTERS))


def _until(request: RequestInfo, now: float) -> Iterator[Row]:
    left = f"{clock(request.until)}, in {format_duration(math.ceil(request.until - now))}"
    if request.state == REMEMBERED:
        yield ("approved", f"for {quoted(request.program)}, without asking again")
        yield ("until", f"{left}, or the next lock")
        return
    if request.program:
        yield ("remember", f"would cover {quoted(request.program)}")
    yield ("until", f"{left}; no answer is a no")


def _is_own(asker: PeerIdentity) -> bool:
    import os

    return asker.uid == os.getuid()


@lru_cache(maxsize=64)
def _user(uid: int) -> str:
    import pwd

    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return str(uid)


def _names(given: Sequence[str] | None, everything: str) -> str:
    """All of them: what is approved has to be what was shown."""
    if given is None:
        return everything
    return printable(", ".join(map(str, given))) or "none"


def _path(text: str, most: int = MAX_SHOWN_CHARACTERS) -> str:
    # Whoever can make a file chooses its name.
    return _bounded(text, most) if re.fullmatch(_PLAIN_PATH, text, re.ASCII) else quoted(text, most)


def _bounded(text: str, most: int = MAX_SHOWN_CHARACTERS, *, longer: bool = False) -> str:
    shown = printable(text)
    return f"{shown[: most - len(_CUT)]}{_CUT}" if longer or len(shown) > most else shown


def _without_piles(text: str) -> Iterator[str]:
    """The characters with at most `_MOST_MARKS` marks on each, and without all but one of several blanks."""
    marks, before = 0, ""
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= _MOST_MARKS and not (character == before == " "):
            yield character
        before = character


def _folded(text: str, room: int) -> Iterator[str]:
    """The text in lines of at most so many columns, at blanks where there are any."""
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width_of(joined) <= room:
            line = joined
            continue
        if line:
            yield line
        line = word
        while width_of(line) > room:
            fitting = len(line)
            while width_of(line[:fitting]) > room:
                fitting -= 1
            yield line[:fitting]
            line = line[fitting:]
    yield line
