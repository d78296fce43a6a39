"""The part of the scripted agent that can be asked for sessions."""

from __future__ import annotations

import os
import threading
from typing import Any

from agentd_client.errors import (
    AgentdError,
    ApprovalRequiredError,
    NoSuchRequestError,
    NotWithinRequestError,
    PassphraseError,
    RequestDeniedError,
)
from agentd_client.protocol.results import (
    DENY,
    FREE,
    OWNERS_SOCKET,
    PASSPHRASE,
    REMEMBERED,
    WAITING,
    Decision,
    PeerIdentity,
    RequestedToken,
    RequestInfo,
    RequestPage,
    Status,
    Withdrawal,
)

NOW = 1_750_000_000.0  # 2025-06-15 15:06:40 UTC
REQUEST_SECONDS = 300


class FakeRequests:
    """What a test sets or reads: `opening`, `requests` by id, and `asked`, which is set by the first request
    that comes over the socket."""

    opening = FREE

    def __init__(self) -> None:
        self.requests: dict[str, RequestInfo] = {}
        self.asked = threading.Event()
        self._outcomes: dict[str, RequestedToken | AgentdError] = {}
        self._mutex = threading.Lock()
        self._decided = threading.Condition(self._mutex)

    def ask(self, request_id: str, **fields: Any) -> RequestInfo:
        """Let another program's request wait; `fields` replace those of an ordinary one."""
        known: dict[str, Any] = {
            "id": request_id,
            "state": WAITING,
            "asked_at": NOW - 20,
            "until": NOW + REQUEST_SECONDS - 20,
            "asker": PeerIdentity(os.getuid(), 4712, "/usr/bin/git", "nightly.service"),
            "sandbox": [],
            "socket": OWNERS_SOCKET,
            "program": "/usr/bin/git",
            "label": "nightly",
            "reason": "release 2.4",
            "audience": None,
            "scopes": ["deploy", "read"],
            "expiry": 600,
            "max_uses": None,
            "bound": False,
        }
        self.requests[request_id] = RequestInfo(**(known | fields))
        return self.requests[request_id]

    def decide(self, request_id: str, outcome: AgentdError | None = None, **granted: Any) -> None:
        """Decide as a person of another terminal does: approve, with less if it is named, or fail the asker."""
        with self._decided:
            self._settle(request_id, outcome, granted)

    def seen_by_approvers(self, status: Status) -> Status:
        waiting = sum(request.state == WAITING for request in self.requests.values())
        return status._replace(opening=self.opening, requests=waiting)

    def refuse_without_approval(self, params: dict[str, Any]) -> None:
        if self.opening != FREE and params.get("parent") is None:
            raise ApprovalRequiredError

    def _settle(
        self, request_id: str, outcome: AgentdError | None, granted: dict[str, Any]
    ) -> RequestedToken:
        request = self.requests.pop(request_id)
        found: RequestedToken | AgentdError
        if outcome is None:
            opened = self._create_token(
                {
                    "label": request.label,
                    "expiry": request.expiry,
                    "scopes": request.scopes,
                    "audience": request.audience,
                    "maxUses": request.max_uses,
                    "bound": request.asker.pid if request.bound else None,
                }
                | {name: value for name, value in granted.items() if value is not None},
                NOW,
            )
            session = self.sessions[opened.token]
            found = RequestedToken(
                request_id,
                request.until,
                opened.token,
                opened.id,
                opened.expires_at,
                session.audience,
                session.scopes,
                session.uses_left,
            )
        else:
            found = outcome
        self._outcomes[request_id] = found
        self._decided.notify_all()
        return RequestedToken(request_id, 0.0) if isinstance(found, AgentdError) else found

    def _requestToken(self, params: dict[str, Any]) -> RequestedToken:  # noqa: N802 - the wire's name
        request_id = params.get("id")
        if request_id is None:
            request_id = f"asked{len(self.requests) + len(self._outcomes) + 1}"
            asked = self.ask(
                request_id,
                asker=PeerIdentity(os.getuid(), params["peer"], "/usr/bin/agentctl"),
                label=params.get("label") or "",
                reason=params.get("reason") or "",
                audience=params.get("audience"),
                scopes=params.get("scopes"),
                expiry=None if params.get("expiry") == "never" else params.get("expiry") or 28_800,
                max_uses=params.get("maxUses"),
                bound=bool(params.get("bound")),
            )
            self.asked.set()
            return RequestedToken(request_id, asked.until)
        self._decided.wait_for(lambda: request_id not in self.requests, params.get("wait"))
        if request_id in self.requests:
            return RequestedToken(request_id, self.requests[request_id].until)
        outcome = self._outcomes.get(request_id, NoSuchRequestError())
        if isinstance(outcome, AgentdError):
            raise outcome
        return outcome

    def _withdrawRequest(self, params: dict[str, Any]) -> Withdrawal:  # noqa: N802 - the wire's name
        return Withdrawal(self.requests.pop(params["id"], None) is not None)

    def _listRequests(self, params: dict[str, Any]) -> RequestPage:  # noqa: N802 - the wire's name
        return RequestPage(*self._page(list(self.requests.values()), params))

    def _decideRequest(self, params: dict[str, Any]) -> Decision:  # noqa: N802 - the wire's name
        request = self.requests.get(params["id"])
        if request is None:
            raise NoSuchRequestError
        if params["decision"] == DENY:
            if request.state == REMEMBERED:
                del self.requests[request.id]
            else:
                self._settle(request.id, RequestDeniedError(), {})
            return Decision(request.id)
        scopes = params.get("scopes")
        if scopes is not None and request.scopes is not None and not set(scopes) <= set(request.scopes):
            raise NotWithinRequestError
        if self.opening == PASSPHRASE:
            if params.get("passphrase") is None:
                raise PassphraseError
            self._check(params["passphrase"])
        granted = {name: params.get(name) for name in ("scopes", "expiry", "maxUses")}
        opened = self._settle(request.id, None, granted)
        remembered = None if params.get("remember") is None else NOW + params["remember"]
        return Decision(request.id, opened.session_id, opened.expires_at, remembered)
