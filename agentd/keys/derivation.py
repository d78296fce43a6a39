"""What is derived from the root key, and for what."""

from __future__ import annotations

from ..crypto import derive_into, keyed_hash
from .memory import SecretKey, SecretMemory

STORE = "store"
"""Seals every value of the store."""

SESSION = "session"
"""Seals session keys, which are then values of the store."""

_AGENT_ID_BYTES = 16


def agent_id_of(root: memoryview) -> str:
    """The agent's public id: a hash that tells nothing of the key."""
    return keyed_hash(root, b"agentd agent id", _AGENT_ID_BYTES).hex()


def derived_key(memory: SecretMemory, root: memoryview, purpose: str) -> SecretKey:
    """The key for a purpose, in locked memory; whoever asked for it wipes it."""
    derived = memory.new_key()
    with derived as view:
        derive_into(root, b"agentd key: " + purpose.encode(), view)
    return derived
