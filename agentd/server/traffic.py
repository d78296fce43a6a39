"""What the server has done since it started, in numbers, for `getStatus`."""

from __future__ import annotations

from agentd_client.protocol.results import Counters


class Traffic:
    """Counts; everything runs on the event loop's thread."""

    __slots__ = (
        "connections",
        "connections_cut_off",
        "connections_open",
        "peers_refused",
        "refusals",
        "requests",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.connections_open = 0
        self.connections_cut_off = 0
        self.peers_refused = 0
        self.requests = 0
        self.refusals = 0

    def read(self, commits: int) -> Counters:
        """The numbers as they are told, together with the store's."""
        return Counters(
            connections=self.connections,
            connections_open=self.connections_open,
            connections_cut_off=self.connections_cut_off,
            peers_refused=self.peers_refused,
            requests=self.requests,
            refusals=self.refusals,
            commits=commits,
        )
