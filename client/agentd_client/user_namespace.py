"""Whether a uid means one user, or everybody whom this user namespace has no number for."""

from __future__ import annotations

import os

OVERFLOW_UID = 65534
"""The kernel's default, for where the setting cannot be read."""

ALL_UIDS = 2**32 - 1
"""As many as the first user namespace maps, user_namespaces(7); uid -1 is none."""

_PROC = "/proc"

_overflow_uid: int | None = None


def stands_for_others(uid: int) -> bool:
    """Whether other users may be shown with this uid: as owner of a file or at the other end of a socket.

    In a user namespace that does not map every user, all those that it does not map have one number, the
    overflow uid. A process of one of them has it as its own (`unshare --user`), and then every stranger looks
    like itself. In the first user namespace the same number, 65534, is a user as any other (nobody).
    """
    return _is_overflow(uid) and not _maps_all_users()


def own_uid_fault() -> str | None:
    """Why this process cannot tell its own user from others; None where it can, as almost everywhere."""
    uid = os.geteuid()
    if not stands_for_others(uid):
        return None
    return (
        f"uid {uid}, which is yours, stands for everybody whom this user namespace does not map, so that "
        "others look like you; map your user (`unshare --map-current-user`), or stay outside"
    )


def _is_overflow(uid: int) -> bool:
    # Kept, because it is asked for every connection and file; unlike the mapping nothing but root changes it.
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
        # A kernel without user namespaces has no such file. Without /proc nobody knows.
        return os.path.exists(f"{_PROC}/self/status")
