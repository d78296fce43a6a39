"""The claims of a session token, in JSON as the PASETO specification's "Registered Claims".

The agent decides by the record in the store; `iat` and `exp` are there for readers that have only the token.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from .paseto import TokenError, decode, decrypt, encrypt, split

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The footer is read before it is authenticated, so it is matched with a pattern and not parsed as JSON.
_FOOTER = re.compile(rb'\{"kid":"([A-Za-z0-9_-]{22}(?:[A-Za-z0-9_-]{2})?)"\}')
_CACHED_FOOTERS = 8  # all tokens of a key have the same


class Claims(NamedTuple):
    """The claims of one token; times in seconds since 1970, `exp` None for never."""

    iss: str
    sub: str
    jti: str
    iat: float
    exp: float | None
    gen: int


class SealedToken(NamedTuple):
    """The parts of a token, not authenticated yet; `key_id` is of the key that it claims to be made with."""

    key_id: str
    footer: bytes
    body: bytes


class _Payload(msgspec.Struct):
    """The claims as encoded in JSON."""

    iss: str
    sub: str
    jti: str
    iat: Annotated[datetime, msgspec.Meta(tz=True)]
    gen: int
    exp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_decode_payload = msgspec.json.Decoder(_Payload).decode


def _to_rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def footer_for(key_id: str) -> bytes:
    """The footer of a token made with this key."""
    return b'{"kid":"%s"}' % key_id.encode("ascii")


def seal_token(key: Buffer, key_id: str, claims: Claims, *, implicit: bytes, nonce: bytes) -> str:
    """Make a token with these claims."""
    payload: dict[str, object] = {
        "iss": claims.iss,
        "sub": claims.sub,
        "jti": claims.jti,
        "iat": _to_rfc3339(claims.iat),
    }
    if claims.exp is not None:
        payload["exp"] = _to_rfc3339(claims.exp)
    payload["gen"] = claims.gen
    text = msgspec.json.encode(payload)
    return encrypt(key, text, nonce=nonce, footer=footer_for(key_id), implicit=implicit)


def parse_token(token: str) -> SealedToken:
    """The parts of a token; `TokenError` if it is malformed or names no key."""
    body, footer = split(token)
    return SealedToken(*_decoded_footer(footer), decode(body))


@lru_cache(_CACHED_FOOTERS)
def _decoded_footer(text: str) -> tuple[str, bytes]:
    footer = decode(text)
    found = _FOOTER.fullmatch(footer)
    if found is None:
        raise TokenError("no key id in the footer")
    return found[1].decode("ascii"), footer


def open_token(key: Buffer, token: SealedToken, *, implicit: bytes) -> Claims:
    """The claims of a genuine token; `TokenError` for anything else."""
    text = decrypt(key, token.body, token.footer, implicit=implicit)
    try:
        found = _decode_payload(text)
    except ValueError as error:  # msgspec's own, and UnicodeDecodeError
        raise TokenError("claims of an unknown form") from error
    exp = None if found.exp is None else found.exp.timestamp()
    return Claims(found.iss, found.sub, found.jti, found.iat.timestamp(), exp, found.gen)
