"""Keys for offline checks: read the key file without creating, repairing or cleaning up anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import KeyFileError

from ..crypto import open_sealed
from .argon2 import Cost
from .key_file import leftovers, open_key_file
from .key_ring import STORE, agent_id_of, derived_key
from .memory import SecretKey, SecretMemory
from .passphrase import Passphrase, PassphraseText
from .root_key import KEY_FILE, read_root_key, wrapped_key


class KeyFileForm(NamedTuple):
    """The form of a key file.

    cost: of Argon2id; None if there is no passphrase. leftovers: the names of what interrupted writers left.
    """

    cost: Cost | None
    leftovers: list[str]


def key_file_form(keys_path: Path) -> KeyFileForm | None:
    """The form of the key file in a folder; None if there is none.

    Raises:
        KeyFileError: it is refused; names the reason and the remedy.
        OSError: the folder cannot be read.
    """
    file = keys_path / KEY_FILE
    with open_key_file(file) as found:
        if found is None:
            return None
        cost = wrapped_key(file, found).cost if found.is_protected else None
    return KeyFileForm(cost, [path.name for path in leftovers(file)])


class ReadOnlyKeys:
    """The key of the store's values, for opening only; what `agentd.store.check_offline` takes."""

    def __init__(self, key: SecretKey, agent_id: str) -> None:
        self._key, self.agent_id = key, agent_id

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Like `KeyRing.open`."""
        with self._key as key:
            return open_sealed(key, sealed, context)


@contextmanager
def read_only_keys(keys_path: Path, passphrase: PassphraseText | None = None) -> Iterator[ReadOnlyKeys]:
    """The store's key for the duration of a `with`; with a passphrase, deriving it takes about half a second.

    Raises:
        KeyFileError: there is no key file, or it is refused.
        AgentLockedError: it has a passphrase, and none was given.
        PassphraseError: the passphrase is wrong, or the file has none.
    """
    memory = SecretMemory()
    try:
        root = memory.new_key()
        with Passphrase.copy_of(passphrase) as secret, root as view:
            if not read_root_key(keys_path / KEY_FILE, secret, view):
                raise KeyFileError(f"{keys_path / KEY_FILE} does not exist")
            keys = ReadOnlyKeys(derived_key(memory, view, STORE), agent_id_of(view))
        root.wipe()
        yield keys
    finally:
        memory.wipe()
