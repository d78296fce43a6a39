"""The mark of an agent that was locked on purpose: it outlives the process, and not the boot.

Whoever can end the agent and start it anew, with a passphrase that is there for the unattended start, would
unlock it that way. The mark holds the id of the boot in which the agent was locked (random(4)).
"""

from __future__ import annotations

import os
import secrets
import uuid
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_READ_BYTES = 64
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # no /proc: no boot can be told from another
        return ""


class LockMark:
    """A small private file in a folder that only the agent's user can write to.

    Args:
        path: the file; its folder is there already.
        boot_id: the id of the present boot; read from the kernel where it is not given.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str | None = None) -> None:
        self._path = Path(path)
        self._boot_id = _read_boot_id() if boot_id is None else boot_id

    def set(self) -> None:
        """Mark the agent as locked on purpose in this boot; on the disk when this returns.

        Raises OSError where the file cannot be written; what was there before is there still.
        """
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(new, _NEW_FLAGS, 0o600)
        try:
            try:
                os.fchmod(descriptor, 0o600)  # whatever the umask took away
                # One write(2) of a few bytes: what a full disk cuts off is no boot id, and counts as set.
                os.write(descriptor, f"{self._boot_id}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            new.replace(self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def clear(self) -> None:
        """Take the mark away: somebody who knows the passphrase unlocked the agent. Without one, do nothing.

        Raises OSError where the file cannot be removed.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        self._sync_folder()

    def is_set(self) -> bool:
        """Whether the agent was locked on purpose in this boot.

        In doubt it was: where the mark cannot be read, holds no boot id, or the present boot has none.
        """
        try:
            descriptor = os.open(self._path, _READ_FLAGS)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            found = os.read(descriptor, _READ_BYTES)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return not (_is_boot_id(found) and self._boot_id) or found.decode().strip() == self._boot_id

    def _sync_folder(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_boot_id(content: bytes) -> bool:
    try:
        text = content.decode("ascii").strip()
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
