"""The one door to libsodium (PyNaCl) and to the XChaCha20 source (pycryptodomex).

PyNaCl's public calls take and return `bytes`, which cannot be wiped. Where a key is involved this file
speaks to the library through PyNaCl's cffi handle instead, so that a key stays in the buffer it was given.
Keyed BLAKE2b is hashlib's: byte-identical to libsodium's, and it takes the key as any buffer.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from Cryptodome.Cipher import ChaCha20
from nacl._sodium import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16
SEAL_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES

if lib.sodium_init() < 0:  # pragma: no cover - libsodium fails here only without any source of randomness
    raise RuntimeError("libsodium cannot be initialised")


class SealError(Exception):
    """A sealed value is not what was sealed under this key and context."""


def random_bytes(size: int) -> bytes:
    """`size` bytes from libsodium's generator."""
    drawn = bytearray(size)
    random_into(drawn)
    return bytes(drawn)


def random_into(buffer: Buffer) -> None:
    """Fill a writable buffer from libsodium's generator; nothing else ever holds the bytes."""
    target = ffi.from_buffer(buffer, require_writable=True)
    lib.randombytes(target, len(target))


def wipe(buffer: Buffer) -> None:
    """Overwrite a writable buffer with zeros, in a way no compiler leaves out (`sodium_memzero`)."""
    target = ffi.from_buffer(buffer, require_writable=True)
    lib.sodium_memzero(target, len(target))


def lock_memory(buffer: Buffer) -> bool:
    """Keep a buffer's pages out of swap and core dumps (`sodium_mlock`); False where the limit is too low."""
    target = ffi.from_buffer(buffer, require_writable=True)
    return bool(lib.sodium_mlock(target, len(target)) == 0)


def equal(left: bytes, right: bytes) -> bool:
    """Compare in a time that depends on the length only."""
    return len(left) == len(right) and lib.sodium_memcmp(left, right, len(left)) == 0


def _key(key: Buffer) -> object:
    size = len(memoryview(key))
    if size != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {size}")
    return ffi.from_buffer(key)


def seal(key: Buffer, plaintext: Buffer, context: bytes) -> bytes:
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random nonce: nonce, ciphertext, tag.

    `context` is authenticated and not stored. Raises ValueError for a key that has not 32 bytes.
    """
    secret, message = _key(key), ffi.from_buffer(plaintext)
    sealed = bytearray(len(message) + SEAL_OVERHEAD_BYTES)
    target = ffi.from_buffer(sealed, require_writable=True)
    lib.randombytes(target, NONCE_BYTES)
    lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        target + NONCE_BYTES, ffi.NULL, message, len(message), context, len(context), ffi.NULL, target, secret
    )
    return bytes(sealed)


def open_into(key: Buffer, sealed: bytes, context: bytes, target: Buffer) -> None:
    """Open a sealed value into a writable buffer of exactly its size; `SealError` where it is not genuine."""
    if len(memoryview(target)) != len(sealed) - SEAL_OVERHEAD_BYTES:
        raise SealError("a sealed value of the wrong length")
    if not _opened(key, sealed, context, target):
        raise SealError("a sealed value that is not genuine")


def _opened(key: Buffer, sealed: bytes, context: bytes, target: Buffer) -> bool:
    # Raises nothing once it holds buffers: a traceback would keep them, and Python's collector cannot take
    # apart a memoryview that cffi still holds; it says so on standard error.
    secret, box = _key(key), ffi.from_buffer(sealed)
    room = ffi.from_buffer(target, require_writable=True)
    done = lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        room,
        ffi.NULL,
        ffi.NULL,
        box + NONCE_BYTES,
        len(box) - NONCE_BYTES,
        context,
        len(context),
        box,
        secret,
    )
    return bool(done == 0)


def open_sealed(key: Buffer, sealed: bytes, context: bytes) -> bytes:
    """The plaintext of a sealed value; `SealError` where it is not genuine."""
    plaintext = bytearray(max(0, len(sealed) - SEAL_OVERHEAD_BYTES))
    open_into(key, sealed, context, plaintext)
    return bytes(plaintext)


def derive_into(key: Buffer, purpose: bytes, target: Buffer) -> None:
    """Derive a key of 32 bytes for a purpose, from buffer to buffer.

    XChaCha20 as a pseudorandom function: the key stream at a nonce that is the hash of the purpose. Chosen
    over a keyed hash because hashlib can only answer with `bytes`.
    """
    size = len(memoryview(target))
    if size != KEY_BYTES:
        raise ValueError(f"a derived key has {KEY_BYTES} bytes, not {size}")
    secret, room = _key(key), ffi.from_buffer(target, require_writable=True)
    nonce = hashlib.blake2b(purpose, digest_size=NONCE_BYTES).digest()
    stream = ffi.new("unsigned char[]", KEY_BYTES + TAG_BYTES)
    try:
        lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
            stream, ffi.NULL, bytes(KEY_BYTES), KEY_BYTES, ffi.NULL, 0, ffi.NULL, nonce, secret
        )
        ffi.memmove(room, stream, KEY_BYTES)
    finally:
        lib.sodium_memzero(stream, KEY_BYTES + TAG_BYTES)


def keyed_hash(key: Buffer, message: Buffer, size: int) -> bytes:
    """BLAKE2b with a key (RFC 7693), `size` bytes of it."""
    return hashlib.blake2b(message, key=key, digest_size=size).digest()


def xchacha20(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """The XChaCha20 stream over `data`, from block 0; `nonce` has 24 bytes."""
    return bytes(ChaCha20.new(key=key, nonce=nonce).encrypt(data))
