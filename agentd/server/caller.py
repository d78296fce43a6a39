"""What methods know of the connection that a request came over."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

import trio

from agentd_client.protocol.results import PeerIdentity

from .outbox import Outbox, Subscriber, Unsubscribe
from .peer import Peer, describe_peer


class Caller:
    """The peer of one connection, as methods see it.

    peer: its user and process. identity: the same for the audit log and events, without the executable.
    """

    __slots__ = ("_described", "_hang_up_scopes", "_has_hung_up", "_outbox", "identity", "peer")

    def __init__(self, peer: Peer, outbox: Outbox) -> None:
        self.peer = peer
        self.identity = PeerIdentity(peer.uid, peer.pid)
        self._outbox = outbox
        self._described: PeerIdentity | None = None
        self._has_hung_up = False
        self._hang_up_scopes: WeakSet[trio.CancelScope] | None = None

    def described(self) -> PeerIdentity:
        """The peer with its executable and unit, which are read on the first call."""
        if self._described is None:
            self._described = describe_peer(self.peer)
        return self._described

    def subscribe(self, source: Callable[[Subscriber], Unsubscribe]) -> None:
        """Send the peer every event of `source` after the replies so far. Once subscribed, a no-op."""
        self._outbox.subscribe(source)

    def hang_up_scope(self) -> trio.CancelScope:
        """A scope that is cancelled once the peer has closed the connection.

        For waiting that only concerns the peer. Work that has begun goes on, even if nobody hears the answer.
        """
        scope = trio.CancelScope()
        if self._has_hung_up:
            scope.cancel()
        if self._hang_up_scopes is None:
            self._hang_up_scopes = WeakSet()
        self._hang_up_scopes.add(scope)
        return scope

    def hang_up(self) -> None:
        """The peer has closed the connection: cancel what waits for it."""
        self._has_hung_up = True
        for scope in self._hang_up_scopes or ():
            scope.cancel()
