"""The parameters of a request: decoded values in, typed ones out. No value is converted to another.

Two kinds of parameters come as text or as bytes, because not every client can choose which of them it sends:
Perl's and PHP's encoders have text alone, and Ruby packs as bytes what it read from a socket or a header. Of
both the bytes are what counts, so both forms mean the same. Everything else has one type, and another is
refused by the parameter's name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from agentd_client.protocol.codec import type_name
from agentd_client.protocol.limits import MAX_PASSPHRASE_BYTES


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The base of every method's parameters; the methods without any use it as it is."""


class ParamsWithSecrets(Params, frozen=True):
    """The base of those of which one is a `TokenText` or `PassphraseBytes`."""


P = TypeVar("P", bound=Params)


class TokenText:
    """A token that a method has to have, as text; whether it is a token at all is for the sessions to say."""

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
    """A passphrase as bytes; text stands for its UTF-8. Nothing is decoded, stripped or normalised."""

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
    """The text that the bytes of a token spell; bytes beyond ASCII become characters that no token has."""
    return token.decode("ascii", "replace")


def presented_token(token: object) -> object:
    """What was handed in as a token, with bytes as the text that they spell. Anything else is no token."""
    return ascii_text(token) if type(token) is bytes else token


Converter = Callable[[Any, type[P]], P]
"""Makes typed parameters of a decoded map; raises `msgspec.ValidationError`, which never quotes a value."""


def converter_of(kind: type[Params]) -> Converter[Any]:
    """The fastest converter that can make parameters of this kind.

    msgspec's own for most: a hook costs it half a microsecond, and a verification has no need of one. No
    parameter may be typed as `bytes`, for which msgspec decodes text from base64, or as any other type that
    it makes of text (date, time, UUID, Decimal).
    """
    return _convert_with_secrets if issubclass(kind, ParamsWithSecrets) else msgspec.convert


def _make(kind: type[Any], given: object) -> Any:
    return kind(given)


_convert_with_secrets: Converter[Any] = partial(msgspec.convert, dec_hook=_make)
