"""The async twin of `Session`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import anyio
from anyio.to_thread import run_sync

from .lifecycle import Observer, State
from .session import Session

if TYPE_CHECKING:
    from .session import Logger


class AsyncSession:
    """A `Session` whose work is done in worker threads, so that a slow disk holds up no event loop.

    The methods, their arguments and their errors are those of `Session`. Once begun, a change of the file
    is not cancelled: a cancelled task waits for it, at most five seconds for the lock. Observers run in
    the worker threads.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    async def create_session(
        cls,
        session_token_path: str | os.PathLike[str] | None = None,
        session_token: str | None = None,
        fresh: bool = False,
        logger: Logger | None = None,
    ) -> Self:
        """See `Session.create_session`."""
        return cls(await run_sync(Session.create_session, session_token_path, session_token, fresh, logger))

    async def start(self, session_token: str | None = None, fresh: bool = False) -> None:
        """See `Session.start`."""
        await run_sync(self._session.start, session_token, fresh)

    async def stop(self) -> None:
        """See `Session.stop`."""
        await run_sync(self._session.stop)

    async def destroy(self) -> None:
        """See `Session.destroy`."""
        await run_sync(self._session.destroy)

    async def read_token(self) -> str | None:
        """See `Session.read_token`."""
        return await run_sync(self._session.read_token)

    async def write_token(self, session_token: str) -> None:
        """See `Session.write_token`."""
        await run_sync(self._session.write_token, session_token)

    async def exchange_token(self, session_token: str) -> str | None:
        """See `Session.exchange_token`."""
        return await run_sync(self._session.exchange_token, session_token)

    @property
    def path(self) -> str:
        """See `Session.path`."""
        return self._session.path

    @property
    def state(self) -> State:
        """See `Session.state`."""
        return self._session.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """See `Session.observe`."""
        return self._session.observe(observer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):  # a cancelled task leaves its session stopped as well
            await run_sync(self._session.stop)
