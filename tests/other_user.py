"""Being somebody else: a child process with another user id, which only root can make."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

NOBODY = 65534
AGENTS = 64998  # a group of nobody on this machine

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_user(act: Callable[[], Any], uid: int = NOBODY, *, groups: Sequence[int] = ()) -> Any:
    """What `act` returns (as JSON has it) when another user does it; an error is its class's name, in a list.

    The child is a fork, because another user cannot be expected to reach this Python and its packages.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.setgroups([*groups])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(uid, uid, uid)
            try:
                told = act()
            except Exception as error:
                told = [type(error).__name__]
            os.write(writer, json.dumps(told).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(told)
