"""The key ring: the root key, the keys derived from it, and the memory that they live in."""

from .key_ring import KEY_FILE, KeyRing
from .memory import SecretKey, SecretMemory

__all__ = ["KEY_FILE", "KeyRing", "SecretKey", "SecretMemory"]
