"""A key ring that really seals, without a key file: keyed BLAKE2b for the tag, SHAKE256 for the stream."""

from __future__ import annotations

import hashlib
import os

from agentd.crypto import SealError

NONCE_BYTES = TAG_BYTES = 16


class FakeKeyRing:
    def __init__(self, key: bytes = b"a root key", agent_id: str = "agent-1") -> None:
        self._key = key
        self.agent_id = agent_id

    def seal(self, value: bytes, context: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        hidden = self._mask(value, nonce)
        return nonce + self._tag(nonce + hidden, context) + hidden

    def open(self, sealed: bytes, context: bytes) -> bytes:
        nonce, tag = sealed[:NONCE_BYTES], sealed[NONCE_BYTES : NONCE_BYTES + TAG_BYTES]
        hidden = sealed[NONCE_BYTES + TAG_BYTES :]
        if self._tag(nonce + hidden, context) != tag:
            raise SealError
        return self._mask(hidden, nonce)

    def _tag(self, data: bytes, context: bytes) -> bytes:
        framed = len(context).to_bytes(8, "big") + context + data
        return hashlib.blake2b(framed, key=self._key, digest_size=TAG_BYTES).digest()

    def _mask(self, data: bytes, nonce: bytes) -> bytes:
        stream = hashlib.shake_256(self._key + nonce).digest(len(data))
        return bytes(left ^ right for left, right in zip(data, stream, strict=True))
