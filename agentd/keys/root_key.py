"""Reading and writing the root key, with or without a passphrase. Blocking, but for `change_passphrase`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from agentd_client.errors import AgentLockedError, KeyFileError, PassphraseError

from ..crypto import NONCE_BYTES, SALT_BYTES, TooLittleMemoryError, random_bytes, random_into
from . import paserk
from .argon2 import Cost, CostError, calibrated, run_argon2
from .key_file import RESTORE, KeyFile, open_key_file, prepare_folder, remove_leftovers, write_key
from .memory import SecretMemory
from .passphrase import Passphrase, PassphraseText

KEY_FILE = "root.key"


def load_root_key(
    folder: Path,
    passphrase: Passphrase | None,
    target: memoryview,
    *,
    fresh: bool,
    cost: Cost | None,
    logger: logging.Logger,
) -> None:
    """Read the root key into `target`; with `fresh`, or if there is none, generate one and write its file.

    Raises KeyFileError, AgentLockedError and PassphraseError, as `KeyRing.create_key_ring` says.
    """
    file = folder / KEY_FILE
    prepare_folder(folder)
    remove_leftovers(file)
    if not fresh and read_root_key(file, passphrase, target):
        return
    random_into(target)
    if write_root_key(file, passphrase, target, cost=cost, replace=fresh):
        logger.info("made a new root key%s: %s", " with a passphrase" if passphrase else "", file)
    elif not read_root_key(file, passphrase, target):
        raise KeyFileError(f"{file} was created and removed meanwhile; is another agent being set up?")


def read_root_key(file: Path, passphrase: Passphrase | None, target: memoryview) -> bool:
    """Read the root key into `target`; False if there is no file."""
    with open_key_file(file) as found:
        if found is None:
            return False
        if not found.is_protected:
            if passphrase is not None:
                raise PassphraseError(
                    f"{file} has no passphrase; give none, or set one with `agentctl passwd`"
                )
            found.read_key(target)
            return True
        wrapped = wrapped_key(file, found)
    if passphrase is None:
        raise AgentLockedError(f"{file} is locked with a passphrase; unlock it with `agentctl unlock`")
    for candidate in passphrase.meanings:
        try:
            paserk.unwrap_into(wrapped, candidate, target)
            return True
        except paserk.NotGenuineError:
            continue
        except TooLittleMemoryError as error:
            raise _too_little_memory(file, wrapped.cost) from error
    raise PassphraseError("that is not the passphrase of the key file")


def write_root_key(
    file: Path, passphrase: Passphrase | None, key: memoryview, *, cost: Cost | None, replace: bool
) -> bool:
    """Write the root key, wrapped if there is a passphrase; False if a file exists, unless `replace`."""
    if passphrase is None:
        return write_key(file, key, replace=replace)
    passphrase.require_settable()
    cost = cost or calibrated()
    salt, nonce = random_bytes(SALT_BYTES), random_bytes(NONCE_BYTES)
    try:
        text = paserk.wrap(key, passphrase.view, salt=salt, nonce=nonce, cost=cost)
    except TooLittleMemoryError as error:
        raise _too_little_memory(file, cost) from error
    return write_key(file, memoryview(text.encode("ascii") + b"\n"), replace=replace)


def wrapped_key(file: Path, found: KeyFile) -> paserk.Wrapped:
    """The wrapped key of a protected file; KeyFileError if it is malformed or its cost out of bounds."""
    try:
        return paserk.parse(found.read_text())
    except (paserk.PaserkError, CostError) as error:
        raise KeyFileError(f"{file} is refused: {error}; {RESTORE}") from error


def _missing(file: Path) -> KeyFileError:
    return KeyFileError(f"{file} does not exist; create it with `agentd init`")


def _too_little_memory(file: Path, cost: Cost) -> KeyFileError:
    return KeyFileError(
        f"{file} cannot be used: the system refuses the {cost.memory_bytes >> 20} MiB that Argon2id needs"
    )


async def change_passphrase(
    keys_path: str | os.PathLike[str],
    old: PassphraseText | None,
    new: PassphraseText | None,
    *,
    cost: Cost | None = None,
    logger: logging.Logger | None = None,
) -> None:
    """Set, change or remove the passphrase of a key file; the key stays, and with it the store.

    Interrupted at any point, it leaves a file that the old or the new passphrase opens. A running key ring is
    not affected. The old file's blocks are not overwritten: a copy of it, or the disk, may still hold it.

    Args:
        keys_path: the folder of the key file.
        old: the current passphrase; None for a raw key.
        new: the new one; None for a raw key.
        cost: of Argon2id; None measures it (`calibrated`).
        logger: says what was done; never a key or a passphrase.

    Raises:
        KeyFileError: there is no key file, or it is refused, or it could not be written. If only syncing its
            folder failed, the new passphrase is already the one that opens it.
        AgentLockedError: the file has a passphrase, and `old` is None.
        PassphraseError: `old` is wrong, or was given for a raw key; or `new` is not a valid passphrase.
    """
    with Passphrase.copy_of(old) as old_copy, Passphrase.copy_of(new) as new_copy:
        await run_argon2(_rewrite, Path(keys_path), old_copy, new_copy, cost)
    done = "removed" if new is None else "set" if old is None else "changed"
    (logger or logging.getLogger("agentd.keys")).info("passphrase %s: %s", done, Path(keys_path) / KEY_FILE)


def _rewrite(folder: Path, old: Passphrase | None, new: Passphrase | None, cost: Cost | None) -> None:
    file = folder / KEY_FILE
    if not folder.exists():
        raise _missing(file)
    prepare_folder(folder)
    remove_leftovers(file)
    root = SecretMemory().new_key()
    try:
        with root as view:
            if not read_root_key(file, old, view):
                raise _missing(file)
            write_root_key(file, new, view, cost=cost, replace=True)
    finally:
        root.wipe()
