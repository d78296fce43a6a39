"""PASERK `k4.local-pw`: a key wrapped with a passphrase (PBKW, version 4 of the PASERK specification).

Argon2id derives a key from the passphrase; BLAKE2b derives two from that, one to encrypt the wrapped key with
XChaCha20 and one for the tag over everything. Pure: salt, nonce and cost are arguments. Keys are kept in
locked memory only, and wiped.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple

from ..crypto import (
    KEY_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    argon2id_into,
    hash_into,
    wipe,
    xchacha20_into,
)
from .argon2 import Cost
from .memory import SecretMemory

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEADER = "k4.local-pw."
_COST = struct.Struct(">QII")
_TAG_BYTES = 32
_DATA = struct.Struct(f">{SALT_BYTES}sQII{NONCE_BYTES}s{KEY_BYTES}s{_TAG_BYTES}s")
TEXT_CHARACTERS = len(HEADER) + _DATA.size // 3 * 4
"""The length of every k4.local-pw; its data is a multiple of three bytes, so base64 needs no padding."""

_FOR_ENCRYPTION, _FOR_AUTHENTICATION = 0xFF, 0xFE


class PaserkError(ValueError):
    """Not a k4.local-pw. The text says why and holds no secret."""


class NotGenuineError(Exception):
    """The passphrase is wrong, or the text was changed; the two cannot be distinguished."""


class Wrapped(NamedTuple):
    """The parts of a k4.local-pw, not authenticated yet."""

    salt: bytes
    cost: Cost
    nonce: bytes
    ciphertext: bytes
    tag: bytes


def parse(text: str) -> Wrapped:
    """The parts of a PASERK string.

    Raises:
        PaserkError: it is not a k4.local-pw in canonical encoding.
        CostError: its cost is out of bounds. Nothing was allocated for it.
    """
    if not text.startswith(HEADER):
        raise PaserkError("it is not a k4.local-pw")
    if len(text) != TEXT_CHARACTERS:
        raise PaserkError(f"a k4.local-pw has {TEXT_CHARACTERS} characters, not {len(text)}")
    body = text[len(HEADER) :]
    try:
        data = urlsafe_b64decode(body)
    except (binascii.Error, ValueError):
        data = b""
    if _encode(data) != body:
        raise PaserkError("it is not in canonical base64url")
    salt, memory_bytes, passes, lanes, nonce, ciphertext, tag = _DATA.unpack(data)
    return Wrapped(salt, Cost(memory_bytes, passes, lanes).check(), nonce, ciphertext, tag)


def wrap(key: Buffer, passphrase: Buffer, *, salt: bytes, nonce: bytes, cost: Cost) -> str:
    """Wrap a key of 32 bytes with 16 random bytes of salt and 24 of nonce; as slow as the cost demands.

    Raises CostError if the cost is out of bounds, ValueError for another length.
    """
    cost.check()
    ciphertext = bytearray(KEY_BYTES)
    with _keys(passphrase, salt, cost) as (encryption_key, authentication_key):
        xchacha20_into(encryption_key, nonce, key, ciphertext)
        authenticated = salt + _COST.pack(*cost) + nonce + ciphertext
        tag = _tag(authentication_key, authenticated)
    return HEADER + _encode(authenticated + tag)


def unwrap_into(wrapped: Wrapped, passphrase: Buffer, target: Buffer) -> None:
    """Unwrap into a writable buffer of 32 bytes; as slow as the cost demands.

    Raises:
        NotGenuineError: the passphrase is wrong, or the text was changed; the target is untouched.
        CostError: the cost is out of bounds.
    """
    if len(memoryview(target)) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    cost = wrapped.cost.check()
    authenticated = wrapped.salt + _COST.pack(*cost) + wrapped.nonce + wrapped.ciphertext
    with _keys(passphrase, wrapped.salt, cost) as (encryption_key, authentication_key):
        if not compare_digest(wrapped.tag, _tag(authentication_key, authenticated)):
            raise NotGenuineError
        xchacha20_into(encryption_key, wrapped.nonce, wrapped.ciphertext, target)


@contextmanager
def _keys(passphrase: Buffer, salt: bytes, cost: Cost) -> Iterator[tuple[memoryview, memoryview]]:
    """The encryption key and the authentication key for the duration of a `with`."""
    buffer = SecretMemory().allocate(1 + 3 * KEY_BYTES)
    hashed, keys = buffer[: 1 + KEY_BYTES], buffer[1 + KEY_BYTES :]
    encryption_key, authentication_key = keys[:KEY_BYTES], keys[KEY_BYTES:]
    try:
        argon2id_into(passphrase, salt, passes=cost.passes, memory_bytes=cost.memory_bytes, target=hashed[1:])
        for domain, key in (_FOR_ENCRYPTION, encryption_key), (_FOR_AUTHENTICATION, authentication_key):
            hashed[0] = domain
            hash_into(hashed, key)
        wipe(hashed)
        yield encryption_key, authentication_key
    finally:
        wipe(buffer)


def _tag(key: memoryview, authenticated: bytes) -> bytes:
    return blake2b(HEADER.encode() + authenticated, key=key, digest_size=_TAG_BYTES).digest()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii")
