"""From a key file to the root key and back, with a passphrase or without. Blocking: call it in a thread."""

from __future__ import annotations

import logging
from pathlib import Path

from agentd_client.errors import AgentLockedError, KeyFileError, PassphraseError

from ..crypto import NONCE_BYTES, SALT_BYTES, TooLittleMemoryError, random_bytes, random_into
from . import paserk
from .argon2 import Cost, CostError, calibrated
from .key_file import RESTORE, KeyFile, line_of, opened, prepare_folder, remove_leftovers, write_key
from .passphrase import Passphrase

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
    """Read the root key into `target`; draw it and make its file where there is none, or for `fresh`.

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
        raise KeyFileError(f"{file} appeared and vanished again; is another agent being set up?")


def read_root_key(file: Path, passphrase: Passphrase | None, target: memoryview) -> bool:
    """Read the root key into `target`; False where there is no file."""
    with opened(file) as found:
        if found is None:
            return False
        if not found.is_protected:
            if passphrase is not None:
                raise PassphraseError(
                    f"{file} is not locked with a passphrase; give none, or set one with `agentctl passwd`"
                )
            found.read_key(target)
            return True
        wrapped = wrapped_key(file, found)
    if passphrase is None:
        raise AgentLockedError(f"{file} is locked with a passphrase; unlock it with `agentctl unlock`")
    for meant in passphrase.meanings:
        try:
            paserk.unwrap_into(wrapped, meant, target)
            return True
        except paserk.NotGenuineError:
            continue
        except TooLittleMemoryError as error:
            raise _too_little_memory(file, wrapped.cost) from error
    raise PassphraseError("that is not the passphrase of the key file")


def write_root_key(
    file: Path, passphrase: Passphrase | None, key: memoryview, *, cost: Cost | None, replace: bool
) -> bool:
    """Write the root key, wrapped where there is a passphrase; without `replace`, False where a file is."""
    if passphrase is None:
        return write_key(file, key, replace=replace)
    passphrase.require_settable()
    cost = cost or calibrated()
    salt, nonce = random_bytes(SALT_BYTES), random_bytes(NONCE_BYTES)
    try:
        text = paserk.wrap(key, passphrase.view, salt=salt, nonce=nonce, cost=cost)
    except TooLittleMemoryError as error:
        raise _too_little_memory(file, cost) from error
    return write_key(file, line_of(text), replace=replace)


def wrapped_key(file: Path, found: KeyFile) -> paserk.Wrapped:
    """What a protected key file holds; KeyFileError where it is of another form or its cost out of bounds."""
    try:
        return paserk.parse(found.read_text())
    except (paserk.PaserkError, CostError) as error:
        raise KeyFileError(f"{file} is refused: {error}; {RESTORE}") from error


def _too_little_memory(file: Path, cost: Cost) -> KeyFileError:
    return KeyFileError(
        f"{file} cannot be used: the system does not give {cost.memory_bytes >> 20} MiB of memory"
    )
