"""A table that fits the terminal. Widths are counted in terminal columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from unicodedata import category, east_asian_width

from .output import can_show, colour

_GAP = "  "
_ELLIPSIS = "…"


class Column(NamedTuple):
    """A heading, and what happens to the column if there is not enough room.

    least: the minimum width; None: the column is never narrowed.
    rank: if narrowing is not enough, columns are dropped, those with the highest rank first; None: never.
    """

    heading: str
    least: int | None = None
    rank: int | None = None


def terminal_width() -> int:
    """The columns of the terminal: COLUMNS, else what the terminal says, else 80."""
    from shutil import get_terminal_size

    return get_terminal_size().columns


def width_of(text: str) -> int:
    """The terminal columns that a printable text takes: two for wide characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def cut(text: str, room: int) -> str:
    """The text, or as much of it as fits into so many columns, with an ellipsis."""
    if width_of(text) <= room:
        return text
    sign = _ELLIPSIS if can_show(_ELLIPSIS) else "~"
    kept, used = "", width_of(sign)
    for character in text:
        used += _character_width(character)
        if used > room:
            break
        kept += character
    return kept + sign


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The headings and then a line for each row; columns that no row fills are left out.

    Args:
        columns: one for each text of a row.
        rows: printable texts.
        width: the width of a line; None is unlimited. Lines are longer if even the narrowest columns that
            stay do not fit.
    """
    filled = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    widest = {
        place: max(width_of(text) for text in (columns[place].heading, *(row[place] for row in rows)))
        for place in filled
    }
    if width is not None:
        filled = _kept(columns, widest, width)
    shown = [columns[place] for place in filled]
    texts = [[row[place] for place in filled] for row in rows]
    widths = [widest[place] for place in filled]
    if width is not None:
        _narrow(shown, widths, width - len(_GAP) * (len(shown) - 1))
    yield colour(_line([column.heading for column in shown], widths), "cyan")
    for row in texts:
        yield _line(row, widths)


def _kept(columns: Sequence[Column], widest: Mapping[int, int], room: int) -> list[int]:
    kept = list(widest)
    while (
        sum(min(widest[place], columns[place].least or widest[place]) for place in kept)
        + len(_GAP) * (len(kept) - 1)
        > room
    ):
        ranks = {place: rank for place in kept if (rank := columns[place].rank) is not None}
        if not ranks:
            break
        kept.remove(max(ranks, key=ranks.__getitem__))
    return kept


def _narrow(columns: Sequence[Column], widths: list[int], room: int) -> None:
    # Narrow the widest by one column at a time; lines are short, so this is fast enough.
    while sum(widths) > room:
        giving = [
            place
            for place, column in enumerate(columns)
            if column.least is not None and widths[place] > column.least
        ]
        if not giving:
            return
        widths[max(giving, key=widths.__getitem__)] -= 1


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cut(text, width) for text, width in zip(texts, widths, strict=True))
    padded = (text + " " * (width - width_of(text)) for text, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _character_width(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
