"""What may be granted of what was asked for: always less or the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.approval.terms import Terms, checked_reason
from agentd_client.errors import InvalidReasonError

NAMES = st.none() | st.lists(st.sampled_from(["read", "write", "deploy"]), unique=True)
AMOUNTS = st.none() | st.integers(1, 4)
TERMS = st.builds(Terms, NAMES, NAMES, AMOUNTS, AMOUNTS, st.booleans())

ALL = Terms(None, None, None, None, False)


@given(TERMS)
def test_terms_lie_within_themselves_and_within_no_restriction(terms):
    assert terms.excess(terms) is None
    assert terms.excess(ALL) is None


@given(TERMS, TERMS)
def test_what_two_terms_have_in_common_lies_within_both(terms, other):
    common = terms.narrowed(other)
    if common is not None:
        assert common.excess(terms) is None
        assert common.excess(other) is None


@given(TERMS, TERMS, TERMS)
def test_within_is_transitive(first, second, third):
    if first.excess(second) is None and second.excess(third) is None:
        assert first.excess(third) is None


@pytest.mark.parametrize(
    ("wider", "what"),
    [
        ({"scopes": ["read", "write"]}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"audience": ["other"]}, "audience"),
        ({"audience": None}, "audience"),
        ({"seconds": 61}, "expiry"),
        ({"seconds": None}, "expiry"),
        ({"uses": 3}, "uses"),
        ({"uses": None}, "uses"),
        ({"is_bound": False}, "bound"),
    ],
)
def test_whatever_is_wider_is_named(wider, what):
    asked = Terms(["api"], ["read"], 60, 2, True)
    assert what in asked._replace(**wider).excess(asked)


def test_terms_without_anything_in_common_grant_nothing():
    assert Terms(None, ["read"], 60, None, False).narrowed(Terms(None, ["write"], 60, None, False)) is None
    assert Terms(["a"], None, 60, None, False).narrowed(Terms(["b"], None, 60, None, False)) is None


def test_a_reason_is_a_line_of_text():
    assert checked_reason(None) == ""
    assert checked_reason("to deploy the page \N{ROCKET}") == "to deploy the page \N{ROCKET}"
    for bad in ("two\nlines", "\x1b[31mred", "\N{RIGHT-TO-LEFT OVERRIDE}x", "x" * 201, 7, b"bytes", ["x"]):
        with pytest.raises(InvalidReasonError) as error:
            checked_reason(bad)
        assert "red" not in str(error.value)
