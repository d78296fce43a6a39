"""The keys for whoever only looks: a key file is read and never made, mended or cleared of leftovers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import KeyFileError

from ..crypto import open_sealed
from . import key_file
from .argon2 import Cost
from .derivation import STORE, agent_id_of, derived_key
from .memory import SecretKey, SecretMemory
from .passphrase import Passphrase, PassphraseText
from .root_key import KEY_FILE, read_root_key, wrapped_key


class KeyFileForm(NamedTuple):
    """What a key file is: cost, of Argon2id, is None where no passphrase protects it."""

    cost: Cost | None
    leftovers: list[str]
    """Names of what interrupted writers left beside it."""


def key_file_form(keys_path: Path) -> KeyFileForm | None:
    """The form of the key file in a folder; None where there is none.

    Raises:
        KeyFileError: it is refused; says the reason and the remedy.
        OSError: the folder cannot be read.
    """
    file = keys_path / KEY_FILE
    with key_file.opened(file) as found:
        if found is None:
            return None
        cost = wrapped_key(file, found).cost if found.is_protected else None
    return KeyFileForm(cost, [path.name for path in key_file.leftovers(file)])


class StoreOpener:
    """Opens what a key ring sealed into the store, and cannot seal; what `agentd.store.examine` takes."""

    def __init__(self, key: SecretKey, agent_id: str) -> None:
        self._key, self.agent_id = key, agent_id

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """As `KeyRing.open`."""
        with self._key as key:
            return open_sealed(key, sealed, context)

    def seal(self, value: bytes, context: bytes) -> bytes:
        """Refused: whoever only looks has nothing to write."""
        raise NotImplementedError


@contextmanager
def store_opener(keys_path: Path, passphrase: PassphraseText | None = None) -> Iterator[StoreOpener]:
    """The store's key for the time of a `with`; with a passphrase this takes about half a second.

    Raises:
        KeyFileError: there is no key file, or it is refused.
        AgentLockedError: it is locked, and no passphrase was given.
        PassphraseError: it is locked with another one, or with none.
    """
    memory = SecretMemory()
    secret = Passphrase.taken(passphrase)
    root = memory.new_key()
    key = None
    try:
        with root as view:
            if not read_root_key(keys_path / KEY_FILE, secret, view):
                raise KeyFileError(f"{keys_path / KEY_FILE} is not there")
            agent_id, key = agent_id_of(view), derived_key(memory, view, STORE)
        root.wipe()
        yield StoreOpener(key, agent_id)
    finally:
        root.wipe()
        if key is not None:
            key.wipe()
        if secret is not None:
            secret.wipe()
