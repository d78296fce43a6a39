"""Real servers on loopback, in threads or processes, for real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import uvicorn
from aiohttp import web

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""Of programs that tests start: the commands of this environment come first."""


@contextmanager
def asgi(application: Any) -> Iterator[str]:
    """Serve an ASGI application with uvicorn; the URL of its root."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def aiohttp(application: web.Application) -> Iterator[str]:
    """Serve an aiohttp application with its own server; the URL of its root."""
    loop = asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def serve(done: asyncio.Event) -> None:
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            await done.wait()
            await runner.cleanup()

        done = asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=[serve(done)])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(done.set)
            thread.join()
            loop.close()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def wsgi(application: Any) -> Iterator[str]:
    """Serve a WSGI application with the standard library; the URL of its root."""
    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


STOP_SECONDS = 10.0
"""Then a server is killed; nothing is asked of it by then."""


@contextmanager
def started(
    command: list[str], folder: Path, announced: str, variables: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start a server in a folder; its URL, which is the group of the pattern `announced` in what it says."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PATH": PATH, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            said = []
            for line in server.stdout:
                said.append(line)
                if found := re.search(announced, line):
                    break
            else:
                raise AssertionError("".join(said))
            rest = threading.Thread(target=server.stdout.read)  # or it would wait for a reader
            rest.start()
            try:
                yield found[1]
            finally:
                server.terminate()
                # Jupyter Server does not hear a signal that comes while its event loop starts.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(STOP_SECONDS)
                server.kill()
                rest.join()
        finally:
            server.kill()


def jupyter(configuration: str, folder: Path) -> AbstractContextManager[str]:
    """Serve a folder with Jupyter Server, which keeps its own files there too; the URL of its root."""
    (folder / "jupyter_server_config.py").write_text(configuration)
    command = ["jupyter", "server", "--no-browser", "--allow-root", "--port=0"]
    kept = {
        "JUPYTER_CONFIG_DIR": str(folder),
        "JUPYTER_DATA_DIR": str(folder / ".jupyter" / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter" / "run"),
        "JUPYTER_TOKEN": "not any more",
    }
    return started(command, folder, r"(http://127\.0\.0\.1:\d+)/", kept)


SERVE_PROGRAM = """
from wsgiref.simple_server import make_server
import program
server = make_server("127.0.0.1", 0, program.app)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


@contextmanager
def wsgi_program(program: str, folder: Path) -> Iterator[str]:
    """Serve the `app` of a program as `wsgi` does, in a process of its own; the URL of its root."""
    (folder / "program.py").write_text(program)
    with started([sys.executable, "-c", SERVE_PROGRAM], folder, r"^(http://\S+)$") as url:
        yield url
