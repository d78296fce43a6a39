"""`agentctl http` and clients that keep to no rule, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agentd_client import http_server
from agentd_client.http import Application
from agentd_client.http_server import listening

HOST = b"Host: localhost\r\n"


@pytest.fixture
def connect(agent, tmp_path) -> Iterator[Callable[[], socket.socket]]:
    """Opens connections to a server on a Unix socket."""
    with served(f"unix:{tmp_path}/check.sock"), contextlib.ExitStack() as opened:

        def connect() -> socket.socket:
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(50)  # before uvicorn closes a connection that is idle
            client.connect(f"{tmp_path}/check.sock")
            return client

        yield connect


@contextmanager
def served(address: str, **options: object) -> Iterator[socket.socket]:
    with listening(address) as listener:
        server = http_server._server(Application(**options))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield listener
        finally:
            server.should_exit = True
            thread.join()


def authorization(agent) -> bytes:
    return b"Authorization: Bearer %s\r\n" % agent.create_token().token.encode()


def answers(client: socket.socket) -> list[bytes]:
    """The statuses of everything that comes until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += data
    return [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /check HTTP/1.1", b"204"),
        (b"GET /check HTTP/1.0", b"204"),
        (b"GET /%63heck HTTP/1.1", b"204"),
        (b"GET //check HTTP/1.1", b"404"),
        (b"GET /check/../introspect HTTP/1.1", b"404"),
        (b"GET /introspect/../check HTTP/1.1", b"404"),
        (b"GET /./check HTTP/1.1", b"404"),
        (b"GET /check%00 HTTP/1.1", b"404"),
        (b"GET /check%3fscope=read HTTP/1.1", b"404"),
        (b"GET /check#?scope=read HTTP/1.1", b"404"),
        (b"GET check HTTP/1.1", b"404"),
        (b"GET ?scope=read HTTP/1.1", b"404"),
        (b"OPTIONS * HTTP/1.1", b"404"),
        (b"GET http://localhost/check HTTP/1.1", b"404"),
        (b"CONNECT localhost:80 HTTP/1.1", b"404"),
        (b"GET /check?a=b c HTTP/1.1", b"400"),
        (b"GET /check", b"400"),
        (b"GET /check HTTP/2.0", b"204"),
        (b"PRI * HTTP/2.0", b"404"),
        (b"GET /ext_authz/../introspect HTTP/1.1", b"200"),
        (b"GET /ext_authz* HTTP/1.1", b"404"),
        (b"GET /check?scope=" + b"a" * 20_000 + b" HTTP/1.1", b"400"),
    ],
)
def test_only_its_exact_paths_are_answered(agent, connect, line, status):
    client = connect()
    client.sendall(line + b"\r\n" + HOST + authorization(agent) + b"Connection: close\r\n\r\n")
    assert answers(client) == [status]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Agentd-Session: forged\r\nX-Forwarded-Uri: /?scope=\r\n", b"204"),
        (b"Upgrade: websocket\r\nConnection: close, upgrade\r\n", b"204"),
        (b"Upgrade: h2c\r\nHTTP2-Settings: x\r\n", b"204"),
        (b"Expect: 100-continue\r\n", b"204"),
        (b"Authorization: Bearer x\r\n", b"400"),
        (b"Host: example.com\r\n", b"400"),
        (b"Folded: a\r\n b\r\n", b"204"),
        (b"Space : a\r\n", b"400"),
        (b"Null: \x00\r\n", b"400"),
        (b": no name\r\n", b"400"),
        (b"Transfer-Encoding: gzip\r\n", b"400"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", b"400"),
    ],
)
def test_odd_headers_change_no_answer_or_are_refused(agent, connect, headers, status, caplog):
    client = connect()
    request = b"GET /check HTTP/1.1\r\n" + HOST + authorization(agent) + headers
    client.sendall(request + b"Connection: close\r\n\r\n")
    assert answers(client) == [status]
    assert caplog.text == "", "or anybody could fill the log"


def test_a_head_without_an_end_is_refused(connect):
    client = connect()
    client.sendall(b"GET /check HTTP/1.1\r\n")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            client.sendall(b"Long: " + b"a" * 1000 + b"\r\n")
    assert answers(client) in ([b"400"], [])  # the kernel may drop the answer with what was not read


def test_headers_of_the_session_are_never_those_of_the_caller(agent, connect):
    client = connect()
    forged = b"Agentd-Session: forged\r\nAgentd-Every-Scope: forged\r\n"
    client.sendall(b"GET /check HTTP/1.0\r\n" + HOST + authorization(agent) + forged + b"\r\n")
    received = b""
    while data := client.recv(65536):
        received += data
    assert received.lower().count(b"agentd-session: ") == 1
    assert b"forged" not in received


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_second_request_in_a_body_is_found_by_one_reading_only(agent, connect, framing):
    """Chunked wins over a length (RFC 9112 section 6.1), and a body belongs to its own request."""
    client = connect()
    smuggled = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    client.sendall(b"POST /check HTTP/1.1\r\n" + HOST + authorization(agent) + framing + smuggled)
    assert answers(client) in ([b"204", b"200"], [b"400"], [b"204"])


def test_on_loopback_a_request_without_a_host_is_foreign(agent):
    with served("127.0.0.1:0") as listener:
        for head, status in (
            (b"GET /check HTTP/1.0\r\n", b"403"),
            (b"GET /check HTTP/1.0\r\nHost: localhost\r\n", b"204"),
            (b"GET /check HTTP/1.0\r\nHost: localhost@evil\r\n", b"403"),
            (b"GET http://localhost/check HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n", b"403"),
        ):
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(head + authorization(agent) + b"\r\n")
                assert answers(client) == [status], head


def test_a_body_that_nobody_asked_for_does_not_hold_its_connection(agent, connect, monkeypatch):
    client = connect()
    head = b"POST /check HTTP/1.1\r\n" + HOST + authorization(agent) + b"Content-Length: 1000000\r\n\r\n"
    client.sendall(head)
    assert client.recv(65536).startswith(b"HTTP/1.1 204")
    monkeypatch.setattr(http_server, "WAITING_SECONDS", 0)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(b"x")
        assert client.recv(65536) == b""


def test_a_client_that_takes_no_answers_is_closed(agent, connect, monkeypatch):
    monkeypatch.setattr(http_server, "WAITING_SECONDS", 0.5)  # also for the head of its first request
    client = connect()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            client.sendall(b"GET /check HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)


def test_however_many_connections_one_holds_the_next_is_answered(agent, connect, monkeypatch):
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 8)
    request = b"GET /check HTTP/1.1\r\n" + HOST + authorization(agent) + b"\r\n"
    proxy = connect()
    for _ in range(5):
        for client in [connect() for _ in range(7)]:
            client.sendall(b"G")
        proxy.sendall(request)
        assert proxy.recv(65536).startswith(b"HTTP/1.1 204"), "it was used last"
    for _ in range(20):
        client = connect()
        client.sendall(request)
        assert client.recv(65536).startswith(b"HTTP/1.1 204")
