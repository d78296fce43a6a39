"""The desk: requests for sessions wait here for a person, and the first decision counts.

Everything is in memory. It belongs to an unlocked agent: a lock or a stop ends every request and forgets
every approval that was remembered.
"""

from __future__ import annotations

from base64 import b32encode
from functools import partial
from typing import TYPE_CHECKING

import trio

from agentd_client.errors import (
    InvalidParamsError,
    NoSuchRequestError,
    NotWithinRequestError,
    OwnRequestError,
    RequestDeniedError,
)
from agentd_client.protocol.limits import MAX_PAGE_REQUESTS, MAX_REQUEST_SECONDS
from agentd_client.protocol.methods import NEVER
from agentd_client.protocol.reasons import PROCESS_ENDED
from agentd_client.protocol.results import (
    DENIED,
    FORGOTTEN,
    REMEMBERED,
    WITHDRAWN,
    Decision,
    RequestedToken,
    RequestPage,
)

from ..crypto import random_bytes
from ..process_identity import is_alive
from ..sessions import Approval
from ..sessions.rules import checked_grant, checked_label, checked_ttl
from .asker import is_related, program_of
from .book import RequestBook
from .limits import AskingLimits
from .remembered import Remembered
from .request import Ask, Request
from .terms import Terms, checked_reason

if TYPE_CHECKING:
    import logging

    from agentd_client.protocol.results import PeerIdentity

    from ..process_identity import Process
    from ..sessions import Clock, Instant, SessionManager
    from .asker import Asker, Program
    from .policy import Policy

_MAX_CURSOR_DIGITS = 18

_ID_BYTES = 5
"""Eight characters, which people can type. The id proves nothing: only the asker can collect with it."""


class RequestDesk(RequestBook):
    """Takes requests, lists them, and carries out decisions.

    Every method may raise AgentLockedError or AgentStoppingError once it was closed.
    """

    def __init__(
        self, manager: SessionManager, policy: Policy, clock: Clock, logger: logging.Logger | None = None
    ) -> None:
        super().__init__(manager, clock, logger)
        self.policy = policy
        self._limits = AskingLimits()
        self._numbers = 0

    # --- asking ---

    async def request(
        self,
        asker: Asker,
        *,
        expiry: object = None,
        label: object = None,
        audience: object = None,
        scopes: object = None,
        max_uses: object = None,
        reason: object = None,
        parent: object = None,
        bound: bool = False,
        wait: float = MAX_REQUEST_SECONDS,
        hung_up: trio.CancelScope | None = None,
    ) -> RequestedToken:
        """Ask for a session, and wait for the decision.

        A request with a valid parent is granted at once, and so is one whose approval is remembered. The same
        request of the same process joins the one that waits.

        Args:
            asker: the process, and over which socket it asks.
            expiry: as in `SessionManager.open_session`, and so are the next ones up to `bound`. The session
                cannot be renewed beyond its end.
            label: one line for people.
            audience: names of the verifiers.
            scopes: names of what it permits.
            max_uses: how often it verifies.
            reason: the asker's words for the person.
            parent: a token.
            bound: the session ends with the process.
            wait: seconds after which the answer is the request itself, without a token.
            hung_up: cancelled when nobody waits for the answer any more.

        Raises:
            RequestDeniedError, RequestExpiredError, TooManyRequestsError, NotGrantableError: no session.
            InvalidReasonError: the reason is not a line of text.
            CannotBindError: the process has ended, or the agent cannot see it.
            and what `open_session` raises.
        """
        self.require_open()
        grant = checked_grant(audience, scopes, max_uses)
        seconds = self._manager.checked_lifetime(expiry)
        terms = Terms(grant.audience, grant.scopes, seconds, grant.uses, bound)
        ask = Ask(terms, checked_label(label), checked_reason(reason))
        now = self._clock.read()
        program = program_of(asker)
        # Only for what is not refused: a request reads how its process is confined.
        new_request = partial(self._new_request, ask, asker, program, now)
        if parent is not None:
            self._limits.count_unasked(asker, now.boot)
            return await self._open(new_request(), terms, parent=parent)
        self.policy.require_grantable(terms.scopes)
        covered = self.remembered.find(program, terms, now)
        if covered is not None:
            remembered, granted = covered
            self._limits.count_unasked(asker, now.boot)
            approval = Approval(remembered.request.id, remembered.by, REMEMBERED)
            return await self._open(new_request(), granted, approval=approval)
        undecided = self.undecided()
        for other in undecided:
            if other.is_from(asker) and other.ask == ask:
                return await self.outcome(other, wait, hung_up)
        self._limits.check_denied(program.key, terms, now.boot)
        self._limits.check_waiting(asker, [each.asker for each in undecided])
        self._limits.count_new(asker, now.boot)
        request = new_request()
        self.add(request)
        return await self.outcome(request, wait, hung_up)

    async def collect(
        self, request_id: str, asker: Asker, wait: float, hung_up: trio.CancelScope | None = None
    ) -> RequestedToken:
        """Wait for the outcome of a request that this process made over this socket."""
        self.require_open()
        return await self.outcome(self.find_of(asker, request_id), wait, hung_up)

    def withdraw(self, request_id: str, asker: Asker) -> bool:
        """Withdraw a request of this process; whether it was still waiting."""
        self.require_open()
        request = self.find_of(asker, request_id)
        if request.decided.is_set():
            return False
        self.end(request, NoSuchRequestError("the request was withdrawn"), WITHDRAWN, by=asker.identity)
        return True

    # --- deciding ---

    def listed(self, after: str | None = None, limit: int | None = None) -> RequestPage:
        """A page of the waiting requests and the remembered approvals, the oldest first."""
        self.require_open()
        now = self._clock.read()
        found = [(request.number, request.info()) for request in self.waiting()]
        found += [
            (approval.request.number, approval.info())
            for approval in self.remembered
            if not approval.is_over(now)
        ]
        start = _cursor(after)
        rest = sorted(each for each in found if each[0] > start)
        page = rest[: limit or MAX_PAGE_REQUESTS]
        further = str(page[-1][0]) if len(page) < len(rest) else None
        return RequestPage([info for _, info in page], further)

    def require_waiting(self, request_id: str) -> None:
        """Raise NoSuchRequestError if nobody can decide about it."""
        self.require_open()
        self.find_waiting(request_id)

    def deny(self, request_id: str, by: PeerIdentity) -> Decision:
        """Deny a request, or end a remembered approval."""
        self.require_open()
        if request_id in self.remembered:
            self.report(FORGOTTEN, self.remembered.take(request_id).request, by=by)
            return Decision(request_id)
        request = self.find_waiting(request_id)
        now = self._clock.read().boot
        self._limits.deny(request.asker, request.program.key, request.ask.terms, now)
        self.end(request, RequestDeniedError(), DENIED, by=by)
        return Decision(request_id)

    async def approve(
        self,
        request_id: str,
        by: PeerIdentity,
        process: Process,
        *,
        scopes: object = None,
        expiry: object = None,
        max_uses: object = None,
        remember: int | None = None,
        is_proven: bool = False,
        has_passphrase: bool = False,
    ) -> Decision:
        """Open the session that was asked for, or a narrower one. The first decision counts.

        Args:
            request_id: of the request.
            by: who decides.
            process: the identity of that process.
            scopes: what is granted; None is what was asked for, here and below.
            expiry: whole seconds.
            max_uses: how often it verifies.
            remember: for so many seconds the same request of the same program is granted without asking.
            is_proven: whoever decides has given the passphrase of the key file.
            has_passphrase: the key file has one that proves who is present.

        Raises:
            NoSuchRequestError: it does not wait any more.
            NotWithinRequestError, OwnRequestError, PassphraseError: it still waits.
            and what `open_session` raises: it still waits.
        """
        self.require_open()
        request = self.find_waiting(request_id)
        terms = self._narrowed(request, scopes, expiry, max_uses)
        self.policy.require_presence(is_proven=is_proven, has_passphrase=has_passphrase)
        if not is_alive(request.asker.process) or program_of(request.asker) != request.program:
            error = NoSuchRequestError("the process that asked has ended, or runs another program now")
            self.end(request, error, WITHDRAWN, reason=PROCESS_ENDED)
            raise error
        if not is_proven and is_related(process, request.asker.process):
            raise OwnRequestError(
                "a program cannot approve what it, a parent or a child of it asked for; the request still "
                "waits"
            )
        with self.deciding(request):
            granted = await self._open(request, terms, approval=Approval(request.id, by))
            is_taken = await self.grant(request, granted)
        if not is_taken:
            raise NoSuchRequestError("it was withdrawn, or its process ended, at the same moment")
        until = None if remember is None else self._remember(request, terms, by, remember)
        return Decision(request.id, granted.session_id, granted.expires_at, until)

    # --- inside ---

    def _new_request(self, ask: Ask, asker: Asker, program: Program, now: Instant) -> Request:
        self._numbers += 1
        request_id = b32encode(random_bytes(_ID_BYTES)).decode("ascii").lower()
        return Request(request_id, self._numbers, ask, asker, program, now)

    async def _open(
        self, request: Request, terms: Terms, *, parent: object = None, approval: Approval | None = None
    ) -> RequestedToken:
        lifetime = NEVER if terms.seconds is None else terms.seconds
        created = await self._manager.open_session(
            lifetime,
            request.ask.label,
            request.asker.identity,
            audience=terms.audience,
            scopes=terms.scopes,
            max_uses=terms.uses,
            max_lifetime=lifetime,  # what was granted for ten minutes cannot be renewed for a month
            parent=parent,
            bound=terms.is_bound,
            process=request.asker.process,
            approval=approval,
        )
        # A child inherits what it did not ask for.
        session = self._manager.inspect(id=created.id).session
        granted = terms[:2] if session is None else (session.audience, session.scopes)
        uses = terms.uses if session is None else session.uses_left
        return RequestedToken(request.id, request.until, *created, *granted, uses)

    def _narrowed(self, request: Request, scopes: object, expiry: object, max_uses: object) -> Terms:
        asked = request.ask.terms
        chosen = checked_grant(None, scopes, max_uses)
        terms = asked._replace(
            scopes=asked.scopes if scopes is None else chosen.scopes,
            uses=asked.uses if max_uses is None else chosen.uses,
            seconds=checked_ttl(expiry, asked.seconds),
        )
        if (excess := terms.excess(asked)) is not None:
            rule = f"a decision can grant less than was asked for, and never more ({excess})"
            raise NotWithinRequestError(f"{rule}; the request still waits")
        return terms

    def _remember(self, request: Request, terms: Terms, by: PeerIdentity, seconds: int) -> float:
        now = self._clock.read()
        approval = Remembered(request, terms, by, now.wall + seconds, now.boot + seconds)
        if (forgotten := self.remembered.add(approval)) is not None:
            self.report(FORGOTTEN, forgotten.request)
        return approval.until


def _cursor(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) <= _MAX_CURSOR_DIGITS):
        raise InvalidParamsError("listRequests: after is the next of an earlier answer")
    return int(after)
