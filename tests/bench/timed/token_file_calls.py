"""The token file, and the same file operations without a rule around them. `token_file_calls.py FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asking import one_by_one, serve

from agentd_client import Session

TOKEN = "v4.local." + "x" * 300


def main(folder: Path) -> None:
    path = folder / "tokens" / "session-token"
    session = Session.create_session(session_token_path=path)
    session.write_token(TOKEN)
    raw, temporary = path.with_name("raw"), path.with_name("raw.new")

    def write_raw() -> None:
        with temporary.open("w") as file:
            file.write(TOKEN)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, raw)
        parent = os.open(raw.parent, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)

    write_raw()
    serve(
        {
            "write": one_by_one(lambda: session.write_token(TOKEN)),
            "write raw": one_by_one(write_raw),
            "read": one_by_one(session.read_token),
            "read raw": one_by_one(raw.read_text),
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
