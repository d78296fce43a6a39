from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd_client import errors
from agentd_client.errors import AgentdError, ProtocolError, RequestError
from agentd_client.protocol import results
from agentd_client.protocol.codec import Decoder, Encoder
from agentd_client.protocol.results import (
    Counters,
    CreatedToken,
    Hello,
    KeyReset,
    Opener,
    Revocation,
    SessionInfo,
    Status,
    Verification,
)
from agentd_client.protocol.wire import camel, error_from_wire, error_to_wire, from_wire, to_wire

EXAMPLES = [
    Hello("agentd 1", 1, ["hello"]),
    Status("1", "a", 2, 3.5, 4.5, 5, "k", "/s", "/d", 6, True, {"requests": 1}),
    Counters(1, 2, 3, 4, 5, 6, 7),
    CreatedToken("t", "i", None),
    CreatedToken("t", "i", 5.5),
    Opener(0, 1),
    SessionInfo("i", "l", 1, None, None),
    Verification(False, "MALFORMED", None),
    Revocation(True),
    KeyReset("k"),
]


def over_the_wire(value: object) -> object:
    (response,) = Decoder().receive(Encoder().result(1, value))
    return response.result


def test_every_result_has_an_example_here():
    kinds = {
        value for value in vars(results).values() if isinstance(value, type) and hasattr(value, "_fields")
    }
    assert kinds == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_every_result_comes_back_as_it_went(result):
    assert from_wire(type(result), over_the_wire(to_wire(result))) == result


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_a_missing_field_is_named_unless_it_may_be_nil(result):
    for field, value in zip(result._fields, result, strict=True):
        sent = to_wire(result)
        del sent[camel(field)]
        if value is None:
            assert from_wire(type(result), sent) == result
        elif field not in {"expires_at", "reason", "session", "opened_by"}:
            with pytest.raises(ProtocolError, match=camel(field)):
                from_wire(type(result), sent)


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_a_field_of_another_type_is_refused_and_a_boolean_is_no_number(result):
    for field, value in zip(result._fields, result, strict=True):
        wrong = 1 if isinstance(value, bool) else True
        with pytest.raises(ProtocolError, match=camel(field)):
            from_wire(type(result), to_wire(result) | {camel(field): wrong})


def test_nested_results_become_nested_maps():
    found = to_wire(Verification(True, None, SessionInfo("i", "l", 1.5, 2.5, Opener(3, 4))))
    assert found == {
        "valid": True,
        "reason": None,
        "session": {
            "id": "i",
            "label": "l",
            "createdAt": 1.5,
            "expiresAt": 2.5,
            "openedBy": {"uid": 3, "pid": 4},
        },
    }


def test_fields_that_a_newer_agent_added_are_passed_over():
    assert from_wire(Revocation, {"revoked": True, "children": 3}) == Revocation(True)


@pytest.mark.parametrize("answer", [None, 1, [], "text"])
def test_an_answer_that_is_no_map_is_refused(answer):
    with pytest.raises(ProtocolError, match="not a map"):
        from_wire(Revocation, answer)


@pytest.mark.parametrize("kind", errors.ERRORS.values(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_class_with_its_sentence(kind):
    found = error_from_wire(over_the_wire(error_to_wire(kind("what: happened"))))
    assert type(found) is kind
    assert found.sentence == "what: happened"


def test_an_error_has_the_form_that_foreign_clients_show():
    assert error_to_wire(errors.UnknownMethodError("no method 'x'")) == [1, "UNKNOWN_METHOD: no method 'x'"]


@pytest.mark.parametrize("received", [[9999, "NEWER: words"], [1, "OTHER_CODE: words"], [1, "no code"]])
def test_an_error_that_is_not_known_here_is_a_refusal_that_shows_its_text(received):
    found = error_from_wire(received)
    assert type(found) is RequestError
    assert found.sentence == received[1]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_an_error_of_whatever_form_becomes_an_error(received):
    assert isinstance(error_from_wire(received), AgentdError)


def test_python_names_are_spelled_in_camel_case():
    assert [camel(name) for name in ("id", "created_at", "store_bytes")] == ["id", "createdAt", "storeBytes"]
