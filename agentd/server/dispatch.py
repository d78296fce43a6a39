"""The table of methods: bytes to requests, requests to typed parameters, results to replies.

Tokens and passphrases may be text or bytes, because not every client can choose which it sends: Perl's and
PHP's encoders only have text, and Ruby packs what it read from a socket or a header as bytes. Both forms mean
the same bytes. Every other parameter has one type, and no value is converted.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from agentd_client.errors import (
    AgentdError,
    AgentInternalError,
    InvalidParamsError,
    UnknownMethodError,
)
from agentd_client.protocol.codec import Decoder, Encoder, Message, Request, type_name, whole_messages
from agentd_client.protocol.limits import (
    MAX_CONTAINER_ITEMS,
    MAX_METHOD_CHARACTERS,
    MAX_MSGID,
    MAX_PASSPHRASE_BYTES,
)
from agentd_client.protocol.methods import Method, error_to_wire, to_wire
from agentd_client.protocol.results import CachedVerification

from .log import Traffic, describe_failure
from .peer import Caller

_SHOWABLE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)

_AsManyAsMay = msgspec.Meta(max_length=MAX_CONTAINER_ITEMS)
_Names = Annotated[list[str], _AsManyAsMay]
# No bytes: msgspec accepts no union of bytes and text.
_Parameters = Annotated[dict[str, str | int | float | bool | _Names | None], _AsManyAsMay]


class PlainRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A `Request` that msgspec decodes and constructs in one step. It can hold no cycle, so no gc."""

    kind: Literal[0]
    msgid: Annotated[int, msgspec.Meta(ge=0, le=MAX_MSGID)]
    method: Annotated[str, msgspec.Meta(max_length=MAX_METHOD_CHARACTERS)]
    params: Annotated[list[_Parameters], msgspec.Meta(min_length=1, max_length=1)]


AnyRequest = PlainRequest | Request

_decode = msgspec.msgpack.Decoder(PlainRequest).decode
_decode_many = msgspec.msgpack.Decoder(list[PlainRequest]).decode
_encode = msgspec.msgpack.Encoder().encode
_NOT_PLAIN = (msgspec.DecodeError, UnicodeDecodeError)

_FIXARRAY, _MAX_FIXARRAY, _ARRAY16 = 0x90, 15, b"\xdc"
"""The shortest headers of an array. One read never holds 65,536 messages."""


class RequestDecoder:
    """Decodes the usual requests in C, and leaves everything else to the protocol's `Decoder`.

    It sets no rules for messages. It recognises requests whose parameters are text, lists of text, numbers,
    booleans and nil, in MessagePack's shortest form. The form is checked by encoding what was decoded: the
    bytes are the same only if there was no duplicate key and nothing was ignored.

    The `Decoder` is created on first use: most connections never need it, and its buffer is larger than the
    rest of a connection.

    unfinished: the `Decoder`, while it holds an unfinished or malformed message.
    """

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self.unfinished: Decoder | None = None

    def receive(self, data: bytes) -> Sequence[Message | PlainRequest]:
        """Take one read; returns the messages that it completes."""
        if self.unfinished is not None:
            return self._receive_any(data)
        try:
            request = _decode(data)
        except _NOT_PLAIN:
            return self._receive_many(data)
        return [request] if _encode(request) == data else self._receive_any(data)

    def _receive_many(self, data: bytes) -> Sequence[Message | PlainRequest]:
        count, end = whole_messages(data)
        if count > 1:
            header = bytes([_FIXARRAY + count]) if count <= _MAX_FIXARRAY else _ARRAY16 + count.to_bytes(2)
            array = header + data[:end]
            try:
                requests = _decode_many(array)
            except _NOT_PLAIN:
                return self._receive_any(data)
            if _encode(requests) == array:
                return requests if end == len(data) else [*requests, *self._receive_any(data[end:])]
        return self._receive_any(data)

    def _receive_any(self, data: bytes) -> Sequence[Message]:
        if self._decoder is None:
            self._decoder = Decoder()
        messages = self._decoder.receive(data)
        self.unfinished = self._decoder if self._decoder.has_partial_message else None
        return messages


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The base of every method's parameters, used as it is by methods without any.

    No parameter may be typed as `bytes`, for which msgspec decodes text from base64, or as any other type
    that it converts text to (date, time, UUID, Decimal).
    """


class ParamsWithSecrets(Params, frozen=True):
    """The base of parameters with a `TokenText` or `PassphraseBytes`."""


_convert_with_secrets = partial(msgspec.convert, dec_hook=lambda kind, given: kind(given))

P = TypeVar("P", bound=Params)


class TokenText:
    """A required token, as text. Whether it is a token at all is for the session manager to decide."""

    __slots__ = ("text",)

    def __init__(self, given: object) -> None:
        if type(given) is bytes:
            given = ascii_text(given)
        if type(given) is not str:
            raise ValueError(f"a token is text or bytes, not {type_name(given)}")
        self.text = given

    def __repr__(self) -> str:
        return "<secret>"


class PassphraseBytes:
    """A passphrase as bytes, for text its UTF-8. Nothing is decoded, stripped or normalised."""

    __slots__ = ("bytes",)

    def __init__(self, given: object) -> None:
        if type(given) is str:
            given = given.encode()  # it came as UTF-8: nothing in it cannot be encoded
        if type(given) is not bytes:
            raise ValueError(f"a passphrase is bytes or text, not {type_name(given)}")
        if len(given) > MAX_PASSPHRASE_BYTES:
            raise ValueError(f"a passphrase has at most {MAX_PASSPHRASE_BYTES} bytes")
        self.bytes = given

    def __repr__(self) -> str:
        return "<secret>"


def ascii_text(token: bytes) -> str:
    """The text of a token's bytes. Bytes beyond ASCII become characters that no token has."""
    return token.decode("ascii", "replace")


def presented_token(token: object) -> object:
    """A token of whatever type, with bytes as text. Anything that is not text then is no token."""
    return ascii_text(token) if type(token) is bytes else token


class FairQueue:
    """A bounded number of places for requests under way, shared fairly among processes.

    A free place goes to the processes in turn, and within a process to its oldest request. So a process with
    thousands of requests, on however many connections, delays another process by one request. `waiting` and
    `taken` are how many wait for a place and how many have one.

    A place is handed over and never left free while a request waits, so no later request overtakes.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        # In the order of their turns; processes without a waiting request are left out.
        self._waiting: dict[Hashable, deque[Task]] = {}

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def take(self, process: Hashable) -> None:
        """Take a place, for `give_back` later; wait if none is free. If cancelled, it has taken none."""
        if self.taken < self._places:
            self.taken += 1
            return
        task = current_task()
        self._waiting.setdefault(process, deque()).append(task)

        def leave(_: object) -> Abort:
            # Only called while it waits: once it has a place it is rescheduled, and can no longer be aborted.
            tasks = self._waiting[process]
            tasks.remove(task)
            if not tasks:
                del self._waiting[process]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)

    def give_back(self) -> None:
        """Hand the place to the next in turn."""
        if not self._waiting:
            self.taken -= 1
            return
        process = next(iter(self._waiting))
        tasks = self._waiting.pop(process)
        reschedule(tasks.popleft())
        if tasks:
            self._waiting[process] = tasks  # behind the others


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
        # A hook costs half a microsecond, and a verification needs none.
        self.convert = _convert_with_secrets if issubclass(params, ParamsWithSecrets) else msgspec.convert
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
            for name in given:
                if name not in self.params.__struct_encode_fields__:
                    raise InvalidParamsError(f"{request.method}: no parameter {_shown(name)}") from None
            # It names the parameter and the types, never the value.
            raise InvalidParamsError(f"{request.method}: {error}") from None


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


def _shown(name: str) -> str:
    # The error repeats a name of the peer's choice, and a terminal may show it: no control characters, and
    # nothing of a token that was sent in the wrong place.
    return f"'{name}'" if _SHOWABLE.fullmatch(name) else f"of that name ({len(name)} characters)"
