"""Asking a person for a session: what the asker's terminal shows, and a person who answers there and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..blocking import Client
from ..protocol.results import APPROVE, RequestedToken, Status
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


def by_passphrase(
    settings: Settings, agent: Client, status: Status, sources: Mapping[str, Any], prompt: str
) -> OnWaiting:
    """Ask for the passphrase, and approve with it: whoever knows it may approve what this process asks for.

    `sources` has the values of `passphrase_options`.

    Raises:
        NoPassphraseError: there is none.
        click.UsageError: there is nothing to ask for it with.
    """
    from .passphrase import UNLOCK_SECONDS, asker_for_approval, with_passphrase

    asked = asker_for_approval(status, sources)

    def approve(request: RequestedToken) -> None:
        before = agent.timeout
        agent.timeout = settings.at_least(UNLOCK_SECONDS)
        try:
            with_passphrase(
                asked,
                prompt,
                lambda passphrase: agent.decide_request(request.id, APPROVE, passphrase=passphrase),
            )
        finally:
            agent.timeout = before

    return approve
