"""The root key's file, mode 0600, in a folder of mode 0700. Blocking, but for `change_passphrase`.

It has one of two forms, distinguished by size:

    32 raw bytes                    the key itself
    one line, `k4.local-pw.…`       the key wrapped with a passphrase (`paserk.py`), and a line feed

The key is read into locked memory and written from it, and never becomes a Python object. A new file is
written as a temporary in the same folder, synced, then linked or renamed into place, and the folder synced:
an interruption leaves the old file or the new one. Writers hold a lock on the folder, so a temporary found
under the lock was left by an interrupted writer.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import AgentLockedError, KeyFileError, PassphraseError
from agentd_client.file_locks import lock_within
from agentd_client.private import (
    FILE_MODE,
    READ_FLAGS,
    Fault,
    folders_fault,
    make_folders,
    private_fault,
    sync_folder,
)

from ..crypto import KEY_BYTES, NONCE_BYTES, SALT_BYTES, TooLittleMemoryError, random_bytes, random_into
from . import paserk
from .argon2 import Cost, CostError, calibrated, run_argon2
from .memory import SecretMemory
from .passphrase import Passphrase, PassphraseText

KEY_FILE = "root.key"

LOCK_SECONDS = 2.0
"""How long to wait for other writers, each of which takes one sync. A process that never gives the lock back
must not keep an agent that waits here from being locked."""

_LINE_BYTES = paserk.TEXT_CHARACTERS + 1
_RANDOM_BYTES = 8  # in the names of temporaries


def _rejected(path: Path, reason: object) -> KeyFileError:
    return KeyFileError(
        f"{path} is refused: {reason}; "
        "restore the key file from a backup, or start over with `agentd init --fresh`"
    )


def _too_little_memory(path: Path, cost: Cost) -> KeyFileError:
    return KeyFileError(
        f"{path} cannot be used: the system refuses the {cost.memory_bytes >> 20} MiB that Argon2id needs"
    )


def _raise_fault(fault: Fault | None) -> None:
    if fault is not None:
        raise KeyFileError(str(fault))


@contextmanager
def _os_errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeyFileError(f"{path} cannot be used: {error.strerror}") from error


# --- reading ---


class _OpenKeyFile:
    """An open key file of one of the two forms, readable by its owner only."""

    def __init__(self, path: Path, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _rejected(path, "it is not a regular file")
        _raise_fault(private_fault(path, found))
        if found.st_size not in (KEY_BYTES, _LINE_BYTES):
            raise _rejected(
                path, f"it has {found.st_size} bytes; a key has {KEY_BYTES}, a protected one {_LINE_BYTES}"
            )
        self._path, self._descriptor = path, descriptor
        self.is_protected = found.st_size == _LINE_BYTES

    def read_key(self, target: memoryview) -> None:
        """Read a raw key into locked memory."""
        if os.preadv(self._descriptor, [target], 0) != KEY_BYTES:
            raise _rejected(self._path, "it became shorter while it was read")

    def read_wrapped(self) -> paserk.Wrapped:
        """Read a protected key; its cost is within bounds, nothing else is authenticated yet."""
        line = os.pread(self._descriptor, _LINE_BYTES, 0)
        if not line.startswith(paserk.HEADER.encode()) or not line.endswith(b"\n") or not line.isascii():
            raise _rejected(self._path, f"it is not one line that begins with {paserk.HEADER}")
        try:
            return paserk.parse(line[:-1].decode())
        except (paserk.PaserkError, CostError) as error:
            raise _rejected(self._path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[_OpenKeyFile | None]:
    """The key file for the duration of a `with`; None if there is none.

    Raises:
        KeyFileError: it is not a regular file of a key's size, not this user's, open to others, or in a
            folder where others could replace it; names the remedy.
    """
    with _os_errors_of(path):
        try:
            _raise_fault(folders_fault(path.parent))
            descriptor = os.open(path, READ_FLAGS)
        except FileNotFoundError:
            descriptor = None
        try:
            yield None if descriptor is None else _OpenKeyFile(path, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)


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
    path = keys_path / KEY_FILE
    with _opened(path) as file:
        if file is None:
            return None
        cost = file.read_wrapped().cost if file.is_protected else None
    return KeyFileForm(cost, [leftover.name for leftover in _leftovers(path)])


def is_protected(path: Path) -> bool | None:
    """Whether this key file has a passphrase; None if there is no file, KeyFileError if it is refused."""
    with _opened(path) as file:
        return None if file is None else file.is_protected


def read_root_key(path: Path, passphrase: Passphrase | None, target: memoryview) -> bool:
    """Read the root key into `target`; False if there is no file.

    Raises KeyFileError, AgentLockedError and PassphraseError, as `KeyRing.create_key_ring` says.
    """
    with _opened(path) as file:
        if file is None:
            return False
        if not file.is_protected:
            if passphrase is not None:
                raise PassphraseError(
                    f"{path} has no passphrase; give none, or set one with `agentctl passwd`"
                )
            file.read_key(target)
            return True
        wrapped = file.read_wrapped()
    if passphrase is None:
        raise AgentLockedError(f"{path} is locked with a passphrase; unlock it with `agentctl unlock`")
    for candidate in passphrase.meanings:
        try:
            paserk.unwrap_into(wrapped, candidate, target)
            return True
        except paserk.NotGenuineError:
            continue
        except TooLittleMemoryError as error:
            raise _too_little_memory(path, wrapped.cost) from error
    raise PassphraseError("that is not the passphrase of the key file")


# --- writing ---


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

    Raises what `read_root_key` raises.
    """
    path = folder / KEY_FILE
    _prepare_folder(path)
    if not fresh and read_root_key(path, passphrase, target):
        return
    random_into(target)
    if _write_root_key(path, passphrase, target, cost=cost, replace=fresh):
        logger.info("made a new root key%s: %s", " with a passphrase" if passphrase else "", path)
    elif not read_root_key(path, passphrase, target):
        raise KeyFileError(f"{path} was created and removed meanwhile; is another agent being set up?")


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
    path = Path(keys_path) / KEY_FILE
    with Passphrase.copy_of(old) as old_copy, Passphrase.copy_of(new) as new_copy:
        await run_argon2(_rewrite, path, old_copy, new_copy, cost)
    done = "removed" if new is None else "set" if old is None else "changed"
    (logger or logging.getLogger("agentd.keys")).info("passphrase %s: %s", done, path)


async def check_passphrase(keys_path: str | os.PathLike[str], passphrase: PassphraseText) -> None:
    """Check that this is the passphrase of a key file; nothing is unlocked, and the key is wiped at once.

    Raises:
        KeyFileError: there is no key file, or it is refused.
        PassphraseError: it is wrong, or the file has none.
    """
    path = Path(keys_path) / KEY_FILE
    with Passphrase.copy_of(passphrase) as copy:
        await run_argon2(_check, path, copy)


def _check(path: Path, passphrase: Passphrase | None) -> None:
    root = SecretMemory().new_key()
    try:
        with root as view:
            if not read_root_key(path, passphrase, view):
                raise KeyFileError(f"{path} does not exist; create it with `agentd init`")
    finally:
        root.wipe()


def _rewrite(path: Path, old: Passphrase | None, new: Passphrase | None, cost: Cost | None) -> None:
    root = SecretMemory().new_key()
    try:
        with root as view:
            if not read_root_key(path, old, view):
                raise KeyFileError(f"{path} does not exist; create it with `agentd init`")
            _prepare_folder(path)
            _write_root_key(path, new, view, cost=cost, replace=True)
    finally:
        root.wipe()


def remove_root_key(folder: Path) -> None:
    """Remove the key file, and its folder if nothing else is in it."""
    path = folder / KEY_FILE
    with _os_errors_of(path), suppress(FileNotFoundError):
        path.unlink(missing_ok=True)
        sync_folder(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def _write_root_key(
    path: Path, passphrase: Passphrase | None, key: memoryview, *, cost: Cost | None, replace: bool
) -> bool:
    """Write the root key, wrapped if there is a passphrase; False if a file exists, unless `replace`."""
    if passphrase is None:
        return write_key(path, key, replace=replace)
    passphrase.require_settable()
    cost = cost or calibrated()
    salt, nonce = random_bytes(SALT_BYTES), random_bytes(NONCE_BYTES)
    try:
        text = paserk.wrap(key, passphrase.view, salt=salt, nonce=nonce, cost=cost)
    except TooLittleMemoryError as error:
        raise _too_little_memory(path, cost) from error
    return write_key(path, memoryview(text.encode() + b"\n"), replace=replace)


def write_key(path: Path, content: memoryview, *, replace: bool) -> bool:
    """Write a key file; without `replace`, an existing file stays and the result is False."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM_BYTES)}")
    with _os_errors_of(path), _locked(path.parent) as folder:
        _remove_leftovers(path)
        try:
            _write_and_sync(temporary, content)
            if replace:
                os.replace(temporary, path)
            else:
                # link(2) never overwrites: of two agents that start at once, one creates the key and both
                # use it.
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        os.fsync(folder)
    return True


def _write_and_sync(path: Path, content: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)  # whatever the umask
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare_folder(path: Path) -> None:
    """Make the key file's folder, or check that only this user can enter or replace it; remove leftovers."""
    folder = path.parent
    with _os_errors_of(folder):
        _raise_fault(make_folders(folder))
        _raise_fault(private_fault(folder, folder.stat()))
        _raise_fault(folders_fault(folder))  # the folder itself may be a link
        if _leftovers(path):
            with _locked(folder) as descriptor:
                _remove_leftovers(path)
                os.fsync(descriptor)


def _leftovers(path: Path) -> list[Path]:
    """What interrupted writers left next to a key file: it may be the key without its passphrase."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}")
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]


def _remove_leftovers(path: Path) -> None:
    for leftover in _leftovers(path):
        leftover.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock_within(descriptor, LOCK_SECONDS):
            raise OSError(errno.EAGAIN, "another process holds the lock on its folder")
        yield descriptor  # closing it releases the lock
    finally:
        os.close(descriptor)
