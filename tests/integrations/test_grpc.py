from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from agentd_client.ext.grpc import AsyncSessionInterceptor, SessionInterceptor, current_session

from .calling_grpc import STATUSES, called, code
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

ARITIES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def label() -> bytes:
    return current_session().label.encode()


def handlers(**behaviours: Callable) -> grpc.GenericRpcHandler:
    made = {name: getattr(grpc, f"{name}_rpc_method_handler")(does) for name, does in behaviours.items()}
    return grpc.method_handlers_generic_handler("Notes", made)


BLOCKING = handlers(
    unary_unary=lambda request, context: label(),
    unary_stream=lambda request, context: (label() for _ in range(2)),
    stream_unary=lambda requests, context: label() * sum(1 for _ in requests),
    stream_stream=lambda requests, context: (label() for _ in requests),
)


async def _one(request, context):
    return label()


async def _two(request, context):
    yield label()
    yield label()


async def _joined(requests, context):
    return b"".join([label() async for _ in requests])


async def _each(requests, context):
    async for _ in requests:
        yield label()


ASYNC = handlers(unary_unary=_one, unary_stream=_two, stream_unary=_joined, stream_stream=_each)


@contextmanager
def blocking(folder: str, **options) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), [BLOCKING], [SessionInterceptor(**options)])
    address = f"unix:{folder}/grpc.sock"
    server.add_insecure_port(address)
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()


@contextmanager
def asynchronous(folder: str, **options) -> Iterator[str]:
    address = f"unix:{folder}/grpc.sock"
    loop = asyncio.new_event_loop()
    done, ready = asyncio.Event(), threading.Event()

    async def serve() -> None:
        server = grpc.aio.server(handlers=[ASYNC], interceptors=[AsyncSessionInterceptor(**options)])
        server.add_insecure_port(address)
        await server.start()
        ready.set()
        await done.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(60)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


@pytest.fixture(params=[blocking, asynchronous], ids=["blocking", "async"])
def serving(request, tmp_path):
    return lambda **options: request.param(str(tmp_path), **options)


def test_it_answers_as_every_guarded_server_does(agent, serving):
    with serving(scopes=[SCOPE], audience=AUDIENCE) as address, grpc.insecure_channel(address) as channel:
        assert statuses(agent, lambda token: STATUSES[code(channel, "/Notes/unary_unary", token)]) == EXPECTED


@pytest.mark.parametrize("arity", ARITIES)
def test_calls_of_every_kind_are_guarded_and_know_their_session(agent, serving, arity):
    token = agent.create_token(label="desk").token
    with serving() as address, grpc.insecure_channel(address) as channel:
        assert called(channel, f"/Notes/{arity}", token) == (
            b"desk" if arity == "unary_unary" else b"deskdesk"
        )
        assert code(channel, f"/Notes/{arity}", None) is grpc.StatusCode.UNAUTHENTICATED
        assert called(channel, f"/Notes/{arity}", token)


def test_a_method_that_is_not_there_is_not_asked_about(agent, serving):
    with serving() as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/Notes/nothing")(b"", timeout=60)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_outside_of_a_call_there_is_no_session():
    with pytest.raises(LookupError):
        current_session()
