"""A server on loopback that keeps what it got, and answers as its test says."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Request(NamedTuple):
    path: str
    token: str | None
    body: bytes


class Answer(NamedTuple):
    """The status 0 closes the connection instead."""

    status: int = 200
    location: str | None = None


class Recorder:
    """One server: its URL, what it got, and what it answers to each request."""

    def __init__(self, url: str, answer: Callable[[Request], Answer]) -> None:
        self.url = url
        self.got: list[Request] = []
        self.answer = answer

    @property
    def tokens(self) -> list[str | None]:
        return [request.token for request in self.got]


@contextmanager
def recording(
    answer: Callable[[Request], Answer] = lambda request: Answer(),
    *,
    tls: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[Recorder]:
    """Serve; with the path of a file for its certificate, over https."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            authorization = self.headers.get_all("Authorization", [])
            assert len(authorization) < 2
            token = authorization[0].removeprefix("Bearer ") if authorization else None
            request = Request(self.path, token, self.read_body())
            recorder.got.append(request)
            status, location = recorder.answer(request)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None: ...

    for method in ("GET", "POST"):
        setattr(Handler, f"do_{method}", Handler.serve)

    with ThreadingHTTPServer((host, port), Handler) as server:
        server.daemon_threads = True  # connections that a client keeps open
        server.block_on_close = False
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with open(tls, "wb") as file:
                file.write(certificate(host))
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        recorder = Recorder(f"{scheme}://{host}:{server.server_address[1]}", answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()


@cache
def certificate(host: str) -> bytes:
    """A key and a certificate for an address or a name, as PEM."""
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
