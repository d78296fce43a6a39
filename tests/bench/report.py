"""The rows as a line each, as a table of Markdown, as JSON and as a plot."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, Row

OTHERS = ("Redis", "redis-py", "SQLite", "PyJWT", "gpg-agent", "ssh-agent")
"""How a yardstick's name begins that people would use instead of agentd."""

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def number(value: float) -> str:
    digits = 0 if abs(value) >= 1000 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def shown(value: Figure | None) -> str:
    if value is None:
        return ""
    return f"{number(value.median)} ({number(value.low)} to {number(value.high)})"


def with_unit(value: Figure | None, unit: str) -> str:
    return "" if value is None else f"{number(value.median)}{unit if unit in ('', '/s') else ' ' + unit}"


def processor_unit(row: Row) -> str:
    return "µs" if row.is_rate else row.unit


def aim(row: Row) -> str:
    if row.aim is None:
        return ""
    return f"{'≥' if row.is_rate else '≤'} {row.aim:g}{'' if row.is_reached else ', missed'}"


def line(row: Row) -> str:
    """For a terminal: every figure with its spread, and processor times in brackets."""

    def processor(value: Figure | None) -> str:
        return "" if value is None else f"[{number(value.median)}]"

    told = f"{row.name:<46} {shown(row.ours):>28} {row.unit:<3} {processor(row.processor):<7}"
    if row.theirs is not None:
        told += f" {row.beside:<38} {shown(row.theirs):>28} {row.unit:<3} {processor(row.their_processor):<7}"
        told += f" x {shown(row.ratio)}"
    if row.absent:
        told += f" {row.beside} absent: {row.absent}".replace("  ", " ")
    if row.aim is not None and not row.absent:
        told += f" (aim {aim(row)})"
    return told.rstrip()


def markdown(rows: Iterable[Row]) -> str:
    """Medians, and processor times in brackets; the ratio has its lowest and highest round."""

    def both(value: Figure | None, processor: Figure | None, row: Row) -> str:
        told = with_unit(value, row.unit)
        return f"{told} [{with_unit(processor, processor_unit(row))}]" if processor else told

    lines = ["| what | agentd | beside | its figure | ratio | aim |", "|---|---|---|---|---|---|"]
    for row in rows:
        theirs = f"absent: {row.absent}" if row.absent else both(row.theirs, row.their_processor, row)
        ours = both(row.ours, row.processor, row)
        cells = (row.name, ours, row.beside, theirs, shown(row.ratio), aim(row))
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join([*lines, ""])


def losses(rows: Iterable[Row]) -> str:
    """Where something else does better, and which aims are missed, the worst first."""

    def told(row: Row) -> str:
        beside = f" / {row.beside}" if row.beside else ""
        return f"* {row.name}{beside}: {with_unit(row.found, '' if row.ratio else row.unit)}"

    def factor(row: Row) -> float:
        """How many times worse than the other."""
        assert row.ratio is not None
        return 1 / row.ratio.median if row.is_rate else row.ratio.median

    rows = list(rows)
    behind = [row for row in rows if row.ratio and row.beside.startswith(OTHERS) and factor(row) > 1]
    behind.sort(key=factor, reverse=True)
    missed = [f"{told(row)} ({aim(row)})" for row in rows if not row.is_reached]
    return "\n".join(
        [
            "Where agentd loses, by the ratio:\n",
            *([told(row) for row in behind] or ["* nowhere"]),
            "\nAims that were missed:\n",
            *(missed or ["* none"]),
            "",
        ]
    )


def document(machine: dict[str, str], rounds: int, rows: Sequence[Row]) -> dict[str, Any]:
    """For `json.dump`; `rows_of` reads it back."""

    def plain(value: Any) -> Any:
        return value._asdict() if isinstance(value, Figure) else value

    return {
        "machine": machine,
        "rounds": rounds,
        "rows": [{name: plain(value) for name, value in row._asdict().items()} for row in rows],
    }


def rows_of(document: dict[str, Any]) -> list[Row]:
    def read(value: Any) -> Any:
        return Figure(**value) if isinstance(value, dict) else value

    return [Row(**{name: read(value) for name, value in row.items()}) for row in document["rows"]]


def before_and_after(before: Sequence[Row], after: Sequence[Row]) -> str:
    """What two runs found for the same rows; of a row that only one has, that one."""
    earlier = {(row.name, row.beside, row.unit): row for row in before}
    lines = [
        "| what | beside | before | after | ratio before | after | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in after:
        old = earlier.pop((row.name, row.beside, row.unit), None)
        cells = [
            row.name,
            row.beside,
            with_unit(old.ours, row.unit) if old else "",
            with_unit(row.ours, row.unit),
            number(old.ratio.median) if old and old.ratio else "",
            number(row.ratio.median) if row.ratio else "",
            aim(row),
        ]
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join([*lines, ""])


def write_between(path: Path, text: str) -> None:
    """Replace what a document has between its two marks, and leave the rest as it is.

    Raises:
        ValueError: it does not have both of them, in order.
    """
    head, tail = around_marks(path)
    path.write_text(f"{head}{BEGIN}\n{text}{END}{tail}")


def around_marks(path: Path) -> tuple[str, str]:
    """What a document has before the one mark and after the other; see `write_between`."""
    head, begun, rest = path.read_text().partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (begun and ended):
        raise ValueError(f"{path} has no {BEGIN} with an {END} after it")
    return head, tail


def plot(rows: Sequence[Row]) -> str:
    """The ratios as bars from the yardstick's 1, to a logarithmic scale (SVG).

    Each bar has a line from its lowest to its highest round, and a mark where its aim is.
    """
    held = [row for row in rows if row.ratio is not None]
    least, most, octave, left, height = 1 / 16, 16, 80, 340, 26

    def x(value: float) -> float:
        return round(left + math.log2(min(max(value, least), most) / least) * octave, 1)

    bottom = height * len(held) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x(most) + 360:.0f}" height="{bottom + 20}"'
        ' font-family="sans-serif" font-size="12">',
    ]
    for value in (least, 1 / 8, 0.25, 0.5, 1, 2, 4, 8, most):
        colour = "#444" if value == 1 else "#ddd"
        parts += [
            f'<line x1="{x(value)}" x2="{x(value)}" y1="20" y2="{bottom}" stroke="{colour}"/>',
            f'<text x="{x(value)}" y="14" text-anchor="middle">{value:g}</text>',
        ]
    for at, row in enumerate(held):
        assert row.ratio is not None
        y, ends = 30 + at * height, sorted((x(1), x(row.ratio.median)))
        low, high = x(row.ratio.low), x(row.ratio.high)
        colour = "#4a7fb5" if row.is_reached else "#c9783a"
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(row.name)}</text>',
            f'<rect x="{ends[0]}" y="{y}" width="{ends[1] - ends[0]:.1f}" height="16" fill="{colour}"/>',
            f'<line x1="{low}" x2="{high}" y1="{y + 8}" y2="{y + 8}" stroke="#222" stroke-width="2"/>',
        ]
        if row.aim is not None:
            parts.append(f'<path d="M{x(row.aim)} {y - 3}v22" stroke="#2a2" stroke-width="2"/>')
        better = ", more is better" if row.is_rate else ""
        parts.append(
            f'<text x="{max(high, ends[1], x(row.aim or 0)) + 8}" y="{y + 13}">'
            f"{row.ratio.median:.2f} of {html.escape(row.beside)}{better}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])
