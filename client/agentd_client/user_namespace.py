"""Whether a uid stands for one user, or for everybody who is not mapped in this user namespace.

Apart from `private`, which a client that only makes calls does not import.
"""

from __future__ import annotations

import os

OVERFLOW_UID = 65534
"""The kernel's default, if the setting cannot be read."""

ALL_UIDS = 2**32 - 1
"""As many as the initial user namespace maps, user_namespaces(7); uid -1 is not valid."""

_PROC = "/proc"

_overflow_uid: int | None = None


def stands_for_others(uid: int) -> bool:
    """Whether other users may appear with this uid: as owner of a file or at the other end of a socket.

    In a user namespace that does not map every user, all unmapped users appear as the overflow uid. If the
    process itself is unmapped (`unshare --user`), every stranger looks like its own user. In the initial user
    namespace the same number, 65534, is an ordinary user (nobody).
    """
    return _is_overflow(uid) and not _maps_all_users()


def own_uid_fault() -> str | None:
    """Why this process cannot tell its own user from others; None if it can, as almost everywhere."""
    uid = os.geteuid()
    if not stands_for_others(uid):
        return None
    return (
        f"uid {uid}, which is yours, stands for everybody whom this user namespace does not map, so that "
        "others look like you; map your user (`unshare --map-current-user`), or stay outside"
    )


def _is_overflow(uid: int) -> bool:
    # Cached, because every connection and file asks for it; unlike the mapping, only root can change it.
    global _overflow_uid
    if _overflow_uid is None:
        try:
            with open(f"{_PROC}/sys/kernel/overflowuid") as file:
                _overflow_uid = int(file.read())
        except OSError:
            _overflow_uid = OVERFLOW_UID
    return uid == _overflow_uid


def _maps_all_users() -> bool:
    try:
        with open(f"{_PROC}/self/uid_map") as file:
            return sum(int(line.split()[2]) for line in file) >= ALL_UIDS
    except OSError:
        # A kernel without user namespaces has no such file. Without /proc it is not known.
        return os.path.exists(f"{_PROC}/self/status")
