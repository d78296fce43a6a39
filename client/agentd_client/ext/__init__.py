"""agentd in other programs: one module for each framework, with an extra of the same name.

Servers: `asgi`, `starlette`, `fastapi`, `wsgi`, `flask`, `django`, `rest_framework`, `aiohttp`, `mcp`,
`jupyter`, `grpc`. They share one decision, `guard.Guard`. Callers: `httpx`, `httpx2`, `requests`, and parts
of `aiohttp` and `grpc`; they share `caller.Caller`.
"""
