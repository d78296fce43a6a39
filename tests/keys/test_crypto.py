from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nacl.bindings
import pytest

from agentd import crypto

KEY = bytes(range(32))


def test_sealed_values_open_and_no_two_seals_are_alike():
    first, second = crypto.seal(KEY, b"value", b"path"), crypto.seal(KEY, b"value", b"path")
    assert first != second
    assert crypto.open_sealed(KEY, first, b"path") == crypto.open_sealed(KEY, second, b"path") == b"value"


def test_sealing_is_the_xchacha20_poly1305_of_libsodium():
    sealed = crypto.seal(KEY, b"value", b"path")
    opened = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], b"path", sealed[:24], KEY)
    assert opened == b"value"


@pytest.mark.parametrize(
    ("key", "change", "context"),
    [
        (bytes(32), lambda sealed: sealed, b"path"),
        (KEY, lambda sealed: sealed, b"other"),
        (KEY, lambda sealed: sealed[:-1], b"path"),
        (KEY, lambda sealed: sealed[:10], b"path"),
        (KEY, lambda sealed: sealed + b"\0", b"path"),
        (KEY, lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:], b"path"),
        (KEY, lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]), b"path"),
        (KEY, lambda sealed: b"", b"path"),
    ],
)
def test_a_seal_opens_only_whole_under_its_key_and_context(key, change, context):
    with pytest.raises(crypto.SealError):
        crypto.open_sealed(key, change(crypto.seal(KEY, b"value", b"path")), context)


def test_opening_into_a_buffer_of_another_size_is_refused():
    with pytest.raises(crypto.SealError):
        crypto.open_into(KEY, crypto.seal(KEY, b"value", b""), b"", bytearray(4))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_have_32_bytes(size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        crypto.seal(bytes(size), b"", b"")
    with pytest.raises(ValueError, match="32 bytes"):
        crypto.derive_into(bytes(size), b"purpose", bytearray(32))
    with pytest.raises(ValueError, match="32 bytes"):
        crypto.derive_into(KEY, b"purpose", bytearray(size))


def test_derived_keys_depend_on_key_and_purpose_and_on_nothing_else():
    def derived(key: bytes, purpose: bytes) -> bytes:
        target = bytearray(32)
        crypto.derive_into(key, purpose, target)
        return bytes(target)

    stored = "724a0b1629c8aa6da26eb1a805b46e7427e561c5ad25bec3fddea458b400e330"
    assert derived(KEY, b"agentd key: store").hex() == stored, "stores are sealed with it"
    assert len({derived(KEY, b"a"), derived(KEY, b"b"), derived(bytes(32), b"a"), bytes(32)}) == 4


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same_in_two_threads_or_processes():
    sizes = [0, 1, 16, 24, 32, 1023, 1024, 1025, 5000]
    assert [len(crypto.random_bytes(size)) for size in sizes] == sizes
    taken = [crypto.random_bytes(8)]
    with ThreadPoolExecutor(4) as pool:
        taken += pool.map(crypto.random_bytes, [8] * 4000)
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, b"".join(crypto.random_bytes(8) for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    of_the_child = os.read(reading, 800)
    os.close(reading)
    os.close(writing)
    taken += [of_the_child[at : at + 8] for at in range(0, 800, 8)]
    taken += [crypto.random_bytes(8) for _ in range(100)]
    assert len(set(taken)) == len(taken) == 1 + 4000 + 100 + 100


def test_wiping_leaves_zeros():
    buffer = bytearray(b"secret")
    crypto.wipe(buffer)
    assert buffer == bytes(6)


@pytest.mark.parametrize("refuse", [
    lambda key, room: crypto.open_into(key, bytes(72), b"", room),
    lambda key, room: crypto.open_into(key, bytes(71), b"", room),
    lambda key, room: crypto.open_into(key[1:], bytes(72), b"", room),
    lambda key, room: crypto.derive_into(key[1:], b"", room),
    lambda key, room: crypto.derive_into(key, b"", room[1:]),
    lambda key, room: crypto.seal(key[1:], room, b""),
    lambda key, room: crypto.argon2id_into(key, bytes(15), passes=2, memory_bytes=2**20, target=room),
    lambda key, room: crypto.xchacha20_into(key[1:], bytes(24), room, room),
    lambda key, room: crypto.xchacha20_into(key, bytes(24), room, room[1:]),
])  # fmt: skip
def test_objects_kept_alive_by_an_error_can_be_collected(refuse, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises((crypto.SealError, ValueError)) as refused:
        refuse(memoryview(bytearray(32)), memoryview(bytearray(32)))
    refused.value.itself = refused.value
    del refused
    gc.collect()
    assert not complaints


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64, 65, 200])
def test_the_stream_from_buffer_to_buffer_is_the_one_that_tokens_are_made_with(size: int):
    nonce, data, target = bytes(range(24)), bytes(range(size)), bytearray(size)
    crypto.xchacha20_into(KEY, nonce, data, target)
    assert target == crypto.xchacha20(KEY, nonce, data)


def test_the_stream_takes_keys_and_nonces_of_its_sizes_only():
    for key, nonce in ((KEY[1:], bytes(24)), (KEY, bytes(23))):
        with pytest.raises(ValueError, match="32 bytes"):
            crypto.xchacha20_into(key, nonce, b"", bytearray())
        with pytest.raises(ValueError, match="32 bytes"):
            crypto.xchacha20(key, nonce, b"")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_the_stream_is_written_to_a_target_of_its_own_size_only(size: int):
    target = bytearray(size)
    with pytest.raises(ValueError, match="as long as the data"):
        crypto.xchacha20_into(KEY, bytes(24), bytes(32), target)
    assert target == bytes(size)


def test_the_stream_is_the_one_of_the_draft():
    # draft-irtf-cfrg-xchacha-03, A.3.2.1; the first block, which libsodium's AEADs do not expose.
    key, nonce = bytes(range(0x80, 0xA0)), bytes.fromhex("404142434445464748494a4b4c4d4e4f5051525354555658")
    assert crypto.xchacha20(key, nonce, b'The dhole (pronounced "dole") is').hex() == (
        "4559abba4e48c16102e8bb2c05e6947f50a786de162f9b0b7e592a9b53d0d4e9"
    )


def test_the_agent_imports_no_parser_of_c_declarations():
    program = (
        "import sys, agentd.main; print([name for name in ('cffi', 'pycparser') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_a_build_of_pynacl_without_the_stream_is_named():
    with pytest.raises(ImportError, match="does not export libsodium's crypto_stream_nothing"):
        crypto._unbound("crypto_stream_nothing", "int (*)(void)")


def test_the_plain_hash_is_the_blake2b_of_hashlib():
    target = bytearray(32)
    crypto.hash_into(b"text", target)
    assert target == hashlib.blake2b(b"text", digest_size=32).digest()


def test_argon2id_refuses_costs_out_of_libsodiums_bounds():
    for salt, passes, memory_bytes in ((bytes(15), 2, 2**20), (bytes(16), 0, 2**20), (bytes(16), 2, 8191)):
        with pytest.raises(ValueError):
            crypto.argon2id_into(b"", salt, passes=passes, memory_bytes=memory_bytes, target=bytearray(32))
