"""One scenario for three clients: blocking, async under trio, async under asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from agentd_client import Client, Event, Session
from agentd_client.aio import AsyncClient, AsyncSession
from agentd_client.transport.events import Events

T = TypeVar("T")
Scenario = Callable[[Any], Awaitable[T]]

FLAVOURS = ["blocking", "trio", "asyncio"]
BACKENDS = ["trio", "asyncio"]


class _Awaitable:
    """A blocking client whose methods are awaited; each has ended before it is."""

    def __init__(self, client: Client) -> None:
        self.__dict__["client"] = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if not callable(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **kwargs)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.client, name, value)


def run(flavour: str, path: Any, scenario: Scenario[T], **options: Any) -> T:
    """Connect, run the scenario with the client, close it."""
    options.setdefault("timeout", 60)
    if flavour == "blocking":
        with Client.connect(path, **options) as client:
            try:
                scenario(_Awaitable(client)).__await__().__next__()
            except StopIteration as done:
                result: T = done.value
                return result
            raise AssertionError("a blocking scenario waited")

    async def connected() -> T:
        async with await AsyncClient.connect(path, **options) as client:
            return await scenario(client)

    return anyio.run(connected, backend=flavour)


def in_flavour(flavour: str, session: Session) -> Any:
    """The session as a client of this flavour takes it."""
    return session if flavour == "blocking" else AsyncSession(session)


async def next_event(events: Any) -> Event | None:
    """The next event; None at the end."""
    if isinstance(events, Events):
        return next(events, None)
    try:
        found: Event = await anext(events)
    except StopAsyncIteration:
        return None
    return found


async def all_events(events: Any) -> list[Event]:
    """What comes until the end, by the language's own loop."""
    if isinstance(events, Events):
        return list(events)
    return [event async for event in events]


async def close(events: Any) -> None:
    """Close in the way of its flavour."""
    if isinstance(events, Events):
        events.close()
    else:
        await events.close()
