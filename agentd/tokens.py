"""Session tokens: PASETO v4.local ("Version4" of the PASETO specification) and the claims inside.

Pure: keys, nonces and times are arguments. Stricter than the specification in one way: only canonical
base64url is accepted, so that every token has exactly one encoding.
"""

from __future__ import annotations

import re
import struct
from binascii import a2b_base64, b2a_base64
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from .crypto import KEY_BYTES, xchacha20

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEADER = "v4.local."
NONCE_BYTES = 32
_TAG_BYTES = 32
_STREAM_KEY_BYTES = 32
_STREAM_NONCE_BYTES = 24
_STREAM_DOMAIN = b"paseto-encryption-key"
_TAG_DOMAIN = b"paseto-auth-key-for-aead"
# "+", "/" and padding are not allowed in base64url: they become a character that the decoder refuses.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_FROM_STANDARD = bytes.maketrans(b"+/", b"-_")
_length = struct.Struct("<Q").pack

# The footer is read before it is authenticated, so it is matched with a pattern and not parsed as JSON.
_FOOTER = re.compile(rb'\{"kid":"([A-Za-z0-9_-]{22}(?:[A-Za-z0-9_-]{2})?)"\}')
_CACHED_FOOTERS = 8  # all tokens of a key have the same


class TokenError(Exception):
    """Not a token made with this key. The text names the check that failed and holds no secret."""


def pre_authentication_encoding(*pieces: bytes) -> bytes:
    """PAE of the specification's "Common" document: an injective encoding of a list of byte strings."""
    parts = [_length(len(pieces))]
    for piece in pieces:
        parts += (_length(len(piece)), piece)
    return b"".join(parts)


def _encode(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_FROM_STANDARD).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of canonical base64url; `TokenError` for anything else."""
    try:
        standard = text.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
        data = a2b_base64(standard, strict_mode=True)
    except ValueError as error:  # or UnicodeEncodeError
        raise TokenError("not base64url") from error
    # The unused bits of the last character must be zero.
    if b2a_base64(data, newline=False) != standard:
        raise TokenError("not in canonical base64url")
    return data


def _derive(key: Buffer, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    if len(memoryview(key)) != KEY_BYTES:
        raise ValueError(f"a v4.local key has {KEY_BYTES} bytes, not {len(memoryview(key))}")
    size = _STREAM_KEY_BYTES + _STREAM_NONCE_BYTES
    derived = blake2b(_STREAM_DOMAIN + nonce, key=key, digest_size=size).digest()
    tag_key = blake2b(_TAG_DOMAIN + nonce, key=key, digest_size=_TAG_BYTES).digest()
    return derived[:_STREAM_KEY_BYTES], derived[_STREAM_KEY_BYTES:], tag_key


def _tag(tag_key: bytes, nonce: bytes, ciphertext: bytes, footer: bytes, implicit: bytes) -> bytes:
    message = pre_authentication_encoding(HEADER.encode(), nonce, ciphertext, footer, implicit)
    return blake2b(message, key=tag_key, digest_size=_TAG_BYTES).digest()


def encrypt(key: Buffer, payload: bytes, *, nonce: bytes, footer: bytes = b"", implicit: bytes = b"") -> str:
    """Make a token; `nonce` is 32 random bytes, never used before with this key.

    Raises ValueError for a key or nonce of another length than 32 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a v4.local nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    stream_key, stream_nonce, tag_key = _derive(key, nonce)
    ciphertext = xchacha20(stream_key, stream_nonce, payload)
    body = _encode(nonce + ciphertext + _tag(tag_key, nonce, ciphertext, footer, implicit))
    return f"{HEADER}{body}.{_encode(footer)}" if footer else f"{HEADER}{body}"


def split(token: str) -> tuple[str, str]:
    """The body and the footer of a token, still encoded and unchecked."""
    if not token.startswith(HEADER):
        raise TokenError("not a v4.local token")
    body, dot, footer = token[len(HEADER) :].partition(".")
    if dot and not footer:
        raise TokenError("an empty footer")
    return body, footer


def decrypt(key: Buffer, body: bytes, footer: bytes, *, implicit: bytes = b"") -> bytes:
    """The payload of a genuine token, from its decoded parts; `TokenError` for anything else."""
    if len(body) < NONCE_BYTES + _TAG_BYTES:
        raise TokenError("too short")
    nonce, ciphertext, tag = body[:NONCE_BYTES], body[NONCE_BYTES:-_TAG_BYTES], body[-_TAG_BYTES:]
    stream_key, stream_nonce, tag_key = _derive(key, nonce)
    if not compare_digest(tag, _tag(tag_key, nonce, ciphertext, footer, implicit)):
        raise TokenError("not made with this key")
    return xchacha20(stream_key, stream_nonce, ciphertext)


class Claims(NamedTuple):
    """The registered claims of one token, and `gen`, the session's generation.

    Times are in seconds since 1970; `exp` is None for never. The agent decides by the record in the store:
    `iat` and `exp` are there for readers that have only the token.
    """

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
