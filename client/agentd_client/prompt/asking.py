"""Follows the requests that wait at the agent, asks about each of them in one place, and passes decisions on.

What waits is read anew from the agent after each event about it, so nothing depends on having seen them all.
A question ends with its request, however that ends; with the connection to the agent; and at a signal.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import click

from ..aio import AsyncClient
from ..cli.dialogues import Dialogues
from ..cli.passphrase import UNLOCK_SECONDS, with_passphrase
from ..errors import (
    AgentdError,
    AgentLockedError,
    ConfigError,
    EnvironmentVariableError,
    LocalParamsError,
    NoSuchRequestError,
    ProtocolError,
    UnknownMethodError,
)
from ..passphrase_input import PassphraseSourceError
from ..protocol.results import (
    APPROVE,
    APPROVED,
    DENIED,
    DENY,
    FORGOTTEN,
    LOCKED,
    MISSED,
    PASSPHRASE,
    REQUEST_EXPIRED,
    REQUESTED,
    WAITING,
    WITHDRAWN,
    RequestInfo,
)
from .dialogues import CannotAskError, PassphraseSource, in_thread
from .text import seconds_left

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ..aio import AsyncEvents
    from ..blocking import Client
    from ..cli.options import Settings

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 10.0
"""Between attempts to reach the agent, doubled each time. A request waits five minutes at most."""

SETTLE_SECONDS = 0.1
"""After reading what waits, however many events come meanwhile."""

MAX_PAGES = 64
"""More than any agent lets wait."""

_ABOUT_REQUESTS = {REQUESTED, APPROVED, DENIED, REQUEST_EXPIRED, WITHDRAWN, FORGOTTEN, LOCKED, MISSED}

_LASTING = (ConfigError, EnvironmentVariableError, LocalParamsError, UnknownMethodError)
"""Errors that are the same with the next agent."""

_DONE = {APPROVE: "was approved here", DENY: "was denied here"}

Say = Callable[[str], None]
"""Tells whoever reads the log."""


class Place(Protocol):
    """Where the person is asked."""

    @property
    def at_once(self) -> int:
        """How many questions may be open."""

    async def run(self) -> None:
        """Do what the place needs, for as long as questions are asked."""

    async def ask(self, request: RequestInfo, decisions: Sequence[str]) -> str | None:
        """Ask about a request; None is no answer. Cancelled, it shows nothing any more."""

    async def tell(self, text: str) -> None:
        """Say what became of an answer."""


async def ask_until_stopped(
    settings: Settings, place: Place, passphrase_source: PassphraseSource | None, say: Say
) -> None:
    """Ask about every request that waits, until SIGTERM, SIGINT or SIGHUP.

    Raises:
        UnknownMethodError: the agent is older than requests.
        AgentdError: a setting or variable is wrong.
    """
    failure: AgentdError | None = None
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        # The place ends after the questions, which close what they show.
        async with anyio.create_task_group() as around:
            around.start_soon(place.run)
            async with anyio.create_task_group() as asking:

                async def follow() -> None:
                    nonlocal failure
                    try:
                        await _Asking(settings, place, passphrase_source, say).run()
                    except AgentdError as error:
                        failure = error
                        asking.cancel_scope.cancel()

                asking.start_soon(follow)
                async for _ in signals:
                    break
                asking.cancel_scope.cancel()
            around.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Asking:
    """The open questions; the arguments are those of `ask_until_stopped`."""

    def __init__(
        self, settings: Settings, place: Place, passphrase_source: PassphraseSource | None, say: Say
    ) -> None:
        self._settings = settings
        self._place = place
        self._passphrase_source = passphrase_source
        self._say = say
        self._state = ""
        self._turns = anyio.Semaphore(place.at_once)
        self._typing = anyio.Lock()
        self._asked: dict[str, anyio.CancelScope] = {}
        self._deciding: set[str] = set()
        self._opening = ""
        self._news = anyio.Event()

    async def run(self) -> None:
        """Ask for as long as there is an agent, and wait for the next one.

        Raises:
            AgentdError: waiting does not help.
        """
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            began = anyio.current_time()
            try:
                await self._follow_agent()
                self._say_state("the agent is gone; waiting for the next one")
            except _LASTING:
                raise
            except AgentdError as error:
                self._say_state(f"waiting for the agent: {error.sentence}")
            if anyio.current_time() - began > MAX_PAUSE_SECONDS:  # it was connected
                pause_seconds = FIRST_PAUSE_SECONDS
            await anyio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def _follow_agent(self) -> None:
        """Ask until the agent's connection ends."""
        failure: AgentdError | None = None
        given = self._settings
        async with (
            await AsyncClient.connect(given.socket, given.timeout, patience=given.patience) as agent,
            # Before anything is read: what comes afterwards is in an event.
            await agent.subscribe() as events,
        ):
            self._opening = (await agent.get_status()).opening
            self._say_state("asking about requests for sessions")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, events, tasks)
                try:
                    await self._keep_up(agent, tasks)
                except AgentdError as error:
                    failure = error
                tasks.cancel_scope.cancel()
            self._asked.clear()
        if failure is not None:
            raise failure

    async def _listen(self, events: AsyncEvents, tasks: TaskGroup) -> None:
        with suppress(ProtocolError):
            async for event in events:
                if event.missed or event.kind in _ABOUT_REQUESTS:
                    self._news.set()
        tasks.cancel_scope.cancel()

    async def _keep_up(self, agent: AsyncClient, tasks: TaskGroup) -> None:
        """Begin a question for each request that waits, and end it when it no longer does."""
        while True:
            self._news = anyio.Event()
            waiting = await _waiting(agent)
            # Not one that is decided here: it ends before the answer to the decision arrives.
            for id in self._asked.keys() - waiting.keys() - self._deciding:
                self._asked.pop(id).cancel()
            for id, request in waiting.items():
                if id in self._asked:
                    continue
                scope = anyio.CancelScope(deadline=anyio.current_time() + seconds_left(request))
                self._asked[id] = scope
                tasks.start_soon(self._ask, agent, request, scope)
            await anyio.sleep(SETTLE_SECONDS)
            await self._news.wait()

    async def _ask(self, agent: AsyncClient, request: RequestInfo, scope: anyio.CancelScope) -> None:
        """Ask about a request, once. Nothing but an answer decides about it."""
        decision: str | None = None
        with scope:
            async with self._turns:
                decision = await self._answer(request)
                if decision == APPROVE and self._opening == PASSPHRASE:
                    async with self._typing:
                        await self._approve_with_passphrase(request)
                    return
        # Outside the scope: the decision ends the request, and with it the question.
        if decision is not None:
            try:
                await agent.decide_request(request.id, decision)
            except AgentdError as error:
                await self._failed(request, error)
            else:
                self._say(f"request {request.id} {_DONE[decision]}")

    async def _answer(self, request: RequestInfo) -> str | None:
        can_approve = self._opening != PASSPHRASE or self._passphrase_source is not None
        try:
            return await self._place.ask(request, (APPROVE, DENY) if can_approve else (DENY,))
        except CannotAskError as error:
            why = str(error)
        except PassphraseSourceError as error:
            why = error.sentence
        self._say(f"request {request.id} was not shown: {why}; `agentctl approve {request.id}` shows it")
        return None

    async def _approve_with_passphrase(self, request: RequestInfo) -> None:
        def decide(agent: Client, passphrase: bytearray) -> None:
            self._deciding.add(request.id)
            try:
                agent.decide_request(request.id, APPROVE, passphrase=passphrase)
            except BaseException:  # a wrong one: it may end elsewhere while another is asked for
                self._deciding.discard(request.id)
                raise

        def approve(dialogues: Dialogues) -> None:
            assert self._passphrase_source is not None
            asked = self._passphrase_source(math.ceil(seconds_left(request)), dialogues)
            with self._settings.connect() as agent:
                agent.timeout = self._settings.at_least(UNLOCK_SECONDS)
                with_passphrase(
                    asked,
                    f"Passphrase of agentd, to approve request {request.id}: ",
                    partial(decide, agent),
                )

        try:
            await in_thread(approve)
        except click.Abort:
            pass
        except AgentdError as error:
            await self._failed(request, error)
        else:
            self._say(f"request {request.id} {_DONE[APPROVE]}")
        finally:
            self._deciding.discard(request.id)

    async def _failed(self, request: RequestInfo, error: AgentdError) -> None:
        if isinstance(error, NoSuchRequestError):  # somebody else was faster
            return
        text = f"the answer to request {request.id} had no effect: {error.sentence}"
        self._say(text)
        await self._place.tell(text)

    def _say_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._say(state)


async def _waiting(agent: AsyncClient) -> dict[str, RequestInfo]:
    """The requests that wait, the oldest first. At a locked agent there are none."""
    found: dict[str, RequestInfo] = {}
    after: str | None = None
    try:
        for _ in range(MAX_PAGES):
            page = await agent.list_requests(after=after)
            found |= {request.id: request for request in page.requests if request.state == WAITING}
            after = page.next
            if after is None:
                break
    except AgentLockedError:
        return {}
    return found
