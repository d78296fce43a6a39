"""MessagePack-RPC: bytes in, messages out; messages in, bytes out. No socket, no clock, no file.

The MessagePack-RPC specification: a request is ``[0, msgid, method, params]``, a response
``[1, msgid, error, result]``, a notification ``[2, method, params]``; messages follow each other unframed.
The one door to msgpack on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import msgpack

from ..errors import ProtocolError
from .limits import (
    MAX_CONTAINER_ITEMS,
    MAX_CONTAINERS,
    MAX_MESSAGE_BYTES,
    MAX_METHOD_CHARACTERS,
    MAX_MSGID,
    MAX_NESTING,
    READ_BYTES,
)

_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2
_REQUEST_ITEMS = 4

# Everything that decoding hostile bytes is known to raise. BufferFull is no ValueError, nested headers end
# in StackError, invalid UTF-8 in UnicodeDecodeError, an unhashable map key in TypeError.
_DECODING_ERRORS = (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException)


class Request(NamedTuple):
    """A call that wants an answer; `params` is the array as it was received."""

    msgid: int
    method: str
    params: list[Any]


class Response(NamedTuple):
    """An answer: `error` is None, or says why there is no result."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """A message that wants no answer."""

    method: str
    params: list[Any]


Message = Request | Response | Notification

# What a named tuple's own constructor calls, without the call around it.
_new_message = tuple.__new__


class _Containers:
    """Counts the arrays and maps of the message that is being decoded, from within the decoding.

    Not the decoder itself: its unpacker holds the hooks, and a cycle would keep the buffer until the
    collector comes by.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found = 0

    def count_array(self, items: list[Any]) -> list[Any]:
        self.found += 1
        if self.found > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} arrays and maps")
        return items

    def read_map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self.found += 1
        if self.found > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} arrays and maps")
        # msgpack lets the last of two equal keys win and bytes keys pass: two readers could see two meanings.
        read: dict[str, Any] = {}
        for key, value in pairs:
            if type(key) is not str:
                raise ValueError("a map key is not a string")
            if key in read:
                raise ValueError("a map holds the same key twice")
            read[key] = value
        return read


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    # max_ext_len=0 stops every extension but an empty one.
    raise ValueError("an extension type")


def _check_nesting(items: Iterable[Any], allowed: int) -> None:
    if not allowed:
        raise ValueError(f"nested more than {MAX_NESTING} deep")
    for item in items:
        kind = type(item)
        if kind is list:
            _check_nesting(item, allowed - 1)
        elif kind is dict:
            _check_nesting(item.values(), allowed - 1)


def _is_msgid(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_MSGID


def _is_method(value: object) -> bool:
    return type(value) is str and len(value) <= MAX_METHOD_CHARACTERS


def _is_flat(params: list[Any]) -> bool:
    for parameters in params:
        if type(parameters) is dict:
            for value in parameters.values():
                kind = type(value)
                if kind is list or kind is dict:
                    return False
        elif type(parameters) is list and parameters:
            return False
    return True


def _request(item: Any) -> Request | None:
    # What an agent hears nearly always, checked by hand: every verification passes through here. None for
    # whatever is no request. `type(x) is int` because msgpack's True and 0.0 are equal to 1 and 0.
    if type(item) is not list or len(item) != _REQUEST_ITEMS:
        return None
    kind, msgid, method, params = item
    if type(kind) is not int or kind != _REQUEST:
        return None
    if type(msgid) is not int or not 0 <= msgid <= MAX_MSGID:
        return None
    if type(method) is not str or len(method) > MAX_METHOD_CHARACTERS or type(params) is not list:
        return None
    if not _is_flat(params):
        _check_nesting(params, MAX_NESTING - 1)  # the message itself is one
    return _new_message(Request, (msgid, method, params))


def _other_message(item: Any) -> Message:
    if type(item) is not list or not item or type(item[0]) is not int:
        raise ValueError("a message is an array that begins with its type")
    _check_nesting(item, MAX_NESTING)
    match item:
        case [1, msgid, error, result] if _is_msgid(msgid):
            return Response(msgid, error, result)
        case [2, method, list() as params] if _is_method(method):
            return Notification(method, params)
    raise ValueError("neither a request, nor a response, nor a notification")


class Decoder:
    """The receiving half of a connection.

    After an error the bytes that follow have no meaning: `failure` is set, nothing more is decoded, and
    the owner closes the connection once it has dealt with the messages that came before.
    """

    def __init__(self) -> None:
        self._containers = _Containers()
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,  # read_map is stricter
            object_pairs_hook=self._containers.read_map,
            list_hook=self._containers.count_array,
            max_buffer_size=MAX_MESSAGE_BYTES + READ_BYTES,
            max_str_len=MAX_MESSAGE_BYTES,
            max_bin_len=MAX_MESSAGE_BYTES,
            max_array_len=MAX_CONTAINER_ITEMS,
            max_map_len=MAX_CONTAINER_ITEMS,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
        self._fed = 0
        self._decoded = 0
        self.failure: ProtocolError | None = None

    @property
    def has_partial_message(self) -> bool:
        """Whether the peer owes the rest of a message; the owner puts a deadline on it."""
        return self._fed != self._decoded

    def receive(self, data: bytes) -> list[Message]:
        """Take at most `READ_BYTES` bytes; returns the messages that they complete."""
        messages: list[Message] = []
        if self.failure is not None:
            return messages
        unpacker, containers = self._unpacker, self._containers
        try:
            unpacker.feed(data)
            self._fed += len(data)
            for item in unpacker:
                end = unpacker.tell()
                if end - self._decoded > MAX_MESSAGE_BYTES:
                    raise ValueError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
                messages.append(_request(item) or _other_message(item))
                self._decoded = end
                containers.found = 0
            if self._fed - self._decoded > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        except _DECODING_ERRORS as error:
            # The class only where msgpack has no words of its own; its words never hold the peer's bytes.
            self.failure = ProtocolError(f"malformed message: {_describe(error)}")
        return messages


def _describe(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    return str(error) or type(error).__name__


class Encoder:
    """The sending half of a connection; not to be shared between threads."""

    def __init__(self) -> None:
        packer = msgpack.Packer(use_bin_type=True, buf_size=4096)
        self._pack: Callable[[Any], bytes] = packer.pack

    def request(self, msgid: int, method: str, params: dict[str, Any]) -> bytes:
        """Encode a request; raises ValueError, TypeError or OverflowError for what cannot be encoded."""
        return _within_limit(self._pack((_REQUEST, msgid, method, (params,))))

    def result(self, msgid: int, result: Any) -> bytes:
        """Encode the answer of a request that was carried out."""
        return _within_limit(self._pack((_RESPONSE, msgid, None, result)))

    def encoded(self, result: Any) -> bytes:
        """Encode a result by itself, for `result_of` to send more than once."""
        return _within_limit(self._pack(result))

    def result_of(self, msgid: int, encoded: bytes) -> bytes:
        """`result`, with a result that `encoded` made: an array of four that begins with 1, msgid, nil."""
        return _within_limit(b"\x94\x01%b\xc0%b" % (self._pack(msgid), encoded))

    def error(self, msgid: int, error: Any) -> bytes:
        """Encode the answer of a request that was refused."""
        return _within_limit(self._pack((_RESPONSE, msgid, error, None)))

    def notification(self, method: str, params: dict[str, Any]) -> bytes:
        """Encode a message that wants no answer."""
        return _within_limit(self._pack((_NOTIFICATION, method, (params,))))


def _within_limit(packed: bytes) -> bytes:
    if len(packed) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(packed)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return packed
