"""The parameters of a request: decoded values in, typed ones out. No value is converted.

Tokens and passphrases may be text or bytes, because not every client can choose which it sends: Perl's and
PHP's encoders only have text, and Ruby packs what it read from a socket or a header as bytes. Both forms mean
the same bytes. Every other parameter has one type; a value of another is refused by the parameter's name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from agentd_client.protocol.codec import type_name
from agentd_client.protocol.limits import MAX_PASSPHRASE_BYTES


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The base of every method's parameters, used as it is by methods without any."""


class ParamsWithSecrets(Params, frozen=True):
    """The base of parameters with a `TokenText` or `PassphraseBytes`."""


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


Converter = Callable[[Any, type[P]], P]
"""Converts a decoded map to typed parameters. Its `msgspec.ValidationError` never quotes a value."""


def converter_of(kind: type[Params]) -> Converter[Any]:
    """The fastest converter for parameters of this kind.

    That is msgspec's own for most: a hook costs half a microsecond, and a verification needs none. No
    parameter may be typed as `bytes`, for which msgspec decodes text from base64, or as any other type that
    it converts text to (date, time, UUID, Decimal).
    """
    return _convert_with_secrets if issubclass(kind, ParamsWithSecrets) else msgspec.convert


def _make(kind: type[Any], given: object) -> Any:
    return kind(given)


_convert_with_secrets: Converter[Any] = partial(msgspec.convert, dec_hook=_make)
