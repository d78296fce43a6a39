"""Make `vectors.json` with pyseto, an independent implementation: `python tests/tokens/make_vectors.py`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pyseto

SIZES = (0, 1, 31, 32, 33, 63, 64, 65, 170, 1000)


def main() -> None:
    vectors = []
    for size in SIZES:
        key, payload = secrets.token_bytes(32), secrets.token_bytes(size)
        footer = b"" if size % 2 else b'{"kid":"' + secrets.token_urlsafe(16).encode() + b'"}'
        implicit = secrets.token_bytes(size % 7)
        token = pyseto.encode(
            pyseto.Key.new(4, "local", key), payload, footer=footer, implicit_assertion=implicit
        )
        vectors.append(
            {
                "key": key.hex(),
                "payload": payload.hex(),
                "footer": footer.hex(),
                "implicit": implicit.hex(),
                "token": token.decode(),
            }
        )
    target = Path(__file__).with_name("vectors.json")
    target.write_text(json.dumps({"made_with": f"pyseto {pyseto.__version__}", "tests": vectors}, indent=1))


if __name__ == "__main__":
    main()
