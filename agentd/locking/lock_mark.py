"""The lock mark: it keeps an agent locked across restarts within the same boot.

Without it, an agent that reads its passphrase from a file at the start could be unlocked by killing and
restarting it. The mark holds the id of the boot in which the agent was locked (random(4)).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agentd_client.private import sync_folder

from ..process_identity import boot_id as current_boot_id

_UNKNOWN = "unknown"


class LockMark:
    """A symbolic link to a boot id, in a folder that only the agent's user can write to.

    A link is created whole or not at all, and file systems keep one that short in its inode, so an agent can
    be locked while the disk is full.

    Args:
        path: of the link; its folder exists.
        boot_id: of the current boot, empty if unknown; None reads it from the kernel.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str | None = None) -> None:
        self._path = Path(path)
        self._boot_id = (current_boot_id() if boot_id is None else boot_id) or _UNKNOWN

    def set(self) -> None:
        """Mark the agent as locked; durable on return. Raises OSError, and an earlier mark then stays."""
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        new.symlink_to(self._boot_id)
        try:
            new.replace(self._path)
        except OSError:
            new.unlink()
            raise
        sync_folder(self._path.parent)

    def clear(self) -> None:
        """Remove the mark, if there is one, after an unlock with the passphrase. Raises OSError."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        sync_folder(self._path.parent)

    def is_set(self) -> bool:
        """Whether the agent was locked in this boot; also if the mark or either boot id cannot be known."""
        try:
            marked = os.readlink(self._path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return marked == self._boot_id or _UNKNOWN in (marked, self._boot_id)
