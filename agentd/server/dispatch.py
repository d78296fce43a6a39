"""The table of methods: decoded requests in, encoded replies out."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from agentd_client.errors import AgentdError, AgentInternalError, InvalidParamsError, UnknownMethodError
from agentd_client.protocol.codec import Encoder
from agentd_client.protocol.results import CachedVerification
from agentd_client.protocol.wire import Method, error_to_wire, to_wire

from .caller import Caller
from .log import Traffic, describe_failure
from .parameters import Converter, P, Params, converter_of
from .requests import AnyRequest
from .turn import FairQueue

_SHOWABLE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)

Result = tuple[Any, ...]
"""One of the named tuples of `agentd_client.protocol.results`."""


class _Entry:
    """One method. Slots, because every request reads several of them."""

    __slots__ = ("async_handler", "convert", "handler", "params", "queue")

    def __init__(
        self,
        params: type[Params],
        handler: Callable[[Any, Caller], Result | None] | None,
        async_handler: Callable[[Any, Caller], Awaitable[Result]] | None,
        queue: FairQueue | None,
    ) -> None:
        self.params = params
        self.convert: Converter[Any] = converter_of(params)
        self.handler = handler
        self.async_handler = async_handler
        self.queue = queue

    def read(self, request: AnyRequest) -> Any:
        """The parameters of a request."""
        params = request.params
        if len(params) == 1 and type(params[0]) is dict:
            given = params[0]
        elif params in ([], [[]]):  # sent by languages that have one type for array and map, such as Lua
            given = {}
        else:
            raise InvalidParamsError(f"{request.method}: params is an array that holds one map")
        try:
            return self.convert(given, self.params)
        except msgspec.ValidationError as error:
            raise _params_error(request.method, given, self.params, error) from None


class Dispatch:
    """Registers methods, and answers requests with them.

    A request whose handler does not wait is answered without a task.
    """

    def __init__(self, logger: logging.Logger, traffic: Traffic | None = None) -> None:
        self._logger = logger
        self.traffic = traffic or Traffic()
        self._entries: dict[str, _Entry] = {}
        # One for all connections: everything here runs on the event loop's thread, and never across an await.
        self._encoder = Encoder()

    @property
    def names(self) -> list[str]:
        """The methods' wire names, in the order they were registered."""
        return list(self._entries)

    def register(
        self,
        method: Method[Any],
        params: type[P],
        handler: Callable[[P, Caller], Result | None],
        *,
        fallback: Callable[[P, Caller], Awaitable[Result]] | None = None,
        queue: FairQueue | None = None,
    ) -> None:
        """Add a method that does not wait. Raises ValueError if the name is taken.

        With `fallback`, for methods that sometimes have to wait: if `handler` returns None, having done
        nothing, `fallback` answers. With `queue`, `fallback` runs once the request has a place there.
        """
        self._add(method, _Entry(params, handler, fallback, queue))

    def register_async(
        self,
        method: Method[Any],
        params: type[P],
        handler: Callable[[P, Caller], Awaitable[Result]],
        *,
        queue: FairQueue | None = None,
    ) -> None:
        """Add a method that waits. Raises ValueError if the name is taken.

        With `queue`, it runs once the request has a place there.
        """
        self._add(method, _Entry(params, None, handler, queue))

    def _add(self, method: Method[Any], entry: _Entry) -> None:
        if method.name in self._entries:
            raise ValueError(f"the method {method.name!r} is registered twice")
        self._entries[method.name] = entry

    def answer(self, request: AnyRequest, caller: Caller) -> bytes | None:
        """The reply; None if the request has to wait, which `answer_async` does."""
        self.traffic.requests += 1
        try:
            entry = self._entries.get(request.method)
            if entry is None:
                raise UnknownMethodError(f"no method {_shown(request.method)}")
            if entry.handler is None:
                return None
            result = entry.handler(entry.read(request), caller)
            if type(result) is CachedVerification:
                encoded = result.encoded
                if encoded is None:
                    encoded = result.encoded = self._encoder.encoded(to_wire(result))
                return self._encoder.result_of(request.msgid, encoded)
            if result is not None:
                return self._encoder.result(request.msgid, to_wire(result))
            if entry.async_handler is None:
                raise TypeError("a method that never waits gave no result")
            return None
        except Exception as error:
            return self._error_reply(request.msgid, request.method, error)

    async def answer_async(self, request: AnyRequest, caller: Caller) -> bytes:
        """The reply to a request that waits. Raises nothing but a cancellation."""
        try:
            entry = self._entries[request.method]
            assert entry.async_handler is not None
            parameters = entry.read(request)
            queue = entry.queue
            if queue is None:
                result = await entry.async_handler(parameters, caller)
            else:
                await queue.take(caller.peer.process)
                try:
                    result = await entry.async_handler(parameters, caller)
                finally:
                    queue.give_back()
            return self._encoder.result(request.msgid, to_wire(result))
        except Exception as error:
            return self._error_reply(request.msgid, request.method, error)

    def answer_refused(self, msgid: int, error: AgentdError) -> bytes:
        """The reply to a message that could not be read as a request."""
        self.traffic.requests += 1
        return self._error_reply(msgid, "a message", error)

    def closing_error(self, msgid: int, error: AgentdError) -> bytes:
        """Why the agent closes a connection. It answers no request, so it is not counted."""
        return self._encoder.error(msgid, error_to_wire(error))

    def _error_reply(self, msgid: int, name: str, error: Exception) -> bytes:
        self.traffic.refusals += 1
        if isinstance(error, AgentdError):
            try:
                return self._encoder.error(msgid, error_to_wire(error))
            except Exception as unsendable:
                error = unsendable
        self._logger.error("%s failed: %s", name, describe_failure(error))
        return self._encoder.error(msgid, error_to_wire(AgentInternalError()))


def _params_error(
    name: str, given: dict[str, Any], kind: type[Params], error: msgspec.ValidationError
) -> InvalidParamsError:
    for parameter in given:
        if parameter not in kind.__struct_encode_fields__:
            return InvalidParamsError(f"{name}: no parameter {_shown(parameter)}")
    return InvalidParamsError(f"{name}: {error}")  # names the parameter and the types, never the value


def _shown(name: str) -> str:
    # The error repeats a name of the peer's choice, and a terminal may show it: no control characters, and
    # nothing of a token that was sent in the wrong place.
    return f"'{name}'" if _SHOWABLE.fullmatch(name) else f"of that name ({len(name)} characters)"
