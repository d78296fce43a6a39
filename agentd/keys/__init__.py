"""The key ring: the root key, the keys derived from it, and the memory that holds them."""

from .argon2 import Cost
from .key_file import KEY_FILE, KeyFileForm, change_passphrase, check_passphrase, is_protected, key_file_form
from .key_ring import KeyRing, read_only_keys
from .memory import SecretKey, SecretMemory, new_pages
from .passphrase import Passphrase, PassphraseText
from .throttle import PassphraseThrottle

__all__ = [
    "KEY_FILE",
    "Cost",
    "KeyFileForm",
    "KeyRing",
    "Passphrase",
    "PassphraseText",
    "PassphraseThrottle",
    "SecretKey",
    "SecretMemory",
    "change_passphrase",
    "check_passphrase",
    "is_protected",
    "key_file_form",
    "new_pages",
    "read_only_keys",
]
