"""What every caller over HTTP does, whatever its library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import httpx
import httpx2
import pytest
import requests
from aiohttp import web

from agentd_client import OriginNotAllowedError, Session, TokenFileError
from agentd_client.ext.aiohttp import SessionAuthMiddleware
from agentd_client.ext.caller import Caller
from agentd_client.ext.httpx import SessionAuth as HttpxAuth
from agentd_client.ext.httpx2 import SessionAuth as Httpx2Auth
from agentd_client.ext.requests import SessionAuth as RequestsAuth
from agentd_client.ext.wsgi import SessionMiddleware

from . import serving
from .recording import Answer, Recorder, Request, recording
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

Call = Callable[..., int]
"""``call(url, content=None, tls=None, **options)``: one request that follows redirects; its status."""


def by_httpx(url: str, *, content: object = None, tls: str | None = None, **options) -> int:
    with httpx.Client(auth=HttpxAuth(**options), follow_redirects=True, verify=trusting(tls)) as client:
        return client.request(method(content), url, content=content).status_code


def by_httpx2(url: str, *, content: object = None, tls: str | None = None, **options) -> int:
    with httpx2.Client(auth=Httpx2Auth(**options), follow_redirects=True, verify=trusting(tls)) as client:
        return client.request(method(content), url, content=content).status_code


def by_async_httpx(url: str, *, content: object = None, tls: str | None = None, **options) -> int:
    async def call() -> int:
        given = content if content is None or isinstance(content, bytes) else chunks(content)
        auth = HttpxAuth(**options)
        async with httpx.AsyncClient(auth=auth, follow_redirects=True, verify=trusting(tls)) as client:
            return (await client.request(method(content), url, content=given)).status_code

    return asyncio.run(call())


def by_requests(url: str, *, content: object = None, tls: str | None = None, **options) -> int:
    with requests.Session() as session:
        session.auth = RequestsAuth(**options)
        return session.request(method(content), url, data=content, verify=tls or True).status_code


def by_aiohttp(url: str, *, content: object = None, tls: str | None = None, **options) -> int:
    async def call() -> int:
        given = content if content is None or isinstance(content, bytes) else chunks(content)
        middlewares = [SessionAuthMiddleware(**options)]
        async with (
            aiohttp.ClientSession(middlewares=middlewares, trust_env=True) as session,
            session.request(method(content), url, data=given, ssl=trusting(tls)) as response,
        ):
            return response.status

    return asyncio.run(call())


async def chunks(content: Iterable[bytes]):
    for chunk in content:
        yield chunk


CALLS: dict[str, Call] = {
    "httpx": by_httpx,
    "async httpx": by_async_httpx,
    "httpx2": by_httpx2,
    "requests": by_requests,
    "aiohttp": by_aiohttp,
}


REFUSALS = (
    *(httpx.HTTPError, httpx.InvalidURL, httpx2.HTTPError, httpx2.InvalidURL),
    *(requests.RequestException, aiohttp.ClientError, ValueError),
)
"""What the libraries raise for a redirect that they do not follow."""


def method(content: object) -> str:
    return "GET" if content is None else "POST"


def trusting(tls: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tls)


@pytest.fixture(params=CALLS)
def call(request) -> Call:
    return CALLS[request.param]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def session(agent) -> Session:
    return Session.create_session(session_token=agent.create_token(600).token)


@pytest.fixture
def server():
    with recording() as server:
        yield server


@pytest.fixture
def guarded(agent):
    """Answers 401 to every token that is not valid."""

    def answer(request: Request) -> Answer:
        return Answer(200 if agent.client.verify_token(request.token) else 401)

    with recording(answer) as server:
        yield server


def renewed_while_sent(agent, session: Session, server: Recorder) -> str:
    """Let the server refuse the token of the first request, while another process renews; the new token."""
    successor = agent.client.renew_token(session.read_token()).token

    def answer(request: Request) -> Answer:
        if request.token != successor:
            session.write_token(successor)
            return Answer(401)
        return Answer(200)

    server.answer = answer
    return successor


def redirected(target: str, status: int = 302) -> Callable[[Request], Answer]:
    return lambda request: Answer(status, target) if request.path == "/" else Answer()


def test_callers_get_what_every_guarded_server_answers(agent, call):
    def request(token: str | None) -> int:
        session = Session.create_session(fresh=True)
        if token is not None:
            session.write_token(token)
        return call(url)

    def notes(environ, start_response):
        start_response("200 OK", [("Content-Length", "0")])
        return []

    app = SessionMiddleware(notes, scopes=[SCOPE], audience=AUDIENCE)
    with serving.wsgi(app) as url:
        assert statuses(agent, request) == EXPECTED


def test_the_token_is_sent(call, session, server):
    assert call(server.url) == 200
    assert server.tokens == [session.read_token()]


def test_a_session_is_renewed_by_its_use(agent, call, session, guarded):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    assert call(guarded.url, caller=caller) == 200
    for _ in range(3):
        agent.advance(450)
        assert call(guarded.url, caller=caller) == 200
    assert len(set(guarded.tokens)) == 4
    assert session.read_token() == guarded.tokens[-1]


def test_a_renewal_by_another_process_is_seen_at_the_next_request(agent, call, session, guarded):
    assert call(guarded.url) == 200
    session.write_token(agent.client.renew_token(session.read_token()).token)
    assert call(guarded.url) == 200
    assert len(set(guarded.tokens)) == 2


def test_a_request_that_a_renewal_overtook_is_sent_again(agent, call, session, server):
    first = session.read_token()
    successor = renewed_while_sent(agent, session, server)
    assert call(server.url, content=b"body") == 200
    assert server.tokens == [first, successor]
    assert [request.body for request in server.got] == [b"body", b"body"]


def test_it_is_sent_again_once(agent, call, session, server):
    tokens = iter([agent.create_token().token for _ in range(5)])

    def answer(request: Request) -> Answer:
        session.write_token(next(tokens))  # a renewal for every answer
        return Answer(401)

    server.answer = answer
    assert call(server.url) == 401
    assert len(server.got) == 2


@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name != "aiohttp"])
def test_not_even_a_redirect_in_between_has_it_sent_again_twice(agent, call, session, server):
    """For aiohttp's middleware each of them is a request of its own."""
    renewed_while_sent(agent, session, server)
    refuse = server.answer

    def answer(request: Request) -> Answer:
        if request.path == "/there":
            session.write_token(agent.create_token().token)
            return Answer(401)
        return Answer(302, "/there") if refuse(request).status == 200 else Answer(401)

    server.answer = answer
    assert call(server.url) == 401
    assert [request.path for request in server.got] == ["/", "/", "/there"]


def test_a_401_that_no_renewal_explains_is_the_answer(agent, call, session, guarded):
    agent.client.revoke_token(session.read_token())
    assert call(guarded.url) == 401
    assert len(guarded.got) == 1


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_other_refusals_are_not_repeated(agent, call, session, server, status):
    renewed_while_sent(agent, session, server)
    answer = server.answer
    server.answer = lambda request: Answer(status) if answer(request).status == 401 else Answer()
    assert call(server.url) == status
    assert len(server.got) == 1


def test_an_expired_session_is_a_401(agent, call, session, guarded):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    agent.advance(700)
    assert call(guarded.url, caller=caller) == 401
    assert len(guarded.got) == 1


def test_a_body_that_can_be_sent_once_is_sent_once(agent, call, session, server):
    renewed_while_sent(agent, session, server)
    assert call(server.url, content=iter([b"one", b"two"])) == 401
    assert [request.body for request in server.got] == [b"onetwo"]


def test_without_a_login_requests_have_no_token(call, agent, guarded):
    assert call(guarded.url) == 401
    assert guarded.tokens == [None]
    Path(agent.token_path).write_text("\n")
    os.chmod(agent.token_path, 0o600)
    assert call(guarded.url) == 401
    assert guarded.tokens == [None, None]


def test_a_login_that_a_401_waited_for_is_tried_once(agent, call, server):
    def answer(request: Request) -> Answer:
        if request.token is None:
            Session.create_session(session_token=agent.create_token().token)
            return Answer(401)
        return Answer(200)

    server.answer = answer
    assert call(server.url) == 200
    assert len(server.got) == 2


def test_with_a_token_file_that_is_refused_nothing_is_sent(agent, call, session, server):
    os.chmod(agent.token_path, 0o644)
    with pytest.raises(TokenFileError):
        call(server.url)
    assert server.got == []


def test_while_the_agent_is_away_the_present_token_is_sent(agent, call, session, server):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    call(server.url, caller=caller)
    agent.advance(450)
    agent.stop()
    assert call(server.url, caller=caller) == 200
    assert server.tokens == [session.read_token()] * 2


def test_a_token_that_was_handed_over_is_sent(agent, call, session, server, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", given := agent.create_token().token)
    assert call(server.url) == 200
    assert server.tokens == [given]


def test_an_origin_that_was_not_named_gets_nothing(call, session):
    with pytest.raises(OriginNotAllowedError, match=r"http://192\.0\.2\.1:8000"):
        call("http://192.0.2.1:8000/")


def test_a_proxy_gets_nothing(call, session, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(OriginNotAllowedError, match="NO_PROXY"):
        call("http://127.0.0.1:9/")
    assert server.got == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_port_gets_no_token(call, session, server, status):
    with recording() as other:
        server.answer = redirected(f"{other.url}/there", status)
        assert call(server.url) == 200
        assert server.tokens == [session.read_token()]
        assert other.tokens == [None]


def test_a_redirect_to_another_name_gets_no_token(call, session, server):
    server.answer = redirected(f"{server.url.replace('127.0.0.1', 'localhost')}/there")
    assert call(server.url) == 200
    assert server.tokens == [session.read_token(), None]


def test_a_redirect_between_http_and_https_gets_no_token(call, session, server, tmp_path):
    tls = str(tmp_path / "certificate.pem")
    with recording(tls=tls) as other:
        server.answer = redirected(f"{other.url}/there")
        assert call(server.url, tls=tls) == 200
        assert other.tokens == [None]
        other.answer = redirected(f"{server.url}/there")
        assert call(other.url, tls=tls) == 200
        assert server.tokens == [session.read_token(), None]


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.1:{other}/there",
        "/\\127.0.0.1:{other}/there",
        "http:\\\\127.0.0.1:{other}/there",
        "http://127.0.0.1:{own}@127.0.0.1:{other}/there",
        "http://127.0.0.1:{own}\\@127.0.0.1:{other}/there",
        "http://127.0.0.1:{own}#@127.0.0.1:{other}/there",
        "http://127.0.0.1:{own}%2f@127.0.0.1:{other}/there",
        "HTTP://LOCALHOST:{other}/there",
        "http://\N{CIRCLED LATIN SMALL LETTER L}ocalhost:{other}/there",
        "http://127.0.0.\N{CIRCLED DIGIT ONE}:{other}/there",
        "\thttp://127.0.0.1:{other}/there",
        "ht\ttp://127.0.0.1:{other}/there",
        "http:127.0.0.1:{other}/there",
    ],
)
def test_no_spelling_of_a_redirect_takes_the_token_along(call, session, server, location):
    with recording() as other:
        target = location.format(own=server.url.rpartition(":")[2], other=other.url.rpartition(":")[2])
        server.answer = redirected(target.encode().decode("latin-1"))
        with contextlib.suppress(*REFUSALS):
            call(server.url)
        assert server.tokens[0] == session.read_token()
        assert session.read_token() not in other.tokens


def test_a_redirect_from_port_80_to_https_gets_no_token(call, session, tmp_path):
    """httpx and requests take these two for one server, and copy the token."""
    tls = str(tmp_path / "certificate.pem")
    host = f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.80"  # nobody else's ports
    try:
        with recording(host=host, port=80) as plain, recording(tls=tls, host=host, port=443) as secure:
            plain.answer = redirected(f"https://{host}/there")
            assert call(f"http://{host}/", tls=tls) == 200
            assert plain.tokens == [session.read_token()]
            assert secure.tokens == [None]
    except PermissionError:
        pytest.skip("this user may not listen on port 80")


def test_a_redirect_there_and_back_gets_no_token(call, session, server):
    with recording() as other:
        server.answer = redirected(other.url)
        other.answer = redirected(f"{server.url}/there")
        assert call(server.url) == 200
        assert other.tokens == [None]
        assert server.tokens == [session.read_token(), None]


def test_a_redirect_within_another_origin_gets_no_token_either(call, session, server):
    with recording() as other:
        server.answer = redirected(other.url)
        other.answer = redirected("/there")
        assert call(server.url) == 200
        assert other.tokens == [None, None]


def test_a_redirect_within_the_origin_keeps_the_token(call, session, server):
    server.answer = redirected("/there")
    assert call(server.url) == 200
    assert server.tokens == [session.read_token()] * 2


def test_a_401_of_another_origin_is_not_explained_by_a_renewal(agent, call, session, server):
    with recording() as other:
        successor = renewed_while_sent(agent, session, other)
        server.answer = redirected(other.url)
        assert call(server.url) == 401
        assert other.tokens == [None]
        assert successor not in server.tokens


def test_a_repeated_request_that_is_redirected_elsewhere_leaves_its_token(agent, call, session, server):
    successor = renewed_while_sent(agent, session, server)
    refuse = server.answer
    with recording() as other:
        server.answer = lambda request: (
            Answer(307, f"{other.url}/there") if refuse(request).status == 200 else Answer(401)
        )
        assert call(server.url) == 200
        assert server.tokens[-1] == successor
        assert other.tokens == [None]


def test_aiohttp_lets_the_next_request_of_a_task_have_the_token(session, server):
    async def call() -> None:
        with recording() as other:
            server.answer = redirected(f"{other.url}/there")
            async with aiohttp.ClientSession(middlewares=[SessionAuthMiddleware()]) as http:
                await http.get(server.url)
                await http.get(other.url)
                assert other.tokens == [None, session.read_token()]

    asyncio.run(call())


def test_a_redirect_that_aiohttp_follows_twice_gets_no_token(session, server):
    with recording() as other:

        def hang_up_once(request: Request) -> Answer:
            return Answer(0 if len(other.got) == 1 else 200)

        server.answer = redirected(f"{other.url}/there")
        other.answer = hang_up_once
        assert by_aiohttp(server.url) == 200
        assert other.tokens == [None, None]


def test_the_url_of_a_unix_socket_gets_the_token_in_requests(session):
    request = requests.Request("GET", "http+unix://%2Frun%2Fnotes.sock/read", auth=RequestsAuth()).prepare()
    assert request.headers["Authorization"] == f"Bearer {session.read_token()}"


def test_unix_sockets_get_the_token(agent, session, tmp_path):
    path = str(tmp_path / "server.sock")

    async def notes(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Authorization"])

    async def call() -> None:
        app = web.Application()
        app.router.add_get("/", notes)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(
            middlewares=[SessionAuthMiddleware()], connector=aiohttp.UnixConnector(path)
        ) as http:
            response = await http.get("http://any.name/")
            assert await response.text() == f"Bearer {session.read_token()}"
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(auth=HttpxAuth(), transport=transport) as http:
            assert (await http.get("http://localhost/")).text == f"Bearer {session.read_token()}"
            with pytest.raises(OriginNotAllowedError):
                await http.get("http://any.name/")
        await runner.cleanup()

    asyncio.run(call())


def test_concurrent_requests_all_get_through_a_renewal(agent, call, session, guarded):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    call(guarded.url, caller=caller)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            agent.advance(450)
            statuses = [pool.submit(call, guarded.url, caller=caller) for _ in range(16)]
            assert {status.result() for status in statuses} == {200}
    assert session.read_token() == guarded.tokens[-1]
    assert len({*guarded.tokens}) == 4
