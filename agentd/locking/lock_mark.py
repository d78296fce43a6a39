"""The mark of an agent that was locked on purpose: it outlives the process, and not the boot.

Whoever can end the agent and start it anew, with a passphrase that is there for the unattended start, would
unlock it that way. The mark holds the id of the boot in which the agent was locked (random(4)).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agentd_client.private import sync_folder

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN = "unknown"


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # no /proc: no boot can be told from another
        return _UNKNOWN


class LockMark:
    """A symbolic link that points to the id of a boot, in a folder that only the agent's user can write to.

    A link, because it is there whole or not at all, and because file systems keep one that short in its
    inode: an agent can be locked while the disk is full.

    Args:
        path: the link; its folder is there already.
        boot_id: the id of the present boot; read from the kernel where it is not given.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str | None = None) -> None:
        self._path = Path(path)
        self._boot_id = boot_id or _read_boot_id()

    def set(self) -> None:
        """Mark the agent as locked on purpose in this boot; on the disk when this returns.

        Raises OSError where that cannot be written; what was there before is there still.
        """
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        new.symlink_to(self._boot_id)
        try:
            new.replace(self._path)
        except OSError:
            new.unlink()
            raise
        sync_folder(self._path.parent)

    def clear(self) -> None:
        """Take the mark away: somebody who knows the passphrase unlocked the agent. Without one, do nothing.

        Raises OSError where it cannot be removed.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        sync_folder(self._path.parent)

    def is_set(self) -> bool:
        """Whether the agent was locked on purpose in this boot.

        In doubt it was: where the mark cannot be read, or one of the two boots is not known.
        """
        try:
            marked = os.readlink(self._path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return marked == self._boot_id or _UNKNOWN in (marked, self._boot_id)
