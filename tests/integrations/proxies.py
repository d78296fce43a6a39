"""Reverse proxies with what they need: the check, a page, a program behind them. Callers are curl."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from . import recipes, serving
from .serving import PATH

LONG_SECONDS = 60.0


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key == name.lower()]


def curl(url: str, token: str | None = None, *arguments: str) -> Answer:
    """What curl gets with a token, which is not in its arguments."""
    ended = subprocess.run(
        ["curl", "-si", "--max-time", "60", "-H", "@-", *arguments, url],
        input="" if token is None else f"Authorization: Bearer {token}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, body = ended.stdout.partition("\n\n")  # text=True: curl's line ends are CR LF
    first, *lines = head.splitlines()
    pairs = [line.partition(":") for line in lines]
    return Answer(int(first.split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs], body)


def shown(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """A program behind a proxy: it shows the headers that it gets, as CGI has them."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the connection may be reset
    start_response("200 OK", [("Content-Type", "application/json")])
    names = {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    return [json.dumps(names).encode()]


class Ports(NamedTuple):
    pages: int
    application: int


def free_ports() -> Ports:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return Ports(one.getsockname()[1], other.getsockname()[1])


@contextmanager
def prepared(page: str, folder: Path, ports: Ports) -> Iterator[None]:
    """A folder with the files of a recipe, a page to guard, a check, and a program behind the proxy."""
    recipes.write_files(page, folder)
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("the notes\n")
    command = [sys.executable, "-m", "agentd_client.cli", "http", "--listen", f"unix:{folder}/http.sock"]
    with serving.wsgi(shown) as url, serving.started(command, folder, r"checking tokens at (\S+)"):
        replaced = {
            "/run/agentd-me/http.sock": f"{folder}/http.sock",
            "/srv/notes": f"{folder}/www",
            "127.0.0.1:8080": f"127.0.0.1:{ports.pages}",
            "127.0.0.1:8081": f"127.0.0.1:{ports.application}",
            "127.0.0.1:8000": url.removeprefix("http://"),
        }
        for path in folder.iterdir():
            if path.is_file():
                text = path.read_text()
                for word, other in replaced.items():
                    assert word not in other
                    text = text.replace(word, other)
                path.write_text(text)
        yield


@contextmanager
def running(command: list[str], port: int, folder: Path, environ: Mapping[str, str] = {}) -> Iterator[None]:
    """A proxy in the foreground, once it listens."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PATH": PATH} | environ, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + LONG_SECONDS
        while not is_listening(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(LONG_SECONDS)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"missing: {', '.join(missing)}")
