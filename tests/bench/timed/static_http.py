"""The server of `agentctl http` with an application that answers the same to everybody: static_http.py PATH."""

from __future__ import annotations

import sys
from typing import Any

from agentd_client.http_server import listening, serve


async def static(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    with listening(f"unix:{sys.argv[1]}") as listener:
        serve(static, listener)  # type: ignore[arg-type]
