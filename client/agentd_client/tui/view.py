"""The screen: where things stand, and when they are drawn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.app import App, ComposeResult
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from ..cli.commands.list import branches
from ..cli.output import can_show
from ..protocol.results import RequestInfo, SessionInfo
from ..shown_text import printable
from .actions import Actions
from .activity import ASCII_BARS, BARS
from .bands import Band, activity_lines, hints, title
from .dialogues import Question
from .feed import Feed
from .lines import Lines
from .model import Model
from .rows import HAPPENINGS, REQUESTS, SESSIONS, Line, happening_line, request_line, session_line, tree

if TYPE_CHECKING:
    from ..cli.options import Settings

DRAW_SECONDS = 0.05
"""At most so often is the screen drawn for what the agent tells."""

TICK_SECONDS = 1.0
"""How often the times that are left are drawn again."""

REBUILD_REST = 10
"""While sessions come in, the tree rests for a multiple of the time that making it took, so that this stays a
small part of the work, however many there are."""

_KEYS = (
    ("a", "approve"),
    ("d", "deny"),
    ("n", "narrow"),
    ("r", "revoke"),
    ("i", "inspect"),
    ("/", "filter"),
    ("L", "lock"),
    ("R", "renew"),
    ("?", "help"),
    ("q", "quit"),
)
_OF_REQUESTS = {"a", "d", "n"}


class View(App[None]):
    """The lists, and what is above and below them; kept up to date, and without keys of its own."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "#sessions"
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    Band { height: 1; }
    #requests { height: 3; }
    #sessions { height: 1fr; }
    #activity { height: 2; }
    #happenings { height: 6; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    """

    def __init__(self, settings: Settings) -> None:
        # The terminal's own colours on its own background: they suit 16 colours, and what the user chose.
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.model = Model()
        self._signs = branches()
        self._bars = BARS if can_show(BARS) else ASCII_BARS
        self.now = settings.now
        self.actions = Actions(settings)
        self.feed = Feed(self.model, self.actions.connect, self._changed, lambda: self.sessions.shown)
        self._shown_requests: list[RequestInfo] = []
        self._tree: list[tuple[str, SessionInfo]] = []
        self._built: tuple[int, str] | None = None
        self._build_seconds = 0.0
        self._built_at = float("-inf")
        self._wanted = ""
        self._message = ""
        self._drawing: Timer | None = None
        self._state = Band(
            lambda width: [title(self.model, self.now(), self._wanted, width)], "title", reverse=True
        )
        self.requests = Lines(REQUESTS.heading, self._request_line, id="requests")
        self.sessions = Lines(SESSIONS.heading, self._session_line, id="sessions")
        self._activity = Band(lambda width: activity_lines(self.model, width, self._bars), "activity")
        self.happenings = Lines(HAPPENINGS.heading, self._happening_line, follows=True, id="happenings")
        self.filter = Input(placeholder="text in label, scopes, id, program, unit", id="filter", compact=True)
        self._hints = Band(self._bottom, "hints")

    def compose(self) -> ComposeResult:
        """What waits for the person on top."""
        yield self._state
        yield self.requests
        yield self.sessions
        yield self._activity
        yield self.happenings
        yield self.filter
        yield self._hints

    def on_mount(self) -> None:
        """Begin to follow the agent."""
        self.run_worker(self.feed.run(), exit_on_error=True)
        self.set_interval(TICK_SECONDS, self._tick)
        self._draw()

    def on_resize(self) -> None:
        """Give the lists their lines."""
        self.arrange()

    # --- drawing ---

    def _changed(self) -> None:
        if self._drawing is None and self.is_running:
            self._drawing = self.set_timer(DRAW_SECONDS, self._draw)

    def _draw(self) -> None:
        self._drawing = None
        if not self.screen_stack:  # it is ending
            return
        self._build_tree()
        model = self.model
        self._shown_requests = list(model.requests)
        self.requests.show([request.id for request in self._shown_requests])
        first = model.appended - len(model.happenings)
        self.happenings.show([str(first + place) for place in range(len(model.happenings))])
        self.arrange()
        for band in (self._state, self._activity, self._hints):
            band.refresh()
        if isinstance(self.screen, Question):
            self.screen.recheck()

    def _build_tree(self) -> None:
        sessions = self.model.sessions
        wanted = (sessions.revision, self._wanted)
        if wanted == self._built:
            return
        began = time.monotonic()
        is_same_filter = self._built is not None and self._built[1] == self._wanted
        if is_same_filter and began - self._built_at < REBUILD_REST * self._build_seconds:
            self._changed()
            return
        self._tree = tree(sessions.newest_first(), self._signs, self._wanted)
        self._built = wanted
        self.sessions.show([session.id for _, session in self._tree])
        self._built_at = time.monotonic()
        self._build_seconds = self._built_at - began

    def _tick(self) -> None:
        self.requests.refresh()
        self.sessions.refresh()
        self._state.refresh()

    def arrange(self) -> None:
        """Give each part its lines: what waits for the person first, then the sessions."""
        height = self.size.height
        requests = len(self.model.requests)
        shown = min(requests, max(height // 4, 1))
        is_small = height < 14
        happenings = (
            0 if height < 10 or (is_small and requests) else 3 if is_small else 6 if height < 30 else 9
        )
        self._give(self.requests, 1 + shown if requests else 0)
        self._give(self._activity, 2 if height >= 18 else 0)
        self._give(self.happenings, happenings)
        self._give(self._hints, 0 if height < 6 or self.filter.display else 1)
        if len(self.screen_stack) == 1 and self.screen.focused is None:  # the list that had it is empty now
            self.sessions.focus()

    @staticmethod
    def _give(widget: Widget, height: int) -> None:
        widget.display = height > 0
        if height:
            widget.styles.height = height

    def _request_line(self, place: int, width: int) -> Line:
        return request_line(self._shown_requests[place], self.now(), width)

    def _session_line(self, place: int, width: int) -> Line:
        sign, session = self._tree[place]
        return session_line(sign, self.model.sessions.get(session.id) or session, self.now(), width)

    def _happening_line(self, place: int, width: int) -> Line:
        return happening_line(self.model.happenings[place], width)

    def _bottom(self, width: int) -> list[Line]:
        if self._message:
            return [Line(printable(self._message), "bold")]
        return [hints((key for key in _KEYS if self.model.requests or key[0] not in _OF_REQUESTS), width)]

    def say(self, text: str) -> None:
        """Say what came of an action, until the next key."""
        if text != self._message:
            self._message = text
            self._hints.refresh()

    def look_for(self, wanted: str) -> None:
        """Show only the sessions in which this occurs; all for nothing."""
        self._wanted = wanted
        self._draw()
