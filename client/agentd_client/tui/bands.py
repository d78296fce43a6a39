"""The single lines above and below the lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from ..cli.table import cut, width_of
from ..cli.wording import clock
from ..protocol.results import FREE
from ..shown_text import printable
from .activity import per_second, plot
from .lines import strip_of
from .model import Model
from .rows import ALARMING, NOTABLE, PLAIN, Line

PLOT_LABEL = 22
"""The columns before a plot: its name and the newest value."""

MOST_LABEL = 24


class Band(Widget):
    """Lines that are made for the width whenever they are drawn; a style that is bold or reversed for all."""

    def __init__(self, make: Callable[[int], list[Line]], id: str, *, reverse: bool = False) -> None:
        super().__init__(id=id)
        self._make = make
        self._style = Style(reverse=reverse)
        self._made: tuple[int, list[Line]] | None = None

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        width = self.size.width
        lines = self._make(width)
        if y >= len(lines):
            return Strip.blank(width)
        line = lines[y]
        return strip_of(line.text, self._style + Style.parse(line.style), width)


def title(model: Model, now: float, wanted: str, width: int) -> Line:
    """The state of the agent, and the time."""
    style = PLAIN
    status = model.status
    if model.trouble is not None:
        state, style = f"NOT CONNECTED: {model.trouble}", ALARMING
    elif status is None:
        state = "connecting"
    elif status.locked:
        state, style = "LOCKED; `agentctl unlock` unlocks it", NOTABLE
    else:
        count = len(model.sessions)
        more = "" if model.sessions.is_complete else f" of {status.sessions or 0:,}"
        parts = [f"{count:,}{more} session{'' if count == 1 and not more else 's'}"]
        if model.waiting:
            parts.append(f"{model.waiting} waiting for you")
        if status.opening != FREE:
            parts.append(f"opening: {status.opening}")
        if wanted:
            parts.append(f"filter: {wanted}")
        state = ", ".join(parts)
    time = clock(now)
    text = cut(printable(f"agentd  {state}"), max(width - len(time) - 2, 8))
    gap = width - width_of(text) - len(time)
    return Line(f"{text}{' ' * gap}{time}" if gap > 0 else text, style)


def activity_lines(model: Model, width: int, bars: str) -> list[Line]:
    """Two plots of one line. The first leaves out what this view asks itself."""
    activity = model.activity
    return [
        _plotted("others' requests", activity.requests, width, bars),
        _plotted("refused tokens", activity.refused, width, bars),
    ]


def _plotted(name: str, samples: Iterable[float | None], width: int, bars: str) -> Line:
    held = list(samples)
    room = width - PLOT_LABEL - MOST_LABEL - 2
    newest = held[-1] if held else None
    label = f"{name} {per_second(newest)}".ljust(PLOT_LABEL)
    if room < 8:
        return Line(label)
    shown = [value for value in held[-room:] if value is not None]
    most = f"  most {per_second(max(shown))} in {2 * min(len(held), room)} s" if shown else ""
    return Line(f"{label}  {plot(held, room, bars)}{most}")


def hints(keys: Iterable[tuple[str, str]], width: int) -> Line:
    """As many keys as fit, the last two always."""
    texts = [f"{key} {what}" for key, what in keys]
    kept, last = texts[:-2], texts[-2:]
    while kept and len("  ".join(kept + last)) > width:
        kept.pop()
    return Line("  ".join(kept + last))
