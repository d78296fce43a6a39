"""Questions and notices over the view. They open when the person presses a key, never by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, TypeVar

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key, Paste
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget

from ..cli.output import can_show
from ..cli.request_view import Row, block
from ..passphrase_input import wipe
from ..protocol.limits import MAX_PASSPHRASE_BYTES
from .lines import strip_of

R = TypeVar("R")

LONGEST_LINE = 76
_BORDER = 4
"""What a frame and its blanks take of a line."""

_FRAME = "─│╭╮╰╯"


class Text(Widget, can_focus=True):
    """Printable lines that scroll; never markup. It takes as much room as it needs, or as there is.

    lines: those for its present width. has_been_read: whether the end has been on the screen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_by(-1)", show=False),
        Binding("down,j", "scroll_by(1)", show=False),
        Binding("pageup", "page_by(-1)", show=False),
        Binding("pagedown,space", "page_by(1)", show=False),
    ]

    def __init__(self, lines: Callable[[int], Iterable[str]]) -> None:
        super().__init__()
        self._make = lines
        self.lines: Sequence[str] = ()
        self._top = 0
        self.has_been_read = False

    def fit(self, width: int, height: int) -> None:
        """Take this room at most."""
        self.lines = list(self._make(width))
        self._top = min(self._top, max(len(self.lines) - height, 0))
        self.styles.width = width
        self.styles.height = max(min(len(self.lines), height), 1)
        self._look(max(min(len(self.lines), height), 1))

    def action_scroll_by(self, by: int) -> None:
        """Scroll by so many lines."""
        height = self.size.height
        self._top = max(0, min(self._top + by, len(self.lines) - height))
        self._look(height)

    def action_page_by(self, by: int) -> None:
        """Scroll by so many screens."""
        self.action_scroll_by(by * max(self.size.height - 1, 1))

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        place = self._top + y
        is_cut = y == self.size.height - 1 and place < len(self.lines) - 1
        if is_cut:
            more = f"-- {len(self.lines) - place} more lines: press Down --"
            return strip_of(more, Style(reverse=True), self.size.width)
        text = self.lines[place] if place < len(self.lines) else ""
        return strip_of(text, Style(), self.size.width)

    def _look(self, height: int) -> None:
        self.has_been_read |= self._top + height >= len(self.lines)
        self.refresh()


class Label(Widget):
    """One printable line, in bold."""

    def __init__(self, text: str, *, bold: bool = False) -> None:
        super().__init__()
        self._text = text
        self._style = Style(bold=bold)
        self.styles.height = 1

    def say(self, text: str) -> None:
        """Replace the text."""
        self._text = text
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw the line."""
        return strip_of(self._text, self._style, self.size.width)


class Dialogue(ModalScreen[R]):
    """A frame in the middle; on a small terminal it takes the whole screen, without a frame."""

    DEFAULT_CSS = """
    Dialogue { align: center middle; }
    Dialogue > Vertical { width: auto; height: auto; max-width: 100%; max-height: 100%; }
    Dialogue.framed > Vertical { padding: 0 1; border: round ansi_default; }
    Dialogue.framed.ascii > Vertical { border: ascii ansi_default; }
    Dialogue Label { width: 100%; }
    """

    FRAME_LINES = 2
    OTHER_LINES = 3
    """Lines beside the text: the title, the keys, and one between."""

    def __init__(self, title: str, lines: Callable[[int], Iterable[str]], keys: str) -> None:
        super().__init__()
        self.set_class(not can_show(_FRAME), "ascii")
        self.text = Text(lines)
        self.bottom = Label(keys, bold=True)
        self._title = title
        self._is_over = False

    def compose(self) -> ComposeResult:
        """The title, the text, what a kind of dialogue adds, and the keys."""
        with Vertical():
            yield Label(self._title, bold=True)
            yield self.text
            yield from self.fields()
            yield Label("")
            yield self.bottom

    def fields(self) -> Iterable[Widget]:
        """What stands below the text."""
        return ()

    def finish(self, result: R) -> None:
        """Close it with this result; once, whatever keys were typed ahead."""
        if not self._is_over:
            self._is_over = True
            self.dismiss(result)

    def on_mount(self) -> None:
        """Fit the text."""
        self._fit()

    def on_resize(self) -> None:
        """Fit the text again."""
        self._fit()

    def _fit(self) -> None:
        width, height = self.app.size
        is_framed = width >= 60 and height >= 16
        self.set_class(is_framed, "framed")
        frame = self.query_one(Vertical)
        room = min(width - (_BORDER if is_framed else 0), LONGEST_LINE)
        others = self.OTHER_LINES + (self.FRAME_LINES if is_framed else 0)
        frame.styles.width = room + (_BORDER if is_framed else 0)
        self.text.fit(max(room, 1), max(height - others, 1))


class Notice(Dialogue[None]):
    """Something to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,n,i,question_mark", "close", show=False)]

    def __init__(self, title: str, lines: Callable[[int], Iterable[str]]) -> None:
        super().__init__(title, lines, "Esc close")

    def action_close(self) -> None:
        """Close it."""
        self.finish(None)


class Question(Dialogue[bool]):
    """A yes or no, which can be answered with yes only after all of it has been on the screen for a moment.

    `still` says whether there is still something to decide; if not, it closes as if answered with no.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "agree", show=False),
        Binding("n,escape,q", "leave", show=False),
    ]
    MOMENT_SECONDS = 0.4
    """What is typed ahead, on a slow line or into another window, agrees to nothing."""

    def __init__(
        self,
        title: str,
        lines: Callable[[int], Iterable[str]],
        yes: str,
        *,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(title, lines, f"y {yes}   n back")
        self._still = still
        self._opened_at = time.monotonic()

    def on_screen_resume(self) -> None:
        """Count the moment from here: it is shown."""
        self._opened_at = time.monotonic()

    def recheck(self) -> None:
        """Close it if there is nothing to decide any more."""
        if not self._still():
            self.finish(False)

    def action_agree(self) -> None:
        """Answer with yes, or show the rest first."""
        if time.monotonic() - self._opened_at < self.MOMENT_SECONDS:
            return
        if not self.text.has_been_read:
            self.text.action_page_by(1)
            return
        self.finish(self._still())

    def action_leave(self) -> None:
        """Answer with no."""
        self.finish(False)


class Passphrase(Dialogue[bytearray | None]):
    """Asks for a passphrase and shows how long it is; the caller wipes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", show=False),
        Binding("enter", "give", show=False),
    ]
    AUTO_FOCUS = "Secret"
    OTHER_LINES = 4

    def __init__(self, lines: Callable[[int], Iterable[str]]) -> None:
        super().__init__("Passphrase of agentd", lines, "Enter go on   Esc back")
        self._field = Secret()

    def fields(self) -> Iterable[Widget]:
        """The field."""
        yield self._field

    def on_unmount(self) -> None:
        """Wipe what was typed, however it closes."""
        self._field.wipe()

    def action_give(self) -> None:
        """Hand it over."""
        self.finish(self._field.take() or None)

    def action_leave(self) -> None:
        """Give nothing."""
        self.finish(None)


class Secret(Widget, can_focus=True):
    """A field that shows an asterisk for each character and keeps them in memory that is wiped."""

    def __init__(self) -> None:
        super().__init__()
        self._typed = bytearray(MAX_PASSPHRASE_BYTES)
        self._ends: list[int] = []
        self.styles.height = 1
        self.styles.width = "100%"

    def take(self) -> bytearray:
        """What was typed; the field is empty afterwards."""
        taken = bytearray(self._filled)
        taken[:] = memoryview(self._typed)[: self._filled]
        self.wipe()
        return taken

    def wipe(self) -> None:
        """Forget what was typed."""
        wipe(self._typed)
        self._ends.clear()
        self.refresh()

    def on_key(self, event: Key) -> None:
        """Take a character, or take back the last one or all."""
        if event.key == "backspace" and self._ends:
            self._ends.pop()
        elif event.key == "ctrl+u":
            self.wipe()
        elif event.is_printable and event.character:
            self._append(event.character)
        else:
            return
        event.stop()
        self.refresh()

    def on_paste(self, event: Paste) -> None:
        """Take a line that is pasted."""
        event.stop()
        for character in event.text.splitlines()[0] if event.text else "":
            self._append(character)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw the field."""
        shown = f"> {'*' * len(self._ends)}_"
        return strip_of(shown[-self.size.width :], Style(), self.size.width)

    @property
    def _filled(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _append(self, character: str) -> None:
        begin, encoded = self._filled, character.encode()
        if begin + len(encoded) <= MAX_PASSPHRASE_BYTES:
            self._typed[begin : begin + len(encoded)] = encoded
            self._ends.append(begin + len(encoded))


def table_lines(rows: Callable[[], Iterable[Row]]) -> Callable[[int], Iterable[str]]:
    """Headings and texts, for a width."""
    return lambda width: block(rows(), width)


def said(text: str) -> Callable[[int], Iterable[str]]:
    """A text of our own, folded for a width."""
    return lambda width: (
        part.strip() for line in text.splitlines() for part in block([("", line)], width + 2)
    )
