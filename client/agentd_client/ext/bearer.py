"""Bearer tokens in HTTP requests and the answers to them: RFC 6750, and 503 if the agent cannot know.

Nothing here does I/O. `guard.Guard` asks the agent in between.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from ..errors import AgentLockedError
from ..protocol import reasons
from ..protocol.methods import token_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ..errors import AgentdError
    from ..protocol.results import PeerIdentity, SessionInfo, Verdict

RETRY_SECONDS = 1
"""When to try again if the agent is away: it may be restarting."""

LOCKED_RETRY_SECONDS = 10
"""When to try again if the agent is locked: a person has to unlock it."""


class Scopes(tuple[str, ...]):
    """The scopes of a session. One that was opened without scopes has every scope.

    Then `is_unlimited` is True, ``name in scopes`` is True for every name, and there is nothing to iterate.
    Where a framework copies scopes into a plain list, such a session has those that the server requires.
    """

    __slots__ = ()
    is_unlimited = False

    @classmethod
    def of(cls, names: Iterable[str] | None) -> Scopes:
        """The scopes by their names; None is every scope."""
        return _EveryScope() if names is None else cls(names)

    def covers(self, names: Iterable[str]) -> bool:
        """Whether all of these are among them."""
        return all(name in self for name in names)


class _EveryScope(Scopes):
    __slots__ = ()
    is_unlimited = True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __repr__(self) -> str:
        return "<every scope>"


class Admission(NamedTuple):
    """A request that is let in, and the session that it belongs to. It holds no token.

    session: None if the agent was asked at its verify socket, which does not say more than the other two.
    """

    scopes: Scopes
    audience: tuple[str, ...] | None
    session: SessionInfo | None

    @property
    def session_id(self) -> str | None:
        """The session's id, which is not secret."""
        return None if self.session is None else self.session.id

    @property
    def label(self) -> str:
        """What the session is for; empty if that is unknown."""
        return "" if self.session is None else self.session.label

    @property
    def expires_at(self) -> float | None:
        """When it ends unless it is renewed, in seconds since 1970; None for never or unknown."""
        return None if self.session is None else self.session.expires_at

    @property
    def opened_by(self) -> PeerIdentity | None:
        """The process that opened the session, if it is known."""
        return None if self.session is None else self.session.opened_by


class Denied(Exception):  # noqa: N818 - an answer to give, not a fault
    """A request that is not let in, and the HTTP answer to it.

    status: 400, 401, 403 or 503. error: the code of RFC 6750 section 3.1, "temporarily_unavailable", or None
    for a request without credentials. reason: the agent's code, which is stable; for logs. headers: pairs.
    """

    def __init__(
        self,
        status: int,
        error: str | None,
        description: str,
        *,
        reason: str | None = None,
        scopes: Sequence[str] = (),
        realm: str = "agentd",
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description
        self.reason = reason
        self.retry_seconds = retry_seconds
        self.headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if retry_seconds is not None:
            self.headers.append(("Retry-After", str(retry_seconds)))
        else:
            self.headers.append(("WWW-Authenticate", _challenge(realm, error, description, scopes)))

    @property
    def body(self) -> bytes:
        """The answer's body, JSON."""
        error = self.error or "unauthorized"
        return json.dumps({"error": error, "error_description": self.description}).encode()


def _challenge(realm: str, error: str | None, description: str, scopes: Sequence[str]) -> str:
    fields = {"realm": realm}
    if error is not None:
        fields |= {"error": error, "error_description": description}
    if scopes:
        fields["scope"] = " ".join(scopes)
    return "Bearer " + ", ".join(f'{name}="{_quotable(value)}"' for name, value in fields.items())


def _quotable(text: str) -> str:
    # RFC 6750 section 3 allows visible ASCII and space, without the quote and the backslash.
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)


class Credentials:
    """Where a server expects tokens: in `Authorization`, and where it says so in a cookie or the query.

    A cookie is sent by browsers unasked: a server that accepts one must guard itself against cross-site
    requests. A query stands in logs and histories (RFC 6750 section 5.3).
    """

    def __init__(self, cookie: str | None = None, query: str | None = None, realm: str = "agentd") -> None:
        self._cookie = cookie
        self._query = query
        self.realm = realm

    def token(
        self, authorization: Sequence[str], cookies: Iterable[str] = (), query: str | bytes = ""
    ) -> str:
        """The token of a request.

        Args:
            authorization: the values of the `Authorization` headers.
            cookies: the values of the `Cookie` headers.
            query: the query string, undecoded.

        Raises:
            Denied: 401 if there is none, 400 if it is malformed or there are several.
        """
        found = [self._of_header(value) for value in authorization]
        presented = [token for token in found if token is not None]
        if len(authorization) > 1:
            raise self._malformed("send one Authorization header")
        if self._query is not None and query:
            presented += self._of_query(query)
        if not presented and self._cookie is not None:
            presented += self._of_cookies(cookies)
        if not presented:
            raise Denied(401, None, "a session token is needed", realm=self.realm)
        if len(presented) > 1:
            raise self._malformed("send one token, in one place")
        token = token_text(presented[0])
        if token is None:
            raise self._malformed("what was sent cannot be a token")
        return token

    def _of_header(self, value: str) -> str | None:
        # The scheme's name is case-insensitive (RFC 9110 section 11.1).
        scheme, _, token = value.strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def _of_query(self, query: str | bytes) -> list[str]:
        text = query.decode("latin-1") if isinstance(query, bytes) else query
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=100).get(self._query or "", [])
        except ValueError:
            raise self._malformed("the query is malformed") from None

    def _of_cookies(self, cookies: Iterable[str]) -> list[str]:
        # Not by http.cookies: older versions take seconds to read a quoted value, and tokens have no escapes.
        pairs = (pair.partition("=") for header in cookies for pair in header.split(";"))
        values = (value.strip().strip('"') for name, _, value in pairs if name.strip() == self._cookie)
        return [value for value in values if value]

    def _malformed(self, description: str) -> Denied:
        return Denied(400, "invalid_request", description, realm=self.realm)


def decide(
    verdict: Verdict,
    session: SessionInfo | None,
    *,
    required: Collection[str],
    explicit: bool,
    realm: str = "agentd",
) -> Admission:
    """Let in or not, by what the agent said of the token.

    Args:
        verdict: the agent's.
        session: what it said of the session, if it did.
        required: the scopes that the agent was asked about.
        explicit: whether a session without scopes, which has all of them, is not enough.
        realm: of the server.

    Raises:
        Denied: 401, or 403 if the session lacks a scope.
    """
    if not verdict.valid:
        reason = verdict.reason or reasons.MALFORMED
        if reason == reasons.MISSING_SCOPE:
            raise _lacking(reasons.sentence(reason), reason, required, realm)
        raise Denied(401, "invalid_token", reasons.sentence(reason), reason=reason, realm=realm)
    if explicit and verdict.scopes is None:
        sentence = "the session names no scopes, and this server requires that they are named"
        raise _lacking(sentence, reasons.MISSING_SCOPE, required, realm)
    audience = None if verdict.audience is None else tuple(verdict.audience)
    return Admission(Scopes.of(verdict.scopes), audience, session)


def _lacking(sentence: str, reason: str, required: Collection[str], realm: str) -> Denied:
    return Denied(403, "insufficient_scope", sentence, reason=reason, scopes=sorted(required), realm=realm)


def unavailable(error: AgentdError) -> Denied:
    """The answer if the agent cannot know: neither yes nor no. Details stay in the server."""
    locked = isinstance(error, AgentLockedError)
    return Denied(
        503,
        "temporarily_unavailable",
        "the session agent is locked" if locked else "the session agent cannot be asked",
        reason=error.code,
        retry_seconds=LOCKED_RETRY_SECONDS if locked else RETRY_SECONDS,
    )
