"""The key ring: the root key, the keys derived from it, and the memory that they live in."""

from .argon2 import Cost
from .changing import change_passphrase
from .key_file import is_protected
from .key_ring import KeyRing
from .looking import KeyFileForm, key_file_form, store_opener
from .memory import SecretKey, SecretMemory
from .pages import new_pages
from .passphrase import Passphrase, PassphraseText
from .root_key import KEY_FILE
from .unlocking import UnlockQueue

__all__ = [
    "KEY_FILE",
    "Cost",
    "KeyFileForm",
    "KeyRing",
    "Passphrase",
    "PassphraseText",
    "SecretKey",
    "SecretMemory",
    "UnlockQueue",
    "change_passphrase",
    "is_protected",
    "key_file_form",
    "new_pages",
    "store_opener",
]
