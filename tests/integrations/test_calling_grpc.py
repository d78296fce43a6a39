from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import grpc.aio
import pytest

from agentd_client import Session
from agentd_client.ext.caller import Caller
from agentd_client.ext.grpc import SessionInterceptor, current_session, session_call_credentials

from .calling_grpc import STATUSES
from .recording import certificate

UDS, TCP = grpc.LocalConnectionType.UDS, grpc.LocalConnectionType.LOCAL_TCP


def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
    return current_session().label.encode()


@contextmanager
def serving(credentials: grpc.ServerCredentials | None, address: str) -> Iterator[str]:
    """A guarded server; the address to call."""
    server = grpc.server(
        ThreadPoolExecutor(2),
        [
            grpc.method_handlers_generic_handler(
                "Notes", {"Read": grpc.unary_unary_rpc_method_handler(answer)}
            )
        ],
        [SessionInterceptor()],
    )
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield address.replace(":0", f":{port}")
    finally:
        server.stop(None).wait()


def read(address: str, channel_credentials: grpc.ChannelCredentials, options=(), **given) -> int | str:
    credentials = grpc.composite_channel_credentials(channel_credentials, session_call_credentials(**given))
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            assert channel.unary_unary("/Notes/Read")(b"", timeout=60) == b"desk"
        except grpc.RpcError as error:
            status = STATUSES[error.code()]
            return error.details() if status == 503 else status
        return 200


@pytest.fixture
def session(agent) -> Session:
    return Session.create_session(session_token=agent.create_token(600, label="desk").token)


@pytest.fixture(params=[UDS, TCP], ids=["uds", "tcp"])
def call(request, agent, tmp_path):
    """``call(**options)``: one call over a local channel."""
    address = f"unix:{tmp_path}/grpc.sock" if request.param is UDS else "127.0.0.1:0"
    with serving(grpc.local_server_credentials(request.param), address) as address:
        yield lambda **options: read(address, grpc.local_channel_credentials(request.param), **options)


def test_the_token_is_sent_over_local_channels(call, session):
    assert call() == 200


def test_a_session_is_renewed_by_its_use(agent, call, session):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    tokens = set()
    for _ in range(4):
        assert call(caller=caller) == 200
        tokens.add(session.read_token())
        agent.advance(450)
    assert len(tokens) == 4


def test_without_a_login_it_is_unauthenticated(call, agent):
    assert call() == 401


def test_an_expired_session_is_unauthenticated(call, agent, session):
    agent.advance(700)
    assert call() == 401


def test_while_the_agent_is_away_the_token_is_sent_and_the_server_cannot_know(call, agent, session):
    agent.stop()
    assert "cannot be asked" in call()
    agent.start()
    assert call() == 200


def test_with_a_token_file_that_is_refused_nothing_is_sent(call, agent, session):
    os.chmod(agent.token_path, 0o644)
    assert "chmod" in call()


def test_concurrent_calls_all_get_through_a_renewal(agent, call, session):
    caller = Caller(clock=lambda: agent.clock.read().wall)
    call(caller=caller)
    agent.advance(450)
    with ThreadPoolExecutor(8) as pool:
        statuses = [pool.submit(call, caller=caller) for _ in range(16)]
        assert {status.result() for status in statuses} == {200}


def test_async_channels_send_it_as_well(session):
    async def call(address: str) -> bytes:
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(), session_call_credentials()
        )
        async with grpc.aio.secure_channel(address, credentials) as channel:
            return await channel.unary_unary("/Notes/Read")(b"", timeout=60)

    with serving(grpc.local_server_credentials(), "127.0.0.1:0") as address:
        assert asyncio.run(call(address)) == b"desk"


@pytest.mark.parametrize(
    ("host", "origins", "status"),
    [
        ("127.0.0.1", [], 200),
        ("notes.example", [], "https://notes.example is neither"),
        ("notes.example", ["https://notes.example"], 200),
        ("notes.example", ["http://notes.example"], "https://notes.example is neither"),
    ],
)
def test_over_tls_it_goes_to_loopback_and_to_named_origins(session, host, origins, status):
    pem = certificate(host)
    key, _, chain = pem.partition(b"-----BEGIN CERTIFICATE")
    chain = b"-----BEGIN CERTIFICATE" + chain
    with serving(grpc.ssl_server_credentials([(key, chain)]), "127.0.0.1:0") as address:
        options = [] if host in address else [("grpc.ssl_target_name_override", host)]
        found = read(address, grpc.ssl_channel_credentials(chain), options, origins=origins)
        assert found == status or str(status) in str(found)


def test_channels_without_protection_carry_no_token(session):
    with serving(None, "127.0.0.1:0") as address:
        found = read(address, grpc.experimental.insecure_channel_credentials())
        assert found == 401 or "security level" in str(found)
