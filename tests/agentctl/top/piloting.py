"""The view without a terminal, on an event loop of its own: Textual needs asyncio, and the tests run on trio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from textual.containers import Vertical
from textual.pilot import Pilot
from textual.widget import Widget

from agentd_client.cli.options import Settings
from agentd_client.protocol.results import PeerIdentity, RequestInfo, RequestPage
from agentd_client.tui.app import TopApp
from tests.agentctl.fake_agent import NOW, FakeAgent

PATIENCE_SECONDS = 60.0
"""A test that waits so long for something fails."""

DEPLOY = RequestInfo(
    id="k7m2qd",
    state="waiting",
    asked_at=NOW,
    until=NOW + 290,
    asker=PeerIdentity(0, 4711, "/usr/bin/git", "user@0.service"),
    sandbox=["bubblewrap"],
    socket="ask",
    program="/usr/bin/git",
    label="push",
    reason="release 1.2",
    audience=None,
    scopes=["deploy", "read"],
    expiry=600,
    max_uses=3,
    bound=False,
    calls=1,
)
BUILD = DEPLOY._replace(
    id="p9x1aa", asked_at=NOW + 1, label="", reason="", scopes=None, expiry=None, max_uses=None
)
KEPT = DEPLOY._replace(id="z2z2z2", state="remembered", until=NOW + 3000)


def _paint(lines: list[str], x: int, y: int, text: str) -> None:
    if 0 <= y < len(lines) and x >= 0:
        line = lines[y]
        lines[y] = (line[:x] + text + line[x + len(text) :])[: len(line)]


class Top:
    """The running view: press keys, and read what is on the screen."""

    def __init__(self, app: TopApp, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def text(self) -> str:
        """What a terminal would show, dialogues over the lists, as lines."""
        width, height = self.app.size
        lines = [" " * width] * height
        for screen in self.app.screen_stack:
            for widget in screen.walk_children(Widget):
                if not widget.display or not widget.is_attached:
                    continue
                if isinstance(widget, Vertical):  # the frame of a dialogue
                    for y in range(*widget.region.line_span):
                        _paint(lines, widget.region.x, y, " " * widget.region.width)
                elif not widget.children and widget.region:
                    at = widget.content_region
                    for y in range(at.height):
                        _paint(lines, at.x, at.y + y, widget.render_line(y).text)
        return "\n".join(line.rstrip() for line in lines)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self._pilot.press(*text)

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)
        await self._pilot.pause()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < end, f"it never came to this; on the screen is\n{self.text}"
            await self._pilot.pause(0.01)

    async def sees(self, *texts: str) -> None:
        """Wait until these are on the screen."""
        await self.until(lambda: all(text in self.text for text in texts))


def with_top(
    use: Callable[[Top], Awaitable[None]],
    *,
    size: tuple[int, int] = (80, 24),
    socket: str | None = None,
    token_file: str | None = None,
) -> TopApp:
    """Run the view at `NOW`, use it, and end it."""
    settings = Settings(now=lambda: NOW)
    settings.socket, settings.token_file = socket, token_file

    async def run() -> TopApp:
        app = TopApp(settings)
        async with app.run_test(size=size) as pilot:
            await use(Top(app, pilot))
        return app

    return asyncio.run(run())


class Requests:
    """The requests of the scripted agent: `held`, and what was decided about them."""

    def __init__(self, agent: FakeAgent, *held: RequestInfo) -> None:
        self.held = list(held)
        self.decided: list[dict[str, Any]] = []
        agent.script["listRequests"] = lambda params: RequestPage(list(self.held), None)
        agent.script["decideRequest"] = self._decide
        self.answer: Callable[[dict[str, Any]], Any] | None = None

    def _decide(self, params: dict[str, Any]) -> Any:
        from agentd_client.protocol.results import Decision

        self.decided.append(params)
        if self.answer is not None:
            return self.answer(params)
        self.held = [request for request in self.held if request.id != params["id"]]
        approved = params["decision"] == "approve"
        return Decision(params["id"], "0197043e-new" if approved else None, NOW + 600 if approved else None)
