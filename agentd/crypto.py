"""All use of libsodium, through PyNaCl.

PyNaCl's public functions take and return `bytes`, which cannot be wiped. Functions here that handle keys
therefore call libsodium through PyNaCl's cffi handle, so that a key stays in its buffer. PyNaCl binds no
stream cipher; libsodium's own functions for one are looked up in the library that PyNaCl ships.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Sized
from functools import partial
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
_POOL_BYTES = 1024
_STACK_BYTES = 16 * 1024  # more than any function of libsodium uses here; Argon2id uses some four KiB

if lib.sodium_init() < 0:  # pragma: no cover - libsodium fails here only without any source of randomness
    raise RuntimeError("libsodium cannot be initialised")


def _unbound(name: str, signature: str) -> Any:
    """A public function of libsodium that PyNaCl does not bind."""
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
_writable = partial(ffi.from_buffer, require_writable=True)


class SealError(Exception):
    """A value was not sealed under this key and context."""


class TooLittleMemoryError(Exception):
    """The system refused the memory that Argon2id needs."""


class _RandomPool(threading.local):
    """Random bytes that were not handed out yet; one pool per thread, so no two threads get the same."""

    left = b""


_pool = _RandomPool()
# The child of a fork must not reuse its parent's: two processes with the same nonce break both their seals.
os.register_at_fork(after_in_child=lambda: setattr(_pool, "left", b""))


def random_bytes(size: int) -> bytes:
    """`size` bytes from libsodium's generator, for nonces and ids; generate keys with `random_into`.

    They are generated many at a time, because each call of libsodium releases the GIL, and a busy thread may
    then keep it for some time.
    """
    if len(_pool.left) < size:
        buffer = bytearray(max(_POOL_BYTES, size))
        random_into(buffer)
        _pool.left = bytes(buffer)
    taken, _pool.left = _pool.left[:size], _pool.left[size:]
    return taken


def random_into(buffer: Buffer) -> None:
    """Fill a writable buffer from libsodium's generator; no other object ever holds the bytes."""
    target = _writable(buffer)
    lib.randombytes(target, len(target))


def wipe(buffer: Buffer) -> None:
    """Zero a writable buffer in a way that no compiler optimises away (`sodium_memzero`)."""
    target = _writable(buffer)
    lib.sodium_memzero(target, len(target))


def lock_memory(buffer: Buffer) -> bool:
    """Keep a buffer's pages out of swap and core dumps (`sodium_mlock`); False if the limit is too low."""
    target = _writable(buffer)
    return bool(lib.sodium_mlock(target, len(target)) == 0)


def view_of_memory(address: int, size: int, release: Callable[[], object]) -> memoryview:
    """A writable view of memory that Python does not own; calls `release` once no view of it is left."""
    owner = ffi.gc(ffi.cast("unsigned char *", address), lambda _: release())
    return memoryview(ffi.buffer(owner, size))


def _key(key: Buffer) -> object:
    size = len(memoryview(key))
    if size != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {size}")
    return ffi.from_buffer(key)


def seal(key: Buffer, plaintext: Buffer, context: bytes) -> bytes:
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random nonce: nonce, ciphertext, tag.

    `context` is the associated data: authenticated, not stored. Raises ValueError for a key of another length
    than 32 bytes.
    """
    secret, message, nonce = _key(key), ffi.from_buffer(plaintext), random_bytes(NONCE_BYTES)
    box = ffi.new("unsigned char[]", len(message) + TAG_BYTES)
    lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        box, ffi.NULL, message, len(message), context, len(context), ffi.NULL, nonce, secret
    )
    return nonce + bytes(ffi.buffer(box))


# A frame that raises must not hold the result of `ffi.from_buffer`: the traceback would keep it alive, and
# Python's collector cannot release a memoryview that cffi still holds. In functions that may raise, it is
# therefore passed on as an argument and never kept in a variable.


def open_sealed(key: Buffer, sealed: bytes, context: bytes) -> bytes:
    """The plaintext of a sealed value; `SealError` if it is not genuine."""
    target = bytearray(max(0, len(sealed) - SEAL_OVERHEAD_BYTES))
    open_into(key, sealed, context, target)
    return bytes(target)


def open_into(key: Buffer, sealed: bytes, context: bytes, target: Buffer) -> None:
    """Like `open_sealed`, into a writable buffer of exactly the plaintext's size."""
    if len(memoryview(target)) != len(sealed) - SEAL_OVERHEAD_BYTES:
        raise SealError("a sealed value of the wrong length")
    box = sealed[NONCE_BYTES:]
    done = lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        _writable(target), ffi.NULL, ffi.NULL, box, len(box), context, len(context), sealed, _key(key)
    )
    if done != 0:
        raise SealError("a sealed value that is not genuine")


def xchacha20(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """The XChaCha20 stream from block 0 over `data`; ValueError for a key or nonce of the wrong size."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"XChaCha20 takes {KEY_BYTES} bytes of key and {NONCE_BYTES} of nonce")
    target = ffi.new("unsigned char[]", len(data))
    _xchacha20(key, nonce, data, target)
    return bytes(ffi.buffer(target))


def xchacha20_into(key: Buffer, nonce: bytes, data: Buffer, target: Buffer, *, block: int = 0) -> None:
    """Like `xchacha20`, from a block on, from buffer to buffer; leaves no copy of key or plaintext."""
    if len(memoryview(key)) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"XChaCha20 takes {KEY_BYTES} bytes of key and {NONCE_BYTES} of nonce")
    if len(memoryview(target)) != len(memoryview(data)):
        raise ValueError(f"XChaCha20 fills a target as long as the data, {len(memoryview(data))} bytes")
    output = _writable(target)
    _xchacha20(ffi.from_buffer(key), nonce, ffi.from_buffer(data), output, block)
    _stackzero(_STACK_BYTES)


def _xchacha20(key: Sized, nonce: bytes, data: Sized, target: object, block: int = 0) -> None:
    # The same as libsodium's `crypto_stream_xchacha20_xor`, which PyNaCl's build leaves out: HChaCha20 of the
    # nonce's first 16 bytes is the key of a ChaCha20 stream with the other 8 as its nonce.
    subkey = ffi.new("unsigned char[]", KEY_BYTES)
    _hchacha20(subkey, nonce, key, ffi.NULL)
    _chacha20_xor_ic(target, data, len(data), nonce[16:], block, subkey)
    lib.sodium_memzero(subkey, KEY_BYTES)


def derive_into(key: Buffer, purpose: bytes, target: Buffer) -> None:
    """Derive a key of 32 bytes for a purpose, from buffer to buffer.

    XChaCha20 as a pseudorandom function: block 1 of its stream at a nonce that is the hash of the purpose. A
    keyed hash would be simpler, but hashlib returns only `bytes`.
    """
    nonce = hashlib.blake2b(purpose, digest_size=NONCE_BYTES).digest()
    xchacha20_into(key, nonce, bytes(KEY_BYTES), target, block=1)


def hash_into(message: Buffer, target: Buffer) -> None:
    """BLAKE2b without a key, from buffer to buffer; the hash is as long as the target."""
    text, digest = ffi.from_buffer(message), _writable(target)
    lib.crypto_generichash_blake2b_salt_personal(
        digest, len(digest), text, len(text), ffi.NULL, 0, ffi.NULL, ffi.NULL
    )
    _stackzero(_STACK_BYTES)


def argon2id_into(passphrase: Buffer, salt: bytes, *, passes: int, memory_bytes: int, target: Buffer) -> None:
    """Argon2id (RFC 9106) with one lane, from buffer to buffer; slow, without holding the GIL.

    Raises ValueError for a salt of another length than 16 bytes or a cost out of libsodium's bounds, and
    `TooLittleMemoryError`.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    if passes < lib.crypto_pwhash_argon2id_opslimit_min() or not (
        lib.crypto_pwhash_argon2id_memlimit_min() <= memory_bytes <= lib.crypto_pwhash_argon2id_memlimit_max()
    ):
        raise ValueError("a cost of Argon2id out of libsodium's bounds")
    size, length = len(memoryview(target)), len(memoryview(passphrase))
    algorithm = lib.crypto_pwhash_alg_argon2id13()
    done = lib.crypto_pwhash(
        _writable(target), size, ffi.from_buffer(passphrase), length, salt, passes, memory_bytes, algorithm
    )
    _stackzero(_STACK_BYTES)  # Argon2id leaves intermediate values there
    if done != 0:
        raise TooLittleMemoryError
