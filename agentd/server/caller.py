"""Who asks, as the handlers of the methods see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from agentd_client.protocol.results import Opener

from .interface import Subscriber, Unsubscribe
from .peer import Peer


class Caller(Protocol):
    """One connection and the peer at its other end.

    opener: the peer by its numbers alone, made once; `opener_of` reads files and knows more.
    """

    peer: Peer
    opener: Opener

    def subscribe(self, source: Callable[[Subscriber], Unsubscribe]) -> None:
        """Send the peer every event of `source`, after the replies so far; a second time it is nothing."""
        ...

    def until_hang_up(self) -> trio.CancelScope:
        """A scope that is cancelled once the peer has closed the connection, and hears no answer any more.

        For waiting that is for the peer alone. What was begun is carried out, whether its answer is heard or
        not.
        """
        ...
