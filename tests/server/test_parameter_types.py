"""Every parameter of every method, with a value of every MessagePack type: taken as it is, or refused by name.

What a parameter may be is read from docs/protocol.md.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from agentd import methods, request_methods
from agentd.server import Params, PassphraseBytes
from agentd_client.protocol.codec import Decoder
from tests.server.talk import FakeCaller, FakeLocking, FakeSessions, dispatch_of, request

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()

VALUES: dict[str, list[Any]] = {
    "bool": [True, False],
    "integer": [1, 0, -1, 2**63, -(2**63), 2**64 - 1],
    "float": [1.0, 60.0, 1.5, -0.0, math.nan, math.inf],
    "text": [
        *("text", "", "1", "60", "1.0", "true", "null", "never", "active", "\N{SNOWMAN}"),
        *("password", "cGFzcw==", "hunter2"),
        *("2026-01-01T00:00:00Z", "2026-01-01", "PT1H", "0b1f9e0a-0000-4000-8000-000000000000"),
    ],
    "bytes": [b"text", b"", b"1", b"password", b"cGFzcw==", b"\xff\xfe", b"never"],
    "array": [[], ["text"], [1], [b"text"], [["text", 1]], [None]],
    "map": [{}, {"text": 1}, {"text": None}],
}
"""Of each type what another type could be made of: digits, base64, dates, numbers that are whole or are none."""

KINDS: dict[str, type[Params]] = {
    "hello": methods.HelloParams,
    "getStatus": Params,
    "createToken": methods.CreateTokenParams,
    "verifyToken": methods.VerifyTokenParams,
    "inspectToken": methods.InspectTokenParams,
    "renewToken": methods.RenewTokenParams,
    "listSessions": methods.ListSessionsParams,
    "revokeToken": methods.RevokeTokenParams,
    "revokeSessions": methods.SelectionParams,
    "resetKey": methods.ResetKeyParams,
    "listAudit": methods.ListAuditParams,
    "lock": Params,
    "unlock": methods.UnlockParams,
    "changePassphrase": methods.ChangePassphraseParams,
    "subscribe": Params,
    "requestToken": request_methods.RequestTokenParams,
    "withdrawRequest": request_methods.RequestParams,
    "listRequests": request_methods.ListRequestsParams,
    "decideRequest": request_methods.DecideRequestParams,
}

CODES = {
    "expiry": "INVALID_EXPIRY",
    "maxLifetime": "INVALID_EXPIRY",
    "label": "INVALID_LABEL",
    "audience": "INVALID_AUDIENCE",
    "scopes": "INVALID_SCOPES",
    "maxUses": "INVALID_USES",
    "graceSeconds": "INVALID_GRACE",
    "reason": "INVALID_REASON",
}
"""The codes that name a parameter."""


def documented(method: str) -> dict[str, str]:
    """The parameters of a method and their types, as the document has them."""
    section = re.search(rf"^### {method}\n(.*?)(?=^##)", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert section is not None
    if method == "revokeSessions":
        return {name: documented("listSessions")[name] for name in ("state", "label", "pid", "parent")}
    _, _, table = section[1].partition("| parameter | type | |\n|---|---|---|\n")
    rows = table.partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|;]+?)(?:; \*\*required\*\*)? \|", rows, re.MULTILINE))


def types_of(words: str) -> set[str]:
    """The MessagePack types that a document's words stand for."""
    if words == "anything":
        return {*VALUES}
    known = {"time": {"integer", "float"}, "number": {"integer", "float"}, "array of text": {"array"}}
    return set().union(*(known.get(word, {word}) for word in words.split(" or ")))


PARAMETERS = [
    (method, name, types_of(words)) for method in KINDS for name, words in documented(method).items()
]


@pytest.mark.parametrize("method", KINDS)
def test_the_document_has_every_parameter_of_a_method(method):
    assert {*documented(method)} == {*KINDS[method].__struct_encode_fields__}
    assert {*KINDS} == {*dispatch_of(FakeSessions()).names}


def test_no_parameter_has_a_type_that_text_would_be_converted_to():
    known = {str, int, float, bool, Any, methods.TokenText, PassphraseBytes, type(None)}
    for kind in KINDS.values():
        for field in msgspec.structs.fields(kind):
            found = msgspec.inspect.type_info(field.type)
            types = found.types if isinstance(found, msgspec.inspect.UnionType) else (found,)
            for each in types:
                plain = {
                    msgspec.inspect.StrType: str,
                    msgspec.inspect.IntType: int,
                    msgspec.inspect.FloatType: float,
                    msgspec.inspect.BoolType: bool,
                    msgspec.inspect.AnyType: Any,
                    msgspec.inspect.NoneType: type(None),
                }.get(type(each)) or getattr(each, "cls", each)
                assert plain in known, (kind, field.name)


async def answer(dispatch, method: str, params: dict[str, Any]) -> list[Any]:
    """What a request is answered, over the codec of both sides: error, result."""
    (message,) = Decoder().receive(request(1, method, params))
    caller = FakeCaller()
    reply = dispatch.answer(message, caller) or await dispatch.answer_async(message, caller)
    return msgpack.unpackb(reply)[2:]


def besides(method: str, name: str, token: str = "v4.local.AAAA") -> dict[str, Any]:
    """What a request needs beside that parameter."""
    if method in ("verifyToken", "inspectToken") and name in ("audience", "scopes"):
        return {"token": token}
    if method == "decideRequest":
        return {key: value for key, value in (("id", "id"), ("decision", "approve")) if key != name}
    return {"old": b"old"} if method == "changePassphrase" and name == "new" else {}


async def test_a_value_of_another_type_is_refused_by_the_parameters_name(manager):
    dispatch = dispatch_of(manager)
    for method, name, taken in PARAMETERS:
        for type_ in VALUES.keys() - taken:
            for value in VALUES[type_]:
                params = {name: value, **besides(method, name)}
                error, result = await answer(dispatch, method, params)
                where = f"{method} {name}={value!r}: {error} {result}"
                assert result is None, where
                number, text = error
                code, _, sentence = text.partition(": ")
                assert number == 1, where
                assert code == CODES.get(name) or (
                    code == "INVALID_PARAMS" and re.search(rf"\b{name}\b", sentence)
                ), where
                assert f"{value!r}" not in sentence or len(f"{value!r}") < 6, where


async def test_a_value_of_its_type_is_never_refused_for_its_type(manager):
    dispatch = dispatch_of(manager)
    for method, name, taken in PARAMETERS:
        for type_ in taken:
            for value in VALUES[type_]:
                params = {name: value, **besides(method, name)}
                error, _ = await answer(dispatch, method, params)
                assert error is None or ", got `" not in error[1], (method, params, error)


def handed_on(name: str, value: Any) -> Any:
    """What a handler gets where the document says that two types mean the same."""
    if name in ("passphrase", "old", "new"):
        return value.encode() if isinstance(value, str) else value
    if name == "token" or (name == "parent" and isinstance(value, bytes)):
        return value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return float(value) if name in ("since", "wait") else value


@pytest.mark.parametrize(("method", "name", "taken"), PARAMETERS)
async def test_what_is_taken_is_handed_on_as_it_was_sent(method, name, taken):
    for type_, value in [(kind, each) for kind in VALUES for each in VALUES[kind]]:
        sessions, locking = FakeSessions(), FakeLocking()
        error, _ = await answer(
            dispatch_of(sessions, locking), method, {name: value, **besides(method, name, "good")}
        )
        if type_ not in taken and name not in CODES:  # the sessions' own rules refuse those, with their codes
            assert error is not None
            assert (sessions.asked, locking.asked) == ([], [])
            continue
        expected = handed_on(name, value)
        for asked in [*sessions.asked, *locking.asked]:
            assert (type(expected), repr(expected)) in [(type(each), repr(each)) for each in asked], asked
