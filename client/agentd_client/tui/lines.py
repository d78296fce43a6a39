"""A list of lines with a cursor, of which only those on the screen are ever drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .rows import Line

MARK = "> "
"""Before the line of the cursor: it is to be seen without colours, and in a list without the focus."""

_NO_MARK = "  "
_WHEEL_LINES = 3


def strip_of(text: str, style: Style, width: int) -> Strip:
    """A line of the screen. The text is never taken for markup."""
    return Strip([Segment(text, style)]).adjust_cell_length(width, style)


class Lines(Widget, can_focus=True):
    """A heading, and a line for each key. The cursor stays on its key when others come and go.

    Args:
        heading: the text above the lines, for a width.
        draw: the line of a key, for a width.
        follows: the cursor stays on the last line while it is there.
        id: of the widget.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home,g", "first", show=False),
        Binding("end,G", "last", show=False),
    ]

    class Chosen(Message):
        """A line was clicked."""

    def __init__(
        self,
        heading: Callable[[int], str],
        draw: Callable[[int, int], Line],
        *,
        follows: bool = False,
        id: str,
    ) -> None:
        super().__init__(id=id)
        self._heading = heading
        self._draw = draw
        self._follows = follows
        self._keys: Sequence[str] = ()
        self._cursor = 0
        self._top = 0

    @property
    def key(self) -> str | None:
        """The key at the cursor."""
        return self._keys[self._cursor] if self._cursor < len(self._keys) else None

    @property
    def shown(self) -> Sequence[str]:
        """The keys on the screen."""
        return self._keys[self._top : self._top + self._room]

    @property
    def position(self) -> str:
        """Which lines are on the screen: "1-8 of 10,000"; nothing if all are."""
        count = len(self._keys)
        if count <= self._room:
            return ""
        return f"{self._top + 1:,}-{min(self._top + self._room, count):,} of {count:,}"

    @property
    def _room(self) -> int:
        return max(self.size.height - 1, 0)

    def show(self, keys: Sequence[str]) -> None:
        """Replace the lines."""
        at_end = self._follows and self._cursor >= len(self._keys) - 1
        key = self.key
        self._keys = keys
        if at_end:
            self._cursor = max(len(keys) - 1, 0)
        elif key is not None and not (self._cursor < len(keys) and keys[self._cursor] == key):
            try:
                self._cursor = keys.index(key)
            except ValueError:
                self._cursor = min(self._cursor, max(len(keys) - 1, 0))
        self._scroll()

    def action_move(self, by: int) -> None:
        """Move the cursor by so many lines."""
        self._move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by so many screens."""
        self._move_to(self._cursor + by * max(self._room - 1, 1))

    def action_first(self) -> None:
        """Move the cursor to the first line."""
        self._move_to(0)

    def action_last(self) -> None:
        """Move the cursor to the last line."""
        self._move_to(len(self._keys) - 1)

    def on_click(self, event: Click) -> None:
        """Move the cursor to the line."""
        place = self._top + event.y - 1
        if event.y >= 1 and place < len(self._keys):
            self._move_to(place)
            self.post_message(self.Chosen())

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Move the cursor up."""
        self.action_move(-_WHEEL_LINES)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Move the cursor down."""
        self.action_move(_WHEEL_LINES)

    def on_resize(self) -> None:
        """Keep the cursor on the screen."""
        self._scroll()

    def render_line(self, y: int) -> Strip:
        """Draw a line of the widget."""
        width = self.size.width
        if y == 0:
            return self._heading_strip(width)
        place = self._top + y - 1
        if place >= len(self._keys):
            return Strip.blank(width)
        line = self._draw(place, max(width - len(MARK), 1))
        is_current = place == self._cursor
        style = Style(reverse=True) if is_current and self.has_focus else Style()
        return strip_of(
            (MARK if is_current else _NO_MARK) + line.text, style + Style.parse(line.style), width
        )

    def _heading_strip(self, width: int) -> Strip:
        style = Style(bold=True, underline=True) if self.has_focus else Style(underline=True)
        position = self.position
        text = _NO_MARK + self._heading(max(width - len(MARK), 1))
        if position:  # instead of the last headings, where there is no room for both
            text = text[: max(width - len(position) - 2, 0)].ljust(width - len(position)) + position
        return strip_of(text, style, width)

    def _move_to(self, place: int) -> None:
        self._cursor = max(0, min(place, len(self._keys) - 1))
        self._scroll()

    def _scroll(self) -> None:
        room = max(self._room, 1)
        most = max(len(self._keys) - room, 0)
        self._top = max(self._cursor - room + 1, min(self._top, self._cursor, most), 0)
        self.refresh()
