"""A file system in user space with one program, whose attributes nobody gets to know; no library, fuse(4).

Run in a user and a mount namespace of its own. Prints the pid of a process that executes the program, and serves
until standard input ends.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading

LOOKUP, FORGET, GETATTR, OPEN, READ, FLUSH, INIT, OPENDIR = 1, 2, 3, 14, 15, 25, 26, 27
RELEASE, INTERRUPT, BATCH_FORGET = 18, 36, 42
UNANSWERED = {FORGET, INTERRUPT, BATCH_FORGET}
ROOT, PROGRAM = 1, 2


class Server:
    def __init__(self, folder: str, content: bytes) -> None:
        self.content = content
        self.hangs = False
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"hanging", folder.encode(), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def serve(self) -> None:
        while True:
            request = os.read(self._fuse, 1 << 20)
            _, kind, number, node = struct.unpack_from("<IIQQ", request)
            if kind in UNANSWERED or (kind == GETATTR and node == PROGRAM and self.hangs):
                continue
            answer = self.answer(kind, node, request[40:])
            error, data = (-38, b"") if answer is None else (0, answer)
            os.write(self._fuse, struct.pack("<IiQ", 16 + len(data), error, number) + data)

    def answer(self, kind: int, node: int, body: bytes) -> bytes | None:
        if kind == INIT:
            return struct.pack("<4I2H3I32x", 7, 31, 0, 0, 16, 16, 131072, 1, 0)
        if kind == LOOKUP:
            return struct.pack("<5Q", PROGRAM, 0, 0, 0, 0) + self.attributes(PROGRAM)
        if kind == GETATTR:
            return struct.pack("<2Q", 0, 0) + self.attributes(node)
        if kind in (OPEN, OPENDIR):
            return struct.pack("<Q2I", 7, 2, 0)
        if kind == READ:
            _, start, size = struct.unpack_from("<2QI", body)
            return self.content[start : start + size]
        return b"" if kind in (FLUSH, RELEASE) else None

    def attributes(self, node: int) -> bytes:
        mode, size = (0o40755, 0) if node == ROOT else (0o100755, len(self.content))
        return struct.pack("<6Q10I", node, size, 8, *[0] * 6, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def main() -> None:
    folder = sys.argv[1]
    with open("/bin/cat", "rb") as program:
        server = Server(folder, program.read())
    threading.Thread(target=server.serve, daemon=True).start()
    # The thread answers what executing the program asks; vfork(2) would hold it up until that is done.
    subprocess._USE_VFORK = subprocess._USE_POSIX_SPAWN = False
    process = subprocess.Popen([f"{folder}/program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"runs\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"runs\n"
    server.hangs = True
    print(process.pid, flush=True)
    sys.stdin.read()
    process.kill()


if __name__ == "__main__":
    main()
