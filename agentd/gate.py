"""The operations on sessions as the server calls them: those of the manager, or while locked a refusal.

Opening and closing replace the methods themselves. So being lockable costs a call nothing: what
`gate.verify_nowait` gives is the manager's own method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from agentd_client.errors import AgentLockedError, LifecycleError

if TYPE_CHECKING:
    from .server import Sessions

T = TypeVar("T")

AT_ONCE = ("verify_nowait", "inspect")
WAITING = (
    "verify_and_consume",
    "open_session",
    "renew_token",
    "revoke_token",
    "revoke_sessions",
    "list_sessions",
    "list_audit",
    "reset_key",
)


class Gate:
    """Is a `Sessions` for as long as the agent runs, though managers come and go; closed at first.

    Subscribers stay subscribed while it is closed: `on_event` is not the manager's.
    """

    def __init__(self, on_event: Callable[..., Callable[[], None]]) -> None:
        self.on_event = on_event
        self._behind: Sessions | None = None
        self.close()

    @property
    def sessions(self) -> Sessions:
        """Itself, as what it stands for."""
        return cast("Sessions", self)

    def open(self, sessions: Sessions) -> None:
        """From here on these carry out what is asked."""
        self._behind = sessions
        for name in AT_ONCE:
            setattr(self, name, getattr(sessions, name))
        for name in WAITING:
            setattr(self, name, partial(self._wait_for, sessions, getattr(sessions, name)))

    def close(self) -> None:
        """From here on everything is refused; what waits already is answered by what it waits for."""
        self._behind = None
        for name in AT_ONCE + WAITING:
            setattr(self, name, _refuse)

    async def _wait_for(
        self, behind: Sessions, operation: Callable[..., Awaitable[T]], *args: Any, **named: Any
    ) -> T:
        try:
            return await operation(*args, **named)
        except LifecycleError:
            if behind is self._behind:
                raise
            raise AgentLockedError from None  # locked while it waited


def _refuse(*args: object, **named: object) -> NoReturn:
    raise AgentLockedError
