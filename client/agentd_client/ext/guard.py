"""The one decision of every guarded server: who may come in, and what the others are answered.

A server integration takes the credentials out of a request, passes them to a `Guard`, and turns `Denied` into
an answer of its framework.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, TypedDict

from ..blocking import Client
from ..errors import INVALID, AgentdError, AgentLockedError, InvalidParamsError
from ..protocol.methods import ADMIT_TOKEN, GET_STATUS, sendable_scopes
from ..protocol.results import Verdict, Verification
from .bearer import Admission, Credentials, Denied, Scopes, decide, unavailable
from .cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..aio import AsyncClient
    from ..protocol.methods import Call
    from ..protocol.results import SessionInfo

__all__ = ["Admission", "Denied", "Guard", "GuardOptions", "Scopes"]

TIMEOUT_SECONDS = 5.0

_forks = 0
"""How many forks lead to this process: it may have the pid of an ancestor whose cache it inherited."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class GuardOptions(TypedDict, total=False):
    """The arguments of `Guard`, which every server integration takes as its own."""

    scopes: Sequence[str]
    audience: str | None
    explicit_scopes: bool
    cookie: str | None
    query: str | None
    realm: str
    cache: bool
    socket_path: str | os.PathLike[str] | None
    agent_uid: int | None
    timeout: float


class Guard:
    """Decides which requests belong to a session that the user opened and has not ended.

    Args:
        scopes: what every session must be good for.
        audience: what this server is called; a session for another audience is refused.
        explicit_scopes: refuse sessions that name no scopes. Such a session has every scope.
        cookie: the name of a cookie that may hold the token; None accepts none.
        query: the name of a query parameter that may hold it; None accepts none.
        realm: what the challenge of a 401 calls this server.
        cache: keep a "yes" while the agent's events say that it still holds; see `cache.Cache`. The agent
            then does not see each use. It needs the agent's own socket: the verify socket has no events.
        socket_path: the agent's socket or its verify socket; None is the user's own agent.
        agent_uid: the user whose agent is trusted, if it is another user's.
        timeout: seconds to wait for the agent; then the answer is 503.

    Thread-safe, and usable after a fork. It connects when it is first asked.
    """

    def __init__(
        self,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        explicit_scopes: bool = False,
        cookie: str | None = None,
        query: str | None = None,
        realm: str = "agentd",
        cache: bool = False,
        socket_path: str | os.PathLike[str] | None = None,
        agent_uid: int | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of names, not one string")
        self.scopes = tuple(scopes)
        self.audience = audience
        self.explicit_scopes = explicit_scopes
        self.credentials = Credentials(cookie, query, realm)
        self._client = Client(socket_path, timeout, 0, agent_uid)
        self._async_client: AsyncClient | None = None
        self._caches: dict[tuple[int, int], Cache] | None = {} if cache else None
        # A guard has no natural end: few frameworks tell their middleware that the server stops.
        self._closers: list[Callable[[], None]] = [self._client.close]
        self._finalizer = weakref.finalize(self, _close, self._closers)

    def admit(
        self,
        authorization: Sequence[str],
        cookies: Iterable[str] = (),
        query: str | bytes = "",
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
    ) -> Admission:
        """Let in the request with these headers, or raise `Denied` with the answer to give.

        Args:
            authorization: the values of its `Authorization` headers.
            cookies: the values of its `Cookie` headers.
            query: its query string, undecoded.
            scopes: what it needs beyond what the guard requires of all.
            audience: instead of the guard's own.
        """
        return self.admit_token(
            self.credentials.token(authorization, cookies, query), scopes=scopes, audience=audience
        )

    async def admit_async(
        self,
        authorization: Sequence[str],
        cookies: Iterable[str] = (),
        query: str | bytes = "",
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
    ) -> Admission:
        """As `admit`, for trio and asyncio; needs anyio."""
        return await self.admit_token_async(
            self.credentials.token(authorization, cookies, query), scopes=scopes, audience=audience
        )

    def admit_token(
        self, token: str, *, scopes: Sequence[str] = (), audience: str | None = None
    ) -> Admission:
        """As `admit`, for a token that was taken out of the request already."""
        question = _Question(self, token, scopes, audience)
        if question.answer is not None:
            return question.answer
        try:
            told = self._client._carry_out(question.call)
        except AgentdError as error:
            raise _unavailable(error) from None
        return question.decide(told)

    async def admit_token_async(
        self, token: str, *, scopes: Sequence[str] = (), audience: str | None = None
    ) -> Admission:
        """As `admit_token`, for trio and asyncio; needs anyio."""
        question = _Question(self, token, scopes, audience)
        if question.answer is not None:
            return question.answer
        try:
            told = await self._open_async_client()._carry_out(question.call, glance=True)
        except AgentdError as error:
            raise _unavailable(error) from None
        return question.decide(told)

    async def admit_session_async(self, session_id: str) -> Admission:
        """As `admit_token_async`, by the id of a session that showed its token earlier.

        For what the server itself remembers, such as a cookie that it signed. It is never cached, counts as
        no use, and needs the agent's own socket.
        """
        try:
            known = await self._open_async_client().inspect_token(
                id=session_id, audience=self.audience, scopes=self.scopes or None
            )
        except InvalidParamsError:
            known = Verification(False, None, None)  # what was remembered is no id
        except AgentdError as error:
            raise unavailable(error) from None
        session = known.session if known.valid else None
        audience, scopes = (None, None) if session is None else (session.audience, session.scopes)
        return decide(
            Verdict(session is not None, known.reason, audience, scopes),
            session,
            required=self.scopes,
            explicit=self.explicit_scopes,
            realm=self.credentials.realm,
        )

    async def ping_async(self) -> None:
        """Raise `Denied` (503) if the agent does not answer, or is locked as far as its socket tells."""
        client = self._open_async_client()
        try:
            known = (await client.hello()).capabilities
            if GET_STATUS.name in known and (await client.get_status()).locked:
                raise AgentLockedError
        except AgentdError as error:
            raise _unavailable(error) from None

    def close(self) -> None:
        """Close the connections to the agent; nothing is admitted from now on."""
        self._finalizer()

    def _open_async_client(self) -> AsyncClient:
        if self._async_client is None:
            from ..aio import AsyncClient  # the extra `async`

            client = self._client
            self._async_client = AsyncClient(client.socket_path, client.timeout, 0, client._pools.agent_uid)
            self._closers.append(self._async_client._pools.close)
        return self._async_client

    def _cache(self) -> Cache | None:
        if self._caches is None:
            return None
        process = (os.getpid(), _forks)
        cache = self._caches.get(process)
        if cache is None:
            made = Cache(self._client.subscribe)
            cache = self._caches.setdefault(process, made)  # one thread of many makes it
            if cache is made:
                try:
                    cache.start()
                except RuntimeError:  # no further thread: ask about this request, and try again at the next
                    del self._caches[process]
                    return None
                self._closers.append(cache.close)
                if not self._finalizer.alive:
                    cache.close()
        return cache


def _unavailable(error: AgentdError) -> Exception:
    # What the agent refuses as invalid, such as the name of a scope, is the server's own mistake.
    return error if error.number == INVALID else unavailable(error)


def _close(closers: list[Callable[[], None]]) -> None:
    for close in closers:
        close()


class _Question:
    """What the agent is asked about one request, and what is known of it before it is asked."""

    def __init__(self, guard: Guard, token: str, scopes: Sequence[str], audience: str | None) -> None:
        self._guard = guard
        self._scopes = tuple(dict.fromkeys((*guard.scopes, *scopes)))
        audience = guard.audience if audience is None else audience
        self.answer: Admission | None = None
        self._cache = guard._cache()
        if self._cache is not None:
            self._key = self._cache.key(token, audience, self._scopes)
            self.answer = self._cache.get(self._key)
            self._epoch = self._cache.epoch
        self.call: Call[tuple[Verdict, SessionInfo | None]] = ADMIT_TOKEN.call(
            token=token, audience=audience, scopes=sendable_scopes(self._scopes or None)
        )

    def decide(self, told: tuple[Verdict, SessionInfo | None]) -> Admission:
        guard = self._guard
        admission = decide(
            *told, required=self._scopes, explicit=guard.explicit_scopes, realm=guard.credentials.realm
        )
        if self._cache is not None:
            self._cache.keep(self._key, admission, self._epoch)
        return admission
