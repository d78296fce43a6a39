"""The table of methods: which name leads where, what it may be given, who asks, and how refusals are told.

A request comes in decoded and leaves as the bytes of its reply; whatever happens there is one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import trio

from agentd_client.errors import AgentdError, AgentInternalError, InvalidParamsError, UnknownMethodError
from agentd_client.protocol.codec import Encoder
from agentd_client.protocol.methods import Method
from agentd_client.protocol.results import PeerIdentity
from agentd_client.protocol.wire import error_to_wire, to_wire

from .failures import describe_failure
from .interface import Subscriber, Unsubscribe
from .parameters import Converter, P, Params, converter_of
from .peer import Peer
from .requests import AnyRequest
from .traffic import Traffic
from .turn import FairQueue

_SHOWABLE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)

Result = tuple[Any, ...]
"""One of the named tuples of `agentd_client.protocol.results`."""


MAX_KEPT_RESULTS = 1024
"""Encoded results that are kept, about 300 bytes each; the oldest goes first."""


class Caller(Protocol):
    """One connection and the peer at its other end.

    identity: the peer by its numbers alone, made once.
    """

    peer: Peer
    identity: PeerIdentity

    def described(self) -> PeerIdentity:
        """The peer with what `describe_peer` reads of it: once, when something is done here that is shown."""
        ...

    def subscribe(self, source: Callable[[Subscriber], Unsubscribe]) -> None:
        """Send the peer every event of `source`, after the replies so far; a second time it is nothing."""
        ...

    def hang_up_scope(self) -> trio.CancelScope:
        """A scope that is cancelled once the peer has closed the connection, and hears no answer any more.

        For waiting that is for the peer alone. What was begun is carried out, whether its answer is heard or
        not.
        """
        ...


class _Entry:
    """One method. Slots, because every request reads several of them."""

    __slots__ = ("at_once", "convert", "keeps_results", "params", "queue", "waiting")

    def __init__(
        self,
        params: type[Params],
        at_once: Callable[[Any, Caller], Result | None] | None,
        waiting: Callable[[Any, Caller], Awaitable[Result]] | None,
        keeps_results: bool = False,
        queue: FairQueue | None = None,
    ) -> None:
        self.params = params
        self.convert: Converter[Any] = converter_of(params)
        self.at_once = at_once
        self.waiting = waiting
        self.keeps_results = keeps_results
        self.queue = queue

    def read(self, request: AnyRequest) -> Any:
        """The parameters of a request."""
        params = request.params
        if len(params) == 1 and type(params[0]) is dict:
            given = params[0]
        elif params in ([], [[]]):  # what clients without a difference between array and map send, as Lua's
            given = {}
        else:
            raise InvalidParamsError(f"{request.method}: params is an array that holds one map")
        try:
            return self.convert(given, self.params)
        except msgspec.ValidationError as error:
            raise _refused_params(request.method, given, self.params, error) from None


class Dispatch:
    """Registers methods, and answers requests with them.

    A method that answers at once costs no task; one that waits gets one from the connection.
    """

    def __init__(self, logger: logging.Logger, traffic: Traffic | None = None) -> None:
        self._logger = logger
        self.traffic = traffic or Traffic()
        self._entries: dict[str, _Entry] = {}
        # One for all connections: everything here runs on the event loop's thread, and never across an await.
        self._encoder = Encoder()
        # By identity, with the result itself, which thereby lives and keeps its id to itself. Encoding is a
        # third of the time that a verification takes, and most are answered with the same object again.
        self._kept: dict[int, tuple[Result, bytes]] = {}

    @property
    def names(self) -> list[str]:
        """The methods' wire names, in the order they were registered."""
        return list(self._entries)

    def register(
        self,
        method: Method,
        params: type[P],
        handler: Callable[[P, Caller], Result | None],
        *,
        fallback: Callable[[P, Caller], Awaitable[Result]] | None = None,
        keeps_results: bool = False,
        queue: FairQueue | None = None,
    ) -> None:
        """Add a method that answers at once; a name that is taken raises ValueError.

        With `fallback`, for methods that have to wait now and then: where `handler` gives None, having done
        nothing, that handler has the answer.

        With `keeps_results`, for handlers that often give the very same object again: results are kept
        encoded. They must be immutable all the way down, and no secrets.

        With `queue`, `fallback` is carried out once the request has a place there.
        """
        self._add(method, _Entry(params, handler, fallback, keeps_results, queue))

    def register_async(
        self,
        method: Method,
        params: type[P],
        handler: Callable[[P, Caller], Awaitable[Result]],
        *,
        queue: FairQueue | None = None,
    ) -> None:
        """Add a method that waits for something; a name that is taken raises ValueError.

        With `queue`, it is carried out once the request has a place there.
        """
        self._add(method, _Entry(params, None, handler, queue=queue))

    def _add(self, method: Method, entry: _Entry) -> None:
        if method.name in self._entries:
            raise ValueError(f"the method {method.name!r} is registered twice")
        self._entries[method.name] = entry

    def answer(self, request: AnyRequest, caller: Caller) -> bytes | None:
        """The reply; None where the request has to wait, then `answer_async` has it."""
        self.traffic.requests += 1
        try:
            entry = self._entries.get(request.method)
            if entry is None:
                raise UnknownMethodError(f"no method {_shown(request.method)}")
            if entry.at_once is None:
                return None
            result = entry.at_once(entry.read(request), caller)
            if result is None:
                if entry.waiting is None:
                    raise TypeError("a method that never waits gave no result")
                return None
            if not entry.keeps_results:
                return self._encoder.result(request.msgid, to_wire(result))
            kept = self._kept.get(id(result)) or self._keep(result)
            return self._encoder.result_of(request.msgid, kept[1])
        except Exception as error:
            return self._error_reply(request.msgid, request.method, error)

    async def answer_async(self, request: AnyRequest, caller: Caller) -> bytes:
        """The reply of a request that waits; passes on nothing but a cancellation."""
        try:
            entry = self._entries[request.method]
            assert entry.waiting is not None
            parameters = entry.read(request)
            queue = entry.queue
            if queue is None:
                result = await entry.waiting(parameters, caller)
            else:
                await queue.take(caller.peer.process)
                try:
                    result = await entry.waiting(parameters, caller)
                finally:
                    queue.give_back()
            return self._encoder.result(request.msgid, to_wire(result))
        except Exception as error:
            return self._error_reply(request.msgid, request.method, error)

    def answer_refused(self, msgid: int, error: AgentdError) -> bytes:
        """The reply to what came and could not be read as a request."""
        self.traffic.requests += 1
        return self._error_reply(msgid, "a message", error)

    def closing_error(self, msgid: int, error: AgentdError) -> bytes:
        """Why the agent closes a connection. It answers no request, so it is counted as none."""
        return self._encoder.error(msgid, error_to_wire(error))

    def forget(self) -> None:
        """Keep none of the results that were kept so far."""
        self._kept.clear()

    def _keep(self, result: Result) -> tuple[Result, bytes]:
        kept = (result, self._encoder.encoded(to_wire(result)))
        if len(self._kept) >= MAX_KEPT_RESULTS:
            del self._kept[next(iter(self._kept))]
        self._kept[id(result)] = kept
        return kept

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        self.traffic.refusals += 1
        if isinstance(error, AgentdError):
            try:
                return self._encoder.error(msgid, error_to_wire(error))
            except Exception as unsendable:
                error = unsendable
        self._logger.error("%s failed: %s", name, describe_failure(error))
        return self._encoder.error(msgid, error_to_wire(AgentInternalError()))


def _refused_params(
    name: str, given: dict[str, Any], kind: type[Params], error: msgspec.ValidationError
) -> InvalidParamsError:
    for parameter in given:
        if parameter not in kind.__struct_encode_fields__:
            return InvalidParamsError(f"{name}: no parameter {_shown(parameter)}")
    return InvalidParamsError(f"{name}: {error}")  # names the parameter and the types, never the value


def _shown(name: str) -> str:
    # A name that the peer made up is repeated to it, and from there to a terminal: no control characters, and
    # nothing of a token that was sent in the wrong place.
    return f"'{name}'" if _SHOWABLE.fullmatch(name) else f"of that name ({len(name)} characters)"
