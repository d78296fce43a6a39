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
    widths = {
        place: max(width_of(text) for text in (columns[place].heading, *(row[place] for row in rows)))
        for place in filled
    }
    if width is not None:
        widths = fitted(columns, widths, width)
    yield colour(line([column.heading for column in columns], widths), "cyan")
    for row in rows:
        yield line(row, widths)


def fitted(columns: Sequence[Column], widest: Mapping[int, int], width: int) -> dict[int, int]:
    """The width of each column that stays if a line has so much room.

    `widest` has the columns that are filled, by their place, and how wide each would like to be.
    """
    kept = _kept(columns, widest, width)
    widths = [widest[place] for place in kept]
    _narrow([columns[place] for place in kept], widths, width - len(_GAP) * (len(kept) - 1))
    return dict(zip(kept, widths, strict=True))


def line(row: Sequence[str], widths: Mapping[int, int]) -> str:
    """The texts of the columns that have a width, cut and padded to it."""
    cells = ((cut(row[place], width), width) for place, width in widths.items())
    return _GAP.join(text + " " * (width - width_of(text)) for text, width in cells).rstrip()


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


def _character_width(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
