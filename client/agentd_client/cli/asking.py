"""Asking a person for a session: what the asker's terminal shows meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol.results import RequestedToken
from .options import Settings
from .report import remark
from .request_view import word

OnWaiting = Callable[[RequestedToken], None]
"""What `Client.request_token` calls if a person has to decide."""


def by_another_terminal(settings: Settings) -> OnWaiting:
    """Say how the request is approved, and wait."""

    def wait(asked: RequestedToken) -> None:
        name = word(asked.id)
        remark(
            settings,
            f"waiting for approval of request {name}: `agentctl approve {name}` on another terminal; "
            "Ctrl-C withdraws it",
        )

    return wait
