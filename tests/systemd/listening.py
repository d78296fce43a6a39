"""Other programs, as far as the sockets go that they take commands on: listen at each until standard input ends.

listening.py SOCKET…    where one that begins with @ is an abstract one
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, suppress


def remove(name: str) -> None:
    os.unlink(name)
    with suppress(OSError):  # there is more in it
        os.removedirs(os.path.dirname(name))


def main(names: list[str]) -> None:
    with ExitStack() as held:
        for name in names:
            listener = held.enter_context(socket.socket(socket.AF_UNIX))
            if name.startswith("@"):
                listener.bind("\0" + name[1:])
            else:
                os.makedirs(os.path.dirname(name), mode=0o755, exist_ok=True)
                listener.bind(name)
                held.callback(remove, name)
                os.chmod(name, 0o666)
            listener.listen()
        print("listening", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
