"""MessagePack-RPC: bytes in, messages out; messages in, bytes out. No socket, no clock, no file.

The MessagePack-RPC specification: a request is ``[0, msgid, method, params]``, a response
``[1, msgid, error, result]``, a notification ``[2, method, params]``; messages follow each other unframed.
The only module that imports msgpack for the wire.
"""

from __future__ import annotations

import msgpack

from ..errors import AgentdError, InvalidParamsError, ProtocolError, UnknownMethodError
from .limits import (
    MAX_CONTAINER_ITEMS,
    MAX_CONTAINERS,
    MAX_MESSAGE_BYTES,
    MAX_METHOD_CHARACTERS,
    MAX_MSGID,
    MAX_NESTING,
    READ_BYTES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NamedTuple, NoReturn
else:
    from ..light_typing import NamedTuple

_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2
_REQUEST_ITEMS = 4
_NOTIFICATION_ITEMS = 3

_HEAD_BYTES = 5 + 9 + 9
"""The longest encodings of an array header, a type and a msgid."""

_RESULT_HEAD_BYTES = 1 + 1 + 5 + 1
"""What precedes a result: an array header, a type, the longest msgid and nil."""

# Everything that decoding hostile bytes is known to raise. BufferFull is no ValueError; nested headers raise
# StackError, invalid UTF-8 in UnicodeDecodeError, an unhashable map key in TypeError.
_DECODING_ERRORS = (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException)


class Request(NamedTuple):
    """A call that expects an answer; `params` is the array as it was received."""

    msgid: int
    method: str
    params: list[Any]


class Response(NamedTuple):
    """An answer: `error` is None, or says why there is no result."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """A message that expects no answer."""

    method: str
    params: list[Any]


class RefusedRequest(NamedTuple):
    """A complete request that cannot be carried out: `error` is its answer. The connection goes on."""

    msgid: int
    error: AgentdError


Message = Request | Response | Notification | RefusedRequest

# Constructs a named tuple in one call less than its class does.
_new_message = tuple.__new__


class _MessageError(ValueError):
    """What is wrong with a message, in fixed words: they hold nothing that the peer sent."""


_UNREADABLE_MAP = ["a map with a key that is not text"]
"""This object stands for such a map, whose content is dropped."""


class _Containers:
    """Counts the arrays and maps of the current message while it is decoded.

    Apart from the decoder: its unpacker holds these hooks, and a reference cycle would keep the buffer until
    the next garbage collection.
    """

    __slots__ = ("found", "has_unreadable")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start another message."""
        self.found = 0
        self.has_unreadable = False

    def count_array(self, items: list[Any]) -> list[Any]:
        self.found += 1
        if self.found > MAX_CONTAINERS:
            raise _MessageError(f"more than {MAX_CONTAINERS} arrays and maps")
        return items

    def read_map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any] | list[str]:
        self.found += 1
        if self.found > MAX_CONTAINERS:
            raise _MessageError(f"more than {MAX_CONTAINERS} arrays and maps")
        # msgpack accepts duplicate keys, of which the last wins, and bytes keys: two readers could read two
        # meanings.
        texts = [pair for pair in pairs if type(pair[0]) is str]
        read = dict(texts)
        if len(read) != len(texts):
            raise _MessageError("a map holds the same key twice")
        if len(texts) != len(pairs):
            # Not an error yet: clients that encode all text as bytes send such notifications.
            self.has_unreadable = True
            return _UNREADABLE_MAP
        return read


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    # max_ext_len=0 stops every extension but an empty one.
    raise _MessageError("an extension type")


def _check(items: Iterable[Any], allowed: int, *, is_read: bool = True) -> None:
    """Raise if containers are nested deeper than `allowed`, or, if `is_read`, if one is an unreadable map."""
    if not allowed:
        raise _MessageError(f"nested more than {MAX_NESTING} deep")
    for item in items:
        kind = type(item)
        if item is _UNREADABLE_MAP:
            if is_read:
                raise _MessageError("a map key is not a string")
        elif kind is list:
            _check(item, allowed - 1, is_read=is_read)
        elif kind is dict:
            _check(item.values(), allowed - 1, is_read=is_read)


def _is_msgid(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_MSGID


def _message(item: Any, containers: _Containers) -> Message:
    # Checked by hand, because every request and every answer passes through here. `type(x) is int` because
    # True and 0.0 equal 1 and 0.
    if type(item) is not list or not item or type(item[0]) is not int:
        raise _MessageError("a message is an array that begins with its type")
    kind, is_doubtful = item[0], containers.found > MAX_NESTING or containers.has_unreadable
    if len(item) == _REQUEST_ITEMS and _is_msgid(item[1]):
        _, msgid, third, fourth = item
        if (
            kind == _REQUEST
            and type(third) is str
            and len(third) <= MAX_METHOD_CHARACTERS
            and type(fourth) is list
        ):
            if is_doubtful:
                _check(fourth, MAX_NESTING - 1)  # the message itself counts
            return _new_message(Request, (msgid, third, fourth))
        if is_doubtful:
            _check(item, MAX_NESTING)
        if kind == _RESPONSE:
            return _new_message(Response, (msgid, third, fourth))
        if kind == _REQUEST:
            return RefusedRequest(msgid, _request_error(third, fourth))
    is_notification = kind == _NOTIFICATION and len(item) == _NOTIFICATION_ITEMS
    if is_doubtful:
        # A notification with an unreadable map is not read and has no effect.
        _check(item, MAX_NESTING, is_read=not is_notification)
    if is_notification:
        return _notification(item)
    raise _MessageError("neither a request, nor a response, nor a notification")


def _notification(item: list[Any]) -> Notification:
    # A notification of another form has no effect, like one of an unknown name: editors and libraries
    # introduce themselves to whatever they connect to, each in its own way.
    match item:
        case [_, str(method), list(params)] if len(method) <= MAX_METHOD_CHARACTERS:
            return Notification(method, params)
    return Notification("", [])


def _request_error(method: object, params: object) -> AgentdError:
    if type(method) is not str:
        return UnknownMethodError(f"a method's name is text (str), not {type_name(method)}")
    if len(method) > MAX_METHOD_CHARACTERS:
        return UnknownMethodError(f"a method's name has at most {MAX_METHOD_CHARACTERS} characters")
    return InvalidParamsError(f"params is an array that holds one map, not {type_name(params)}")


def whole_messages(data: bytes) -> tuple[int, int]:
    """How many messages `data` begins with, and where the last of them ends.

    They are skipped and not decoded, so their content is unchecked.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    count = end = 0
    try:
        while end < len(data):
            unpacker.skip()
            end = unpacker.tell()
            count += 1
    except _DECODING_ERRORS:  # among them OutOfData
        pass
    return count, end


def type_name(value: object) -> str:
    """What MessagePack calls the type of a decoded value."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


_TYPE_NAMES = {
    type(None): "nil",
    int: "integer",
    str: "text",
    list: "array",
    dict: "map",
}


class Decoder:
    """The receiving half of a connection.

    After an error the bytes that follow have no meaning: `failure` is set, nothing more is decoded, and
    the owner closes the connection once it has handled the messages before.
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
        # The first bytes of an unfinished or malformed message.
        self._head = b""
        self.failure: ProtocolError | None = None

    @property
    def has_partial_message(self) -> bool:
        """Whether a message is unfinished; the owner puts a deadline on the rest."""
        return self._fed != self._decoded

    @property
    def msgid_of_rest(self) -> int | None:
        """The msgid of the unfinished or malformed request, if its first bytes contain it."""
        header = msgpack.Unpacker(
            max_array_len=MAX_CONTAINER_ITEMS, max_map_len=0, max_str_len=0, max_bin_len=0, max_ext_len=0
        )
        header.feed(self._head)
        try:
            if header.read_array_header() <= 1:
                return None
            kind, msgid = header.unpack(), header.unpack()
        except _DECODING_ERRORS:
            return None
        return msgid if type(kind) is int and kind == _REQUEST and _is_msgid(msgid) else None

    def receive(self, data: bytes) -> list[Message]:
        """Decode at most `READ_BYTES` bytes; returns the messages that they complete."""
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
                    raise _MessageError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
                messages.append(_message(item, containers))
                self._decoded = end
                containers.begin()
            if self._fed - self._decoded > MAX_MESSAGE_BYTES:
                raise _MessageError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        except _DECODING_ERRORS as error:
            self.failure = ProtocolError(f"malformed message: {_describe(error)}")
        if self._fed != self._decoded:
            self._keep_head(data)
        return messages

    def _keep_head(self, data: bytes) -> None:
        begins = len(data) - (self._fed - self._decoded)
        if begins >= 0:  # in this read
            self._head = data[begins : begins + _HEAD_BYTES]
        elif len(self._head) < _HEAD_BYTES:
            self._head = (self._head + data)[:_HEAD_BYTES]


def _describe(error: Exception) -> str:
    # In fixed words, so that a log can count each cause, and without any byte or number of the peer's choice.
    if isinstance(error, _MessageError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    if isinstance(error, msgpack.exceptions.StackError):
        return f"nested more than {MAX_NESTING} deep"
    if isinstance(error, msgpack.exceptions.FormatError):
        return "a byte that MessagePack does not have"
    for limit, words in _LIMITS_OF_MSGPACK.items():
        if limit in str(error):
            return words
    return "not MessagePack"


_LIMITS_OF_MSGPACK = {
    "max_array_len": f"more than {MAX_CONTAINER_ITEMS} items in an array",
    "max_map_len": f"more than {MAX_CONTAINER_ITEMS} items in a map",
    "max_str_len": f"a message of more than {MAX_MESSAGE_BYTES} bytes",
    "max_bin_len": f"a message of more than {MAX_MESSAGE_BYTES} bytes",
    "max_ext_len": "an extension type",
}
"""The limits that msgpack's own errors name, next to numbers of the peer's choice."""


class Encoder:
    """The sending half of a connection; not to be shared between threads."""

    def __init__(self) -> None:
        packer = msgpack.Packer(use_bin_type=True, buf_size=4096)
        self._pack: Callable[[Any], bytes] = packer.pack

    def request(self, msgid: int, method: str, params: dict[str, Any]) -> bytes:
        """Encode a request; raises ValueError, TypeError or OverflowError if it cannot be encoded."""
        packed = self._pack((_REQUEST, msgid, method, (params,)))
        return packed if len(packed) <= MAX_MESSAGE_BYTES else _within_limit(packed)

    def result(self, msgid: int, result: Any) -> bytes:
        """Encode the answer to a request that was carried out."""
        return _within_limit(self._pack((_RESPONSE, msgid, None, result)))

    def encoded(self, result: Any) -> bytes:
        """Encode a result by itself, for `result_of` to send repeatedly."""
        return _within_limit(self._pack(result), MAX_MESSAGE_BYTES - _RESULT_HEAD_BYTES)

    def result_of(self, msgid: int, encoded: bytes) -> bytes:
        """As `result`, from a result that `encoded` returned."""
        return b"\x94\x01%b\xc0%b" % (self._pack(msgid), encoded)

    def error(self, msgid: int, error: Any) -> bytes:
        """Encode the answer to a request that was refused."""
        return _within_limit(self._pack((_RESPONSE, msgid, error, None)))

    def notification(self, method: str, params: dict[str, Any]) -> bytes:
        """Encode a message that expects no answer."""
        return _within_limit(self._pack((_NOTIFICATION, method, (params,))))


def _within_limit(packed: bytes, limit: int = MAX_MESSAGE_BYTES) -> bytes:
    if len(packed) > limit:
        raise ValueError(f"a message of {len(packed)} bytes; the limit is {limit}")
    return packed
