"""Calls of MCP tools with the SDK's own client."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


def called(url: str, token: str | None) -> tuple[int, Any]:
    """Call the tool `read` of a server: the status of the last answer, and the result."""
    seen = [0]

    async def see(response: httpx2.Response) -> None:
        seen.append(response.status_code)

    async def call() -> object:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, event_hooks={"response": [see]}, timeout=60) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            return (await client.call_tool("read", {})).structured_content

    result = None
    try:
        result = anyio.run(call)
    except* MCPError:  # it does not say which status
        pass
    return seen[-1], result
