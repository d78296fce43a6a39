"""`python -m tests.bench.http [ROUNDS]`: what a token check over HTTP costs, by itself and behind nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import load, report
from tests.bench.__main__ import machine
from tests.bench.figures import RATE, Row, Sample, alone, compare, missing
from tests.bench.load import MILLISECONDS, Replies, Server
from tests.bench.subject import Subject, as_in_a_plain_shell
from tests.e2e.daemon import scratch_home
from tests.signals import as_in_a_foreground_job

ROUNDS = 7
CALLS = 2_000
CLIENTS = 16
REVOKED = 30
READY_SECONDS = 60.0
STATIC = Path(__file__).parent / "timed" / "static_http.py"
BESIDE_STATIC = "the same server's static answer"

NGINX = """
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/temporary-1;
    proxy_temp_path {folder}/temporary-2;
    fastcgi_temp_path {folder}/temporary-3;
    uwsgi_temp_path {folder}/temporary-4;
    scgi_temp_path {folder}/temporary-5;
    keepalive_requests 1000000;
    upstream check {{ server unix:{folder}/check; keepalive 16; keepalive_requests 1000000; }}
    upstream cached {{ server unix:{folder}/cached; keepalive 16; keepalive_requests 1000000; }}
    server {{
        listen unix:{folder}/nginx;
        location /open/ {{ alias {folder}/www/; }}
        location /check/ {{ alias {folder}/www/; auth_request /ask-check; }}
        location /cached/ {{ alias {folder}/www/; auth_request /ask-cached; }}
        location /ask- {{
            internal;
            proxy_set_body "";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            location = /ask-check {{ internal; proxy_pass http://check/check?scope=read; }}
            location = /ask-cached {{ internal; proxy_pass http://cached/check?scope=read; }}
        }}
    }}
}}
"""


class HttpReplies(Replies):
    """Of an HTTP server, each with a length or without a body."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._received = b""

    def take(self) -> int:
        self._received += self.receive()
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return 0
        status, *lines = head.lower().split(b"\r\n")
        if status.split()[1] not in (b"200", b"204"):
            raise RuntimeError(f"the server refused: {status!r}")
        lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        if len(body) < sum(lengths):
            return 0
        self._received = b""
        return 1


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


@contextmanager
def started(command: Sequence[str], path: Path, environ: dict[str, str] | None = None) -> Iterator[Server]:
    """A server at a Unix socket, once it answers there."""
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + READY_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start")
        yield Server(process.pid, str(path), HttpReplies)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """A page in nginx: /open/ to everybody, /check/ and /cached/ to those whom the checks let in."""
    (folder / "www").mkdir()
    (folder / "www" / "page").write_text("page\n")
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
    with started(
        ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"], folder / "nginx"
    ) as server:
        yield server


def until_refused(server: Server, agent: Server) -> Sample:
    """Milliseconds from the agent's answer to a revoke until a request is refused; the median of some."""
    found = []
    for _ in range(REVOKED):
        (created,) = load.results(agent.path, [load.request(1, "createToken", {"scopes": ["read"]})])
        sent = get("/check?scope=read", created["token"])
        load.one_client(server.path, [sent] * 5, HttpReplies)
        with load.connect(server.path) as connection:
            replies = HttpReplies(connection)
            load.results(agent.path, [load.request(1, "revokeToken", {"id": created["id"]})])
            begun = time.perf_counter()
            try:
                while True:
                    connection.sendall(sent)
                    while not replies.take():
                        pass
            except RuntimeError:
                found.append((time.perf_counter() - begun) * MILLISECONDS)
    return Sample(sorted(found)[len(found) // 2])


def rows(subject: Subject, rounds: int, calls: int = CALLS) -> Iterator[Row]:
    with ExitStack() as stack:
        home = stack.enter_context(scratch_home())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        agent = stack.enter_context(subject.serving(home))
        (created,) = load.results(
            agent.path, [load.request(1, "createToken", {"scopes": ["read"], "label": "b"})]
        )
        static = stack.enter_context(
            started([subject.python, str(STATIC), f"{folder}/static"], folder / "static")
        )
        checks = {
            name: stack.enter_context(
                started([subject.agentctl, "http", "--listen", f"unix:{folder}/{name}", *options],
                        folder / name, home.environ)
            )
            for name, options in (("check", []), ("cached", ["--cache"]))
        }  # fmt: skip
        asked = [get("/check?scope=read", created["token"])] * calls
        names = {"check": "/check", "cached": "/check, with --cache"}
        for name, server in checks.items():
            yield compare(
                f"{names[name]}, p50", "µs", partial(server.one_by_one, asked),
                BESIDE_STATIC, partial(static.one_by_one, asked), rounds, aim=1.5,
            )  # fmt: skip
        yield from behind_nginx(stack, folder, created["token"], rounds, calls)
        for name, server in checks.items():
            samples = [until_refused(server, agent) for _ in range(rounds)]
            yield alone(f"{names[name]}: revoked at the agent until refused", "ms", samples)


def behind_nginx(stack: ExitStack, folder: Path, token: str, rounds: int, calls: int) -> Iterator[Row]:
    if shutil.which("nginx") is None:
        yield missing("nginx with auth_request", "µs", "nginx is not installed")
        return
    server = stack.enter_context(nginx(folder))
    open_page = [get("/open/page", token)] * calls

    def many(requests: list[bytes]) -> Callable[[], Sample]:
        return lambda: server.many_clients(requests, CLIENTS)

    for path, name in (("/check/", "nginx with auth_request"), ("/cached/", "the same with --cache")):
        page = [get(f"{path}page", token)] * calls
        yield compare(
            f"{name}, p50", "µs", partial(server.one_by_one, page),
            "nginx alone", partial(server.one_by_one, open_page), rounds,
        )  # fmt: skip
        yield compare(
            f"{name}, {CLIENTS} clients", RATE, many(page),
            f"nginx alone, {CLIENTS} clients", many(open_page), rounds,
        )  # fmt: skip


def main(rounds: int = ROUNDS) -> None:
    as_in_a_plain_shell()
    subject = Subject(Path(sys.executable).parent)
    about = machine(subject, subject.compile())
    found = []
    for row in rows(subject, rounds):
        found.append(row)
        print(report.line(row), flush=True)
    heading = "".join(f"{name}: {value}  \n" for name, value in about.items() if name != "beside")
    print(f"\n{heading}\n{report.markdown(found)}")


if __name__ == "__main__":
    as_in_a_foreground_job()
    main(*(int(word) for word in sys.argv[1:]))
