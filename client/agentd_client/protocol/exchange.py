"""One connection's conversation: the bytes of a call, and its answer out of the bytes that come."""

from __future__ import annotations

from ..errors import (
    AgentdError,
    InvalidAudienceError,
    InvalidExpiryError,
    InvalidGraceError,
    InvalidLabelError,
    InvalidScopesError,
    InvalidTokenError,
    InvalidUsesError,
    LocalParamsError,
    PassphraseError,
    ProtocolError,
)
from .codec import Decoder, Encoder, RefusedRequest, Request, Response
from .methods import IS_VALID, error_from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, NamedTuple, TypeVar

    from .codec import Message
    from .methods import Call

    T = TypeVar("T")
else:
    from ..light_typing import Generic, NamedTuple, T

_MSGIDS = 127
"""Each is one byte on the wire, and one call at a time needs no more of them."""

_HEADS = [b"\x94\x01%c" % msgid for msgid in range(_MSGIDS + 1)]
"""How the answer to each msgid begins: an array of four items, the first two of which are 1 and the msgid."""

_MAX_VERDICTS = 32

_UNSENDABLE: dict[str, type[AgentdError]] = {
    "audience": InvalidAudienceError,
    "expiry": InvalidExpiryError,
    "graceSeconds": InvalidGraceError,
    "label": InvalidLabelError,
    "maxLifetime": InvalidExpiryError,
    "maxUses": InvalidUsesError,
    "new": PassphraseError,
    "old": PassphraseError,
    "parent": InvalidTokenError,
    "passphrase": PassphraseError,
    "scopes": InvalidScopesError,
    "token": InvalidTokenError,
}
"""The errors of parameters that have one of their own, as the agent would answer with."""


class Answer(NamedTuple, Generic[T]):
    """The agent's answer: a result, or an error as the exception class that the agent meant."""

    result: T | None
    error: AgentdError | None

    def unwrap(self) -> T:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


_ENCODING_ERRORS = (ValueError, TypeError, OverflowError)


def _problem(error: Exception, value: object) -> str:
    # In words of our own, without the value.
    if isinstance(error, UnicodeEncodeError):
        return "it is not text that UTF-8 can hold"
    if isinstance(value, str | bytes | bytearray):
        return "it is too long"
    if isinstance(value, int):
        return "the number is too large"
    return f"it is of a type that the protocol does not know ({type(value).__name__})"


class Exchange:
    """One connection's conversation, one call at a time: bytes in, answer out.

    An answer to an earlier call that was given up (its msgid is not the present one) is dropped.
    """

    __slots__ = ("_decoder", "_encoder", "_is_between_messages", "_msgid", "_verdicts")

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._msgid = 0
        self._is_between_messages = True
        self._verdicts: dict[bytes, Answer[Any]] = {}

    def request(self, call: Call[T]) -> bytes:
        """The bytes of a call.

        Raises:
            AgentdError: a parameter cannot be encoded that has an error of its own, as `InvalidLabelError`.
            LocalParamsError: another one cannot, or all of them together make too long a message.
        """
        self._msgid = self._msgid % _MSGIDS + 1  # never 0, which is the agent's: see `_answer`
        try:
            return self._encoder.request(self._msgid, call.method.name, call.params)
        except _ENCODING_ERRORS:
            # Not chained: the packer's own message quotes the value, which may be a token or a passphrase.
            problem = self._unsendable(call)
        raise problem

    def _unsendable(self, call: Call[T]) -> AgentdError:
        for name, value in call.params.items():
            try:
                self._encoder.encoded(value)
            except _ENCODING_ERRORS as error:
                kind = _UNSENDABLE.get(name, LocalParamsError)
                return kind(f"the {name} cannot be sent: {_problem(error, value)}")
        return LocalParamsError(f"{call.method.name}: the parameters are too long together")

    def receive(self, data: bytes, call: Call[T]) -> Answer[T] | None:
        """Take received bytes; returns the answer once it is whole.

        A verdict that came before, byte for byte but for its msgid, is not decoded and checked another time:
        the same bytes mean the same. Where the same tokens are verified again and again that is nearly every
        one.

        Raises:
            ProtocolError: the peer sent something that is no answer; close the connection.
        """
        head = _HEADS[self._msgid]
        is_verdict = call.method is IS_VALID and self._is_between_messages and data.startswith(head)
        if is_verdict and (known := self._verdicts.get(data[len(head) :])) is not None:
            return known
        messages = self._decoder.receive(data)
        self._is_between_messages = not self._decoder.has_partial_message
        for message in messages:
            answer = self._answer(message, call)
            if answer is not None:
                if is_verdict and answer.error is None and len(messages) == 1 and self._is_between_messages:
                    self._keep(data[len(head) :], answer)
                return answer
        if self._decoder.failure is not None:
            raise self._decoder.failure
        return None

    def _keep(self, verdict: bytes, answer: Answer[Any]) -> None:
        if len(self._verdicts) >= _MAX_VERDICTS:
            self._verdicts.clear()
        self._verdicts[verdict] = answer

    def _answer(self, message: Message, call: Call[T]) -> Answer[T] | None:
        """The answer, where this message is one to the present call.

        An error with the msgid 0 is the last that the agent says on a connection: it could not read what it
        got. Whatever it could read was answered before, so the present call was not carried out.
        """
        match message:
            case Response(msgid, error, result) if msgid == self._msgid or (msgid == 0 and error is not None):
                if error is not None:
                    return Answer(None, error_from_wire(error))
                return Answer(call.method.read(result), None)
            case Request() | RefusedRequest():
                raise ProtocolError("expected an answer, got a request")
        return None
