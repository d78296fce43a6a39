"""Every method of the wire is in the protocol's document and in both clients."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from agentd_client import Client
from agentd_client.aio import AsyncClient
from tests.operations import EVERY

PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
METHODS = PROTOCOL.partition("\n## Methods\n")[2].partition("\n## ")[0]


def python_name(method: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), method)


def public(kind: type) -> dict[str, object]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def test_the_document_has_a_section_for_every_method_and_for_no_other():
    titles = set(re.findall(r"^### (\w+)$", METHODS, re.MULTILINE))
    assert titles == EVERY


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", sorted(EVERY))
def test_both_clients_have_every_method(client, method):
    assert callable(public(client)[python_name(method)])


@pytest.mark.parametrize("name", sorted(public(Client)))
def test_what_one_client_can_the_other_can_with_the_same_arguments(name):
    one, other = public(Client)[name], public(AsyncClient)[name]
    if inspect.isfunction(one):
        assert list(map(plain, parameters(one))) == list(map(plain, parameters(other)))


def test_neither_client_can_what_the_other_cannot():
    assert set(public(Client)) == set(public(AsyncClient))


@pytest.mark.parametrize("method", sorted(EVERY - {"hello", "revokeSessions"}))
def test_the_parameters_in_the_document_are_those_of_the_clients(method):
    """Those of hello the clients know themselves; those of revokeSessions are told by reference.

    The clients poll for a request's outcome themselves, so theirs takes no id; it says when it waits.
    """
    section = METHODS.partition(f"\n### {method}\n")[2].partition("\n### ")[0]
    table = section.partition("| parameter |")[2].partition("\n\n")[0]
    named = {python_name(name) for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)}
    taken = {each.name for each in parameters(public(Client)[python_name(method)])} - {"self"}
    if method == "requestToken":
        named, taken = named - {"id"}, taken - {"on_waiting"}
    assert named == taken


def parameters(function):
    return inspect.signature(function).parameters.values()


def plain(parameter):
    return parameter.name, parameter.kind, parameter.default
