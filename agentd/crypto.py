"""The one door to libsodium (PyNaCl).

PyNaCl's public calls take and return `bytes`, which cannot be wiped. Where a key is involved this file
speaks to the library through PyNaCl's cffi handle instead, so that a key stays in the buffer it was given.
PyNaCl binds no stream cipher; libsodium's own functions for one are taken from the library that it carries.
Keyed BLAKE2b is hashlib's: byte-identical to libsodium's, and it takes the key as any buffer.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from nacl import _sodium
from nacl._sodium import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16
SEAL_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
SALT_BYTES = 16
_DRAW_BYTES = 1024
_STACK_BYTES = 16 * 1024  # more than any of libsodium's functions here takes; Argon2id takes some four KiB

if lib.sodium_init() < 0:  # pragma: no cover - libsodium fails here only without any source of randomness
    raise RuntimeError("libsodium cannot be initialised")


def _unbound(name: str, signature: str) -> Any:
    """A public function of libsodium's that PyNaCl does not bind."""
    try:
        function = getattr(ctypes.CDLL(_sodium.__file__), name)
    except AttributeError:
        raise ImportError(f"this build of PyNaCl does not export libsodium's {name}") from None
    return ffi.cast(signature, ctypes.cast(function, ctypes.c_void_p).value)


_hchacha20 = _unbound(
    "crypto_core_hchacha20",
    "int (*)(unsigned char *out, const unsigned char *in, const unsigned char *k, const unsigned char *c)",
)
_chacha20_xor_ic = _unbound(
    "crypto_stream_chacha20_xor_ic",
    "int (*)(unsigned char *c, const unsigned char *m, unsigned long long mlen, const unsigned char *n, "
    "uint64_t ic, const unsigned char *k)",
)
_stackzero = _unbound("sodium_stackzero", "void (*)(size_t len)")


class SealError(Exception):
    """A sealed value is not what was sealed under this key and context."""


class TooLittleMemoryError(Exception):
    """The system did not give Argon2id the memory that it was told to use."""


class _Drawn(threading.local):
    """Random bytes that are drawn and not given away yet, of one thread: two threads never get the same."""

    left = b""


_drawn = _Drawn()
# The child of a fork would have its parent's: a nonce that two processes use opens what both have sealed.
os.register_at_fork(after_in_child=lambda: setattr(_drawn, "left", b""))


def random_bytes(size: int) -> bytes:
    """`size` bytes from libsodium's generator, for nonces and ids; a key is drawn with `random_into`.

    They are drawn many at a time: each call of libsodium lets go of the GIL, which a busy thread beside this
    one may keep for some time.
    """
    if len(_drawn.left) < size:
        room = bytearray(max(_DRAW_BYTES, size))
        random_into(room)
        _drawn.left = bytes(room)
    given, _drawn.left = _drawn.left[:size], _drawn.left[size:]
    return given


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


def view_of_memory(address: int, size: int, release: Callable[[], object]) -> memoryview:
    """A writable view of memory that is not Python's; `release` is called once no view of it is left."""
    owner = ffi.gc(ffi.cast("unsigned char *", address), lambda _: release())
    return memoryview(ffi.buffer(owner, size))


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
    secret, message, nonce = _key(key), ffi.from_buffer(plaintext), random_bytes(NONCE_BYTES)
    box = ffi.new("unsigned char[]", len(message) + TAG_BYTES)
    lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        box, ffi.NULL, message, len(message), context, len(context), ffi.NULL, nonce, secret
    )
    return nonce + bytes(ffi.buffer(box))


# A frame that raises must not hold what `ffi.from_buffer` gave: the traceback would keep it, and Python's
# collector cannot take apart a memoryview that cffi still holds. So it is an argument, never a variable, of
# functions that may raise.


def open_sealed(key: Buffer, sealed: bytes, context: bytes) -> bytes:
    """The plaintext of a sealed value; `SealError` where it is not genuine."""
    size = len(sealed) - SEAL_OVERHEAD_BYTES
    if size < 0:
        raise SealError("a sealed value of the wrong length")
    target = ffi.new("unsigned char[]", size)
    if not _is_opened(_key(key), sealed, context, target):
        raise SealError("a sealed value that is not genuine")
    return bytes(ffi.buffer(target))


def open_into(key: Buffer, sealed: bytes, context: bytes, target: Buffer) -> None:
    """The same into a writable buffer of exactly its size."""
    if len(memoryview(target)) != len(sealed) - SEAL_OVERHEAD_BYTES:
        raise SealError("a sealed value of the wrong length")
    if not _is_opened(_key(key), sealed, context, ffi.from_buffer(target, require_writable=True)):
        raise SealError("a sealed value that is not genuine")


def _is_opened(secret: object, sealed: bytes, context: bytes, target: object) -> bool:
    ciphertext = sealed[NONCE_BYTES:]
    done = lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        target, ffi.NULL, ffi.NULL, ciphertext, len(ciphertext), context, len(context), sealed, secret
    )
    return bool(done == 0)


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
    """The XChaCha20 stream from block 0 over `data`; ValueError for a key or nonce of the wrong size."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"XChaCha20 takes {KEY_BYTES} bytes of key and {NONCE_BYTES} of nonce")
    target = ffi.new("unsigned char[]", len(data))
    _xchacha20(key, nonce, data, target)
    return bytes(ffi.buffer(target))


def xchacha20_into(key: Buffer, nonce: bytes, data: Buffer, target: Buffer) -> None:
    """The same from buffer to buffer of the same size; leaves no copy of the key or of what was decrypted."""
    if len(memoryview(key)) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"XChaCha20 takes {KEY_BYTES} bytes of key and {NONCE_BYTES} of nonce")
    if len(memoryview(target)) != len(memoryview(data)):
        raise ValueError("XChaCha20 fills a target as long as the data")
    room = ffi.from_buffer(target, require_writable=True)
    _xchacha20(ffi.from_buffer(key), nonce, ffi.from_buffer(data), room)
    _stackzero(_STACK_BYTES)


def _xchacha20(key: Sized, nonce: bytes, data: Sized, target: object) -> None:
    # As libsodium's `crypto_stream_xchacha20_xor` does it, which PyNaCl's build leaves out: HChaCha20 of the
    # nonce's first 16 bytes makes the key of a ChaCha20 stream under the other 8.
    subkey = ffi.new("unsigned char[]", KEY_BYTES)
    _hchacha20(subkey, nonce, key, ffi.NULL)
    _chacha20_xor_ic(target, data, len(data), nonce[16:], 0, subkey)
    lib.sodium_memzero(subkey, KEY_BYTES)


def hash_into(message: Buffer, target: Buffer) -> None:
    """BLAKE2b without a key, from buffer to buffer; the target's length is the hash's."""
    text, room = ffi.from_buffer(message), ffi.from_buffer(target, require_writable=True)
    lib.crypto_generichash_blake2b_salt_personal(
        room, len(room), text, len(text), ffi.NULL, 0, ffi.NULL, ffi.NULL
    )
    _stackzero(_STACK_BYTES)


def argon2id_into(passphrase: Buffer, salt: bytes, *, passes: int, memory_bytes: int, target: Buffer) -> None:
    """Argon2id (RFC 9106) with one lane, from buffer to buffer; takes long, and does not hold the GIL.

    Raises ValueError for a salt that has not 16 bytes or a cost that libsodium does not know, and
    `TooLittleMemoryError`.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    if passes < lib.crypto_pwhash_argon2id_opslimit_min() or not (
        lib.crypto_pwhash_argon2id_memlimit_min() <= memory_bytes <= lib.crypto_pwhash_argon2id_memlimit_max()
    ):
        raise ValueError("a cost of Argon2id that libsodium does not know")
    if not _stretched(passphrase, salt, passes, memory_bytes, target):
        raise TooLittleMemoryError


def _stretched(passphrase: Buffer, salt: bytes, passes: int, memory_bytes: int, target: Buffer) -> bool:
    secret, room = ffi.from_buffer(passphrase), ffi.from_buffer(target, require_writable=True)
    algorithm = lib.crypto_pwhash_alg_argon2id13()
    done = lib.crypto_pwhash(room, len(room), secret, len(secret), salt, passes, memory_bytes, algorithm)
    _stackzero(_STACK_BYTES)  # where Argon2id leaves what it has made
    return bool(done == 0)
