"""Granting less than was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.strip import Strip
from textual.widget import Widget

from ..cli.request_view import Row, lasts
from ..durations import format_duration, parse_duration
from ..protocol.limits import MAX_REMEMBER_SECONDS, MAX_SCOPE_CHARACTERS, MAX_SCOPES, MAX_USES
from ..protocol.results import RequestInfo
from ..shown_text import printable
from .dialogues import Dialogue, Label, said
from .lines import MARK, strip_of

MAX_TYPED = MAX_SCOPES * (MAX_SCOPE_CHARACTERS + 1)
"""Into one field: the longest list of scopes."""


class Grant(NamedTuple):
    """What is granted; None is as much as was asked for. remember: seconds, None for not at all."""

    scopes: list[str] | None = None
    expiry: int | None = None
    max_uses: int | None = None
    remember: int | None = None

    def rows(self) -> Iterator[Row]:
        """What differs from the request, in words."""
        if self.scopes is not None:
            yield ("GRANT", f"scopes {printable(', '.join(self.scopes)) or 'none'}")
        if self.expiry is not None:
            yield ("GRANT", f"for {format_duration(self.expiry)}")
        if self.max_uses is not None:
            yield ("GRANT", f"{self.max_uses} use{'' if self.max_uses == 1 else 's'}")
        if self.remember is not None:
            yield ("REMEMBER", f"the same without asking for {format_duration(self.remember)}")


class NotLessError(ValueError):
    """What was typed cannot be granted; says why."""


def grant_of(request: RequestInfo, scopes: Sequence[str] | None, ttl: str, uses: str, remember: str) -> Grant:
    """What the fields of the dialogue say.

    Args:
        request: what was asked for.
        scopes: those that were chosen; None for what was asked for.
        ttl: how long; empty for as long as was asked for, and so are the next.
        uses: how often.
        remember: for how long; empty for not at all.

    Raises:
        NotLessError: it is malformed, or more than was asked for.
    """
    if scopes is not None and request.scopes is not None and not set(scopes) <= set(request.scopes):
        raise NotLessError("only scopes that were asked for can be granted")
    if scopes is not None and len(scopes) > MAX_SCOPES:
        raise NotLessError(f"at most {MAX_SCOPES} scopes can be named")
    expiry = _seconds(ttl, "lasts")
    if expiry is not None and request.expiry is not None and expiry > request.expiry:
        raise NotLessError(f"lasts: it asked for {lasts(request)}")
    most_uses = MAX_USES if request.max_uses is None else request.max_uses
    granted_uses: int | None = None
    if uses.strip():
        if not (uses.strip().isascii() and uses.strip().isdigit() and 1 <= int(uses) <= most_uses):
            raise NotLessError(f"uses: a number from 1 to {most_uses}")
        granted_uses = int(uses)
    remembered = _seconds(remember, "remember")
    if remembered is not None and remembered > MAX_REMEMBER_SECONDS:
        raise NotLessError(f"remember: at most {format_duration(MAX_REMEMBER_SECONDS)}")
    return Grant(
        None if scopes is None or scopes == request.scopes else list(scopes),
        None if expiry == request.expiry else expiry,
        None if granted_uses == request.max_uses else granted_uses,
        remembered,
    )


def _seconds(text: str, name: str) -> int | None:
    if not text.strip():
        return None
    try:
        found = parse_duration(text.strip())
    except ValueError:
        found = 0
    if not isinstance(found, int) or found == 0:
        raise NotLessError(f"{name}: a time such as 90s, 10m, 1h30m")
    return found


class Field:
    """A line of text that is typed, or with `granted` a scope that is granted or not."""

    def __init__(self, name: str, granted: bool | None = None) -> None:
        self.name = name
        self.text = ""
        self.granted = granted

    def take(self, event: Key) -> bool:
        """Take a key; returns whether it means something here."""
        if self.granted is not None:
            if event.key != "space":
                return False
            self.granted = not self.granted
        elif event.key == "backspace":
            self.text = self.text[:-1]
        elif event.key == "ctrl+u":
            self.text = ""
        elif event.is_printable and event.character and len(self.text) < MAX_TYPED:
            self.text += event.character
        else:
            return False
        return True


class Form(Widget, can_focus=True):
    """The fields, one below the other.

    One widget for all of them, so that keys that are typed ahead are taken in their order: Textual hands a
    key to the widget that has the focus at that moment, and moves the focus later.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
    ]

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        self._fields = fields
        self._cursor = 0
        self.styles.width = "100%"
        self.styles.height = len(fields)

    def action_move(self, by: int) -> None:
        """Go to another field."""
        self._cursor = (self._cursor + by) % len(self._fields)
        self.refresh()

    def on_key(self, event: Key) -> None:
        """Take what is typed into the field."""
        if event.key in ("tab", "shift+tab"):
            self.action_move(1 if event.key == "tab" else -1)
        elif not self._fields[self._cursor].take(event):
            return
        event.stop()
        event.prevent_default()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a field; those around the cursor, if there is no room for all."""
        place = y + max(0, self._cursor - self.size.height + 1)
        if place >= len(self._fields):
            return Strip.blank(self.size.width)
        field, is_current = self._fields[place], place == self._cursor
        mark = MARK if is_current else " " * len(MARK)
        if field.granted is not None:
            style = Style(reverse=is_current)
            return strip_of(f"{mark}[{'x' if field.granted else ' '}] {field.name}", style, self.size.width)
        name = f"{mark}{field.name} "
        room = max(self.size.width - len(name) - 1, 1)
        shown = printable(field.text)[-room:] + ("_" if is_current else "")
        return strip_of(name + shown, Style(bold=is_current), self.size.width)


class Narrow(Dialogue[Grant | None]):
    """What is granted. Enter goes on to the question."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("enter", "give", show=False),
    ]
    AUTO_FOCUS = "Form"
    OTHER_LINES = 4

    def __init__(self, request: RequestInfo) -> None:
        heading = "Space chooses a scope, Tab moves on. Empty is as much as was asked for."
        super().__init__("Grant less", said(heading), "Enter go on   Esc back")
        self._request = request
        self._problem = Label("", bold=True)
        uses = "" if request.max_uses is None else f", of {request.max_uses}"
        self._scopes = [Field(printable(scope), granted=True) for scope in request.scopes or ()]
        self._named = Field("scopes, with blanks between:")
        self._ttl = Field(f"lasts, of {lasts(request)}:")
        self._uses = Field(f"uses{uses}:")
        self._remember = Field("ask not again for:")
        scopes = [self._named] if request.scopes is None else self._scopes
        self._form = Form([*scopes, self._ttl, self._uses, self._remember])

    def fields(self) -> Iterable[Widget]:
        """The fields, and what is wrong with them."""
        return (self._form, self._problem)

    def _fit(self) -> None:
        super()._fit()
        others = (
            self.OTHER_LINES + len(self.text.lines) + (self.FRAME_LINES if self.has_class("framed") else 0)
        )
        self._form.styles.max_height = max(self.app.size.height - others, 1)

    def action_give(self) -> None:
        """Go on, or say what is wrong."""
        try:
            grant = grant_of(
                self._request, self._chosen(), self._ttl.text, self._uses.text, self._remember.text
            )
        except NotLessError as error:
            self._problem.say(str(error))
        else:
            self.finish(grant)

    def action_leave(self) -> None:
        """Grant nothing."""
        self.finish(None)

    def _chosen(self) -> list[str] | None:
        if self._request.scopes is None:
            return self._named.text.split() or None
        chosen = zip(self._request.scopes, self._scopes, strict=True)
        return [scope for scope, field in chosen if field.granted]
