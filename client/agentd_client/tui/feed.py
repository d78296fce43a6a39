"""Keeps the model up to date: events as they come, and what they do not tell by asking now and then.

It only looks. It verifies and renews nothing, so no session lasts longer, and no agent stays unlocked longer,
because somebody watches. The calls are made one at a time, so that the agent's count of requests less the
calls made here is exact, and a slow agent is never asked twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import ParamSpec, TypeVar

from ..aio import AsyncClient, AsyncEvents
from ..errors import AgentdError, AgentLockedError, AgentUnreachableError, UnknownMethodError
from ..protocol.results import STOPPING, RequestInfo
from .model import Model

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 1.0
STATUS_SECONDS = 2.0

PASS_REST = 10
"""After reading all sessions, the rest before the next time, as a multiple of how long that took."""

LEAST_REST_SECONDS = 2.0
GATHERING_SECONDS = 0.1
"""The least time between two rounds of questions that events give rise to."""

MOST_SINGLE = 48
"""If more sessions than this have changed, all are read again: three pages, instead of a call for each."""

SLOW_PASS_SECONDS = 0.2
"""After a pass that took longer, the sessions on the screen are looked at more often than the others."""

MAX_REQUEST_PAGES = 32


class Feed:
    """Feeds a model from an agent, for as long as it runs.

    Args:
        model: is changed.
        connect: connects to the agent.
        changed: called after every change of the model.
        on_screen: the ids of the sessions that a person sees just now.
    """

    def __init__(
        self,
        model: Model,
        connect: Callable[[], Awaitable[AsyncClient]],
        changed: Callable[[], None],
        on_screen: Callable[[], Collection[str]],
    ) -> None:
        self._model = model
        self._connect = connect
        self._changed = changed
        self._on_screen = on_screen
        self._turn = asyncio.Lock()
        self._calls = 0
        self._ids: dict[str, None] = {}
        self._news = asyncio.Event()
        self._pass_wanted = asyncio.Event()
        self._requests_wanted = False
        self._has_requests = True
        self._pass_seconds = 0.0

    async def run(self) -> None:
        """Follow the agent until cancelled, whether it is there or not."""
        while True:
            try:
                async with await self._connect() as agent:
                    await self._follow(agent)
            except* AgentdError as failed:
                self._model.lose(_first(failed).sentence)
                self._changed()
            await asyncio.sleep(RETRY_SECONDS)

    def look_again(self, session_id: str | None = None) -> None:
        """Something was done, to this session perhaps: show its effect soon."""
        self._requests_wanted = True
        if session_id is not None:
            self._ids[session_id] = None
        self._news.set()

    async def _follow(self, agent: AsyncClient) -> None:
        self._calls, self._has_requests, self._requests_wanted = 0, True, True
        if not self._model.happenings:
            await self._read_audit(agent)
        async with await agent.subscribe() as events:
            self._calls += 1
            self._model.connect()
            await self._ask_status(agent)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(events))
                tasks.create_task(self._answer_news(agent))
                tasks.create_task(self._read_sessions(agent))
                tasks.create_task(self._watch_status(agent))

    async def _call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._turn:
            self._calls += 1
            return await method(*args, **kwargs)

    async def _listen(self, events: AsyncEvents) -> None:
        async for event in events:
            wanted = self._model.take_event(event)
            if event.kind == STOPPING:
                raise AgentUnreachableError("the agent has stopped")
            if wanted.session_id is not None:
                self._ids[wanted.session_id] = None
            if wanted.everything:
                self._pass_wanted.set()
            self._requests_wanted |= wanted.requests
            if wanted.session_id is not None or wanted.requests:
                self._news.set()
            self._changed()
        raise AgentUnreachableError("the connection to the agent was lost")

    async def _answer_news(self, agent: AsyncClient) -> None:
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if self._requests_wanted:
                    self._requests_wanted = False
                    await self._read_requests(agent)
                if len(self._ids) > MOST_SINGLE:
                    self._ids.clear()
                    self._pass_wanted.set()
                while self._ids:
                    session_id = next(iter(self._ids))
                    del self._ids[session_id]
                    await self._look_at(agent, session_id)
            except AgentLockedError:
                self._ids.clear()
            await asyncio.sleep(GATHERING_SECONDS)

    async def _watch_status(self, agent: AsyncClient) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            await self._ask_status(agent)
            if self._model.is_locked:
                continue
            try:
                await self._read_requests(agent)
                if self._pass_seconds > SLOW_PASS_SECONDS:
                    for session_id in list(self._on_screen()):
                        await self._look_at(agent, session_id)
            except AgentLockedError:
                pass  # the next status says so

    async def _read_sessions(self, agent: AsyncClient) -> None:
        while True:
            self._pass_wanted.clear()
            began = time.monotonic()
            try:
                if not self._model.is_locked:
                    await self._pass(agent)
            except AgentLockedError:
                pass  # the event or the next status says so; unlocking wants a pass
            self._pass_seconds = time.monotonic() - began
            # Never sooner than that, whatever events say: a busy agent is not kept busy by who looks on.
            await asyncio.sleep(max(self._pass_seconds, GATHERING_SECONDS))
            try:
                async with asyncio.timeout(max(PASS_REST * self._pass_seconds, LEAST_REST_SECONDS)):
                    await self._pass_wanted.wait()
            except TimeoutError:
                pass

    async def _pass(self, agent: AsyncClient) -> None:
        sessions = self._model.sessions
        sessions.begin_pass()
        after: str | None = None
        while True:
            page = await self._call(agent.list_sessions, after=after)
            sessions.add_page(page.sessions)
            after = page.next
            if after is None:
                break
            self._changed()
        sessions.end_pass()
        self._changed()

    async def _look_at(self, agent: AsyncClient, session_id: str) -> None:
        answer = await self._call(agent.inspect_token, id=session_id)
        if answer.session is None:
            self._model.sessions.end(session_id)
        else:
            self._model.sessions.put(answer.session)
        self._changed()

    async def _read_requests(self, agent: AsyncClient) -> None:
        if not self._has_requests or self._model.is_locked:
            return
        found: list[RequestInfo] = []
        after: str | None = None
        try:
            for _ in range(MAX_REQUEST_PAGES):
                page = await self._call(agent.list_requests, after=after)
                found += page.requests
                after = page.next
                if after is None:
                    break
        except UnknownMethodError:  # an older agent
            self._has_requests = False
            return
        if found != self._model.requests:
            self._model.take_requests(found)
            self._changed()

    async def _ask_status(self, agent: AsyncClient) -> None:
        async with self._turn:
            self._calls += 1
            status = await agent.get_status()
            self._model.take_status(status, time.monotonic(), self._calls)
        self._changed()

    async def _read_audit(self, agent: AsyncClient) -> None:
        try:
            page = await self._call(agent.list_audit)
        except AgentdError:  # it is only what was before; if the agent is gone, the next call says so
            return
        self._model.take_audit(page.entries)


def _first(failed: BaseExceptionGroup[AgentdError]) -> AgentdError:
    """One of several failures: they have the same cause."""
    found: BaseException = failed
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, AgentdError)
    return found
