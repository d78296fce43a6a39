"""Programs that have tokens verified, as the server would know them."""

from __future__ import annotations

from agentd.process_identity import Process
from agentd_client import PeerIdentity


class Program:
    """A peer, and how often it was described."""

    def __init__(self, pid: int, started: int = 0, uid: int = 1000) -> None:
        self.identity = PeerIdentity(uid, pid)
        self.process = Process(pid, started, "boot")
        self.times_described = 0

    @property
    def described(self) -> PeerIdentity:
        self.times_described += 1
        return self.identity._replace(exe=f"/bin/{self.process.started}", unit="some.service")
