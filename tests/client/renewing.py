"""A scripted agent that keeps one session and renews it, by a clock that the test sets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from agentd_client import CreatedToken, SessionInfo, Verification
from agentd_client.protocol.codec import Request
from tests.client.scripted import Peer, ScriptedAgent

LIFETIME = 900.0
DUE = 600.0


class RenewingAgent(ScriptedAgent):
    """Tokens are "good-0", "good-1" and so on by their generation; the present one and the one before verify.

    `on_renew` is called in the place of an answer to renewToken; `on_verify` before an answer to verifyToken.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        on_renew: Callable[[Peer, Request], None] | None = None,
        on_verify: Callable[[str], None] | None = None,
    ) -> None:
        self.now = 1000.0
        self.generation = 0
        self.renewed_at = self.now
        self._turn = threading.Lock()
        self.on_renew, self.on_verify = on_renew, on_verify
        super().__init__(path, *[self._serve] * 64)

    def clock(self) -> float:
        return self.now

    def token(self) -> str:
        return f"good-{self.generation}"

    def renewals(self) -> int:
        return self.methods().count("renewToken")

    def renew(self, token: str) -> CreatedToken:
        with self._turn:
            if token == self.token():
                self.generation += 1
                self.renewed_at = self.now
            return CreatedToken(self.token(), "s-1", self.renewed_at + LIFETIME)

    def verify(self, token: str) -> Verification:
        with self._turn:
            if token not in (self.token(), f"good-{self.generation - 1}"):
                return Verification(False, "SUPERSEDED", None)
            info = SessionInfo(
                "s-1", "", 1000.0, self.renewed_at + LIFETIME, None, renewed_at=self.renewed_at
            )
            return Verification(True, None, info)

    def _serve(self, peer: Peer) -> None:
        while True:
            request = peer.receive()
            token = request.params[0]["token"]
            if request.method == "verifyToken":
                if self.on_verify is not None:
                    self.on_verify(token)
                peer.answer_with(request, self.verify(token))
            elif self.on_renew is not None:
                self.on_renew(peer, request)
            else:
                peer.answer_with(request, self.renew(token))
