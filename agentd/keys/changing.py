"""Setting, changing and taking away the passphrase of a root key; the key stays, and with it the store."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from agentd_client.errors import KeyFileError

from .argon2 import Cost
from .key_file import prepare_folder, remove_leftovers
from .memory import SecretMemory
from .passphrase import Passphrase, PassphraseText
from .root_key import KEY_FILE, read_root_key, write_root_key
from .turns import in_argon2_thread


async def change_passphrase(
    keys_path: str | os.PathLike[str],
    old: PassphraseText | None,
    new: PassphraseText | None,
    *,
    cost: Cost | None = None,
    logger: logging.Logger | None = None,
) -> None:
    """Open the key file with the old passphrase and write it anew with the new one.

    An interruption at any point leaves a file that the old or the new passphrase opens. A key ring that runs
    is not touched. The old file's blocks are not overwritten: a copy of it, or the disk, may still hold it.

    Args:
        keys_path: the folder of the key file.
        old: what it is locked with; None where it is a raw key.
        new: what it is to be locked with; None for a raw key.
        cost: of Argon2id; None measures it (`calibrated`).
        logger: where to say what was done; never a key or a passphrase.

    Raises:
        KeyFileError: there is no key file, or it is refused, or it could not be written; where it was its
            folder that could not be synced, the new passphrase already is the one that opens it.
        AgentLockedError: it is locked, and no old passphrase was given.
        PassphraseError: the old one is wrong, or was given for a raw key; or the new one is none.
    """
    opening = Passphrase.taken(old)
    try:
        locking = Passphrase.taken(new)
        try:
            await in_argon2_thread(_change, Path(keys_path), opening, locking, cost)
        finally:
            if locking is not None:
                locking.wipe()
    finally:
        if opening is not None:
            opening.wipe()
    what = "taken away" if new is None else "set" if old is None else "changed"
    (logger or logging.getLogger("agentd.keys")).info("passphrase %s: %s", what, Path(keys_path) / KEY_FILE)


def _change(folder: Path, old: Passphrase | None, new: Passphrase | None, cost: Cost | None) -> None:
    file = folder / KEY_FILE
    if not folder.exists():
        raise KeyFileError(f"{file} is not there; make it with `agentd init`")
    prepare_folder(folder)
    remove_leftovers(file)
    root = SecretMemory().new_key()
    try:
        with root as view:
            if not read_root_key(file, old, view):
                raise KeyFileError(f"{file} is not there; make it with `agentd init`")
            write_root_key(file, new, view, cost=cost, replace=True)
    finally:
        root.wipe()
