"""Decodes the usual requests in C, and leaves everything else to the protocol's `Decoder`.

This module sets no rules for messages. It recognises requests whose parameters are text, lists of text,
numbers, booleans and nil, in MessagePack's shortest form. The form is checked by encoding what was decoded:
the bytes are the same only if there was no duplicate key and nothing was ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from agentd_client.errors import ProtocolError
from agentd_client.protocol.codec import Decoder, Message, Request, whole_messages
from agentd_client.protocol.limits import MAX_CONTAINER_ITEMS, MAX_METHOD_CHARACTERS, MAX_MSGID

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
    """The receiving half of an agent's connection: a `Decoder` behind a fast path.

    Most connections never need the `Decoder`. It is created on first use, because its buffer is larger than
    the rest of a connection.

    has_partial_message: a message is unfinished or malformed.
    """

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self.has_partial_message = False

    @property
    def failure(self) -> ProtocolError | None:
        """See `Decoder`."""
        return None if self._decoder is None else self._decoder.failure

    @property
    def msgid_of_rest(self) -> int | None:
        """See `Decoder`."""
        return None if self._decoder is None else self._decoder.msgid_of_rest

    def receive(self, data: bytes) -> Sequence[Message | PlainRequest]:
        """Take one read; returns the messages that it completes."""
        if self.has_partial_message:
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
        self.has_partial_message = self._decoder.has_partial_message
        return messages
