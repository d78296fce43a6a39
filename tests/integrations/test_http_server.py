from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from agentd_client import http_server
from agentd_client.cli.run import run
from agentd_client.errors import ConfigError, SocketPathError
from agentd_client.http import Application
from agentd_client.http_server import listening

AGENTCTL = [sys.executable, "-m", "agentd_client.cli"]


@contextmanager
def running(*arguments: str, **popen) -> Iterator[subprocess.Popen[str]]:
    """`agentctl http`, once it listens."""
    with subprocess.Popen(
        [*AGENTCTL, "http", *arguments], stderr=subprocess.PIPE, text=True, **popen
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("agentctl: checking tokens at ")
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def bearer(agent) -> dict[str, str]:
    return {"Authorization": f"Bearer {agent.create_token().token}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_at_a_unix_socket_and_removes_it(agent, tmp_path, number):
    path = tmp_path / "check.sock"
    with running("--listen", f"unix:{path}") as process:
        assert path.stat().st_mode & 0o777 == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.name") as http:
            assert http.get("/check", headers=bearer(agent)).status_code == 204
            assert http.get("/check").status_code == 401
        process.send_signal(number)
        assert process.wait(60) == 0
    assert not path.exists()


def test_it_serves_on_loopback_and_refuses_foreign_hosts(agent):
    port = free_port()
    with (
        running("--listen", f"127.0.0.1:{port}", "--allow-host", "notes.test"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(agent)) as http,
    ):
        assert http.get("/check").status_code == 204
        assert http.get("/check", headers={"Host": "notes.test"}).status_code == 204
        assert http.get("/check", headers={"Host": "evil.test"}).status_code == 403


def test_it_serves_a_socket_that_systemd_passes(agent, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "check.sock"))
        listener.listen()
        with running("--listen", f"fd:{listener.fileno()}", pass_fds=[listener.fileno()]):
            transport = httpx.HTTPTransport(uds=str(tmp_path / "check.sock"))
            with httpx.Client(transport=transport, base_url="http://localhost") as http:
                assert http.get("/check", headers=bearer(agent)).status_code == 204


def test_its_options_are_those_of_the_guard_and_the_log_has_no_token(agent, tmp_path):
    path = tmp_path / "check.sock"
    options = ["--audience", "notes", "--scope", "read", "--explicit-scopes", "--cookie", "session"]
    with running("--listen", f"unix:{path}", *options, "--cache", "--access-log") as process:
        token = agent.create_token(scopes=["read", "write"], audience=["notes"]).token
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost") as http:
            http.cookies.set("session", token)
            assert http.get("/check").status_code == 204
            assert http.get("/check?scope=write").status_code == 204
            assert http.get("/check?scope=admin").status_code == 403
            assert http.get("/check?audience=mail").status_code == 400
            http.cookies.clear()
            assert http.get("/check", headers=bearer(agent)).status_code == 403, "it names no scopes"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert [line.split()[:3] for line in log.splitlines()] == [
        ["GET", "/check", status] for status in ("204", "204", "403", "400", "403")
    ]
    assert "v4.local" not in log


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("0.0.0.0:8000", "not a loopback address"),
        ("[::]:8000", "not a loopback address"),
        ("192.168.0.1:80", "not a loopback address"),
        ("localhost:8000", "not a loopback address"),
        ("127.0.0.1:port", "listen on unix:PATH"),
        ("127.0.0.1:65536", "listen on unix:PATH"),
        ("8000", "listen on unix:PATH"),
        ("unix:relative", "needs an absolute path"),
        ("fd:9999", "number of a listening socket"),
        ("fd:x", "number of a listening socket"),
    ],
)
def test_it_listens_where_only_this_machine_can_connect(address, said):
    with pytest.raises(ConfigError, match=said), listening(address):
        pass


def test_a_passed_socket_that_others_could_reach_is_refused():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        passed = listening(f"fd:{os.dup(listener.fileno())}")
        with pytest.raises(ConfigError, match="not a loopback address"), passed:
            pass


def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "check.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with listening(f"unix:{path}", 0o660):
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(SocketPathError, match="in use"), listening(f"unix:{path}"):
            pass
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(SocketPathError, match="in use"), listening(f"unix:{path}"):
        pass
    assert path.read_text() == "precious"
    with pytest.raises(SocketPathError, match="No such file"), listening(f"unix:{tmp_path}/no/folder"):
        pass


def test_the_successors_socket_is_not_removed(tmp_path):
    path = tmp_path / "check.sock"
    with listening(f"unix:{path}"):
        path.unlink()
        path.write_text("another's")
    assert path.exists()


@pytest.mark.parametrize("requests", [0, 1])
@pytest.mark.parametrize("begun", [b"G", b"GET /check HTTP/1.1\r\nHost: lo"])
def test_a_client_that_does_not_go_on_is_closed(agent, tmp_path, monkeypatch, requests, begun):
    if not requests:
        monkeypatch.setattr(http_server, "WAITING_SECONDS", 0)
    path = tmp_path / "check.sock"
    with listening(f"unix:{path}") as listener:
        server = http_server._server(Application())
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(50)  # before uvicorn closes a connection that is idle
                client.connect(str(path))
                for _ in range(requests):
                    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
                monkeypatch.setattr(http_server, "WAITING_SECONDS", 0)
                with contextlib.suppress(BrokenPipeError):
                    client.sendall(begun)
                while client.recv(65536):
                    pass
        finally:
            server.should_exit = True
            thread.join()


def test_without_its_extra_it_names_it(agent, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "agentd_client.http_server")
    assert run(["http", "--listen", f"unix:{tmp_path}/a"]) == os.EX_CONFIG
    assert "uvicorn is missing: install agentd-client with the extra http" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
