"""`python -m tests.bench [--rounds N] [--output FOLDER]`: a table, bench.json and bench.svg."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from tests.bench.figures import Figure, Row
from tests.bench.suites import every_row
from tests.signals import as_in_a_foreground_job


def shown(value: Figure | None) -> str:
    if value is None:
        return ""
    digits = 0 if value.median >= 1000 else 1 if value.median >= 10 else 2
    return f"{value.median:,.{digits}f} ({value.low:,.{digits}f} to {value.high:,.{digits}f})"


def line(row: Row) -> str:
    told = f"{row.name:<34} {shown(row.ours):>28} {row.unit:<3}"
    if row.theirs is not None:
        told += f" {row.beside:<28} {shown(row.theirs):>28} {row.unit:<3} x {shown(row.ratio)}"
    if row.aim is not None:
        told += f" (aim {'>=' if row.is_rate else '<='} {row.aim:g}{'' if row.is_reached else ': missed'})"
    return told


def plot(rows: list[Row]) -> str:
    """The ratios as bars (SVG): 1 is the yardstick, each bar has its lowest and highest round."""
    held = [row for row in rows if row.ratio is not None]
    scale, left, height = 160, 280, 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1100" height="{height * len(held) + 50}"'
        ' font-family="sans-serif" font-size="12">',
        f'<line x1="{left + scale}" x2="{left + scale}" y1="20" y2="{height * len(held) + 30}" stroke="#888"/>',
        f'<text x="{left + scale}" y="14" text-anchor="middle">1 = the yardstick</text>',
    ]
    for at, row in enumerate(held):
        y, ratio = 30 + at * height, row.ratio
        low, high = (left + min(value, 4.5) * scale for value in (ratio.low, ratio.high))
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{row.name}</text>',
            f'<rect x="{left}" y="{y}" width="{min(ratio.median, 4.5) * scale}" height="16" fill="#4a7fb5"/>',
            f'<line x1="{low}" x2="{high}" y1="{y + 8}" y2="{y + 8}" stroke="#222" stroke-width="2"/>',
            f'<text x="{max(high, left + 10) + 6}" y="{y + 13}">{ratio.median:.2f} of {row.beside}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="in the larger store")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    wanted = parser.parse_args()
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors"
    print(f"{machine}; medians of {wanted.rounds} rounds (lowest to highest)")
    rows: list[Row] = []
    for row in every_row(wanted.rounds, wanted.sessions):
        rows.append(row)
        print(line(row), flush=True)
    wanted.output.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "rounds": wanted.rounds, "rows": [row._asdict() for row in rows]}
    (wanted.output / "bench.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
    (wanted.output / "bench.svg").write_text(plot(rows))
    print(f"written to {wanted.output}/bench.json and bench.svg", file=sys.stderr)


if __name__ == "__main__":
    as_in_a_foreground_job()
    main()
