from __future__ import annotations

import graphlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

import agentd_client
from agentd_client import errors, light_typing
from tests.client.scripted import ScriptedAgent

HEAVY = ("trio", "anyio", "asyncio", "lmdb", "nacl", "click", "logging", "dataclasses", "pathlib", "agentd")


def _loaded_by(statement: str) -> set[str]:
    # -I: no site customisation and no PYTHON* variables decide what is loaded.
    program = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_bare_client_imports_msgpack_and_nothing_heavy() -> None:
    loaded = _loaded_by("import agentd_client; agentd_client.Client; agentd_client.Session")
    # An editable install's own finder may load some; what counts is what the client adds.
    loaded -= _loaded_by("pass")
    assert "msgpack" in loaded
    assert not loaded.intersection(HEAVY)
    third_party = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    # msgpack is compiled by Cython, which leaves its own names in sys.modules.
    assert {name for name in third_party if "cython" not in name} == {"agentd_client", "msgpack"}


SLOW = {
    "asyncio",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "inspect",
    "json",
    "logging",
    "re",
    "selectors",
}
SLOW |= {"socket", "subprocess", "tempfile", "threading", "typing", "urllib"}
"""What of the standard library takes long to import, beside what msgpack imports itself."""

FOR_SESSIONS = {"contextlib", "enum", "functools"}

# What a call needs that meets no trouble, and what a session needs that is read.
TROUBLE = {f"agentd_client.{name}" for name in ("transport.repeating", "versions", "file_locks")}
TROUBLE |= {
    "agentd_client.token_file.renewal",
    "agentd_client.transport.events",
    "agentd_client.protocol.passphrases",
}


def test_a_client_imports_nothing_that_its_calls_do_not_use(path: Path) -> None:
    program = (
        f"import agentd_client\nwith agentd_client.Client.connect({str(path)!r}) as agent:\n"
        "    assert agent.verify_token('good')\n    agent.create_token()"
    )
    with ScriptedAgent(path):
        loaded = _loaded_by(program) - _loaded_by("pass")
    assert not loaded & (SLOW | TROUBLE | {"agentd_client.session", "agentd_client.lifecycle"})


def test_a_session_imports_nothing_that_reading_a_token_does_not_use(tmp_path: Path) -> None:
    statement = (
        f"import agentd_client; agentd_client.Session.create_session({str(tmp_path / 't')!r}).read_token()"
    )
    loaded = _loaded_by(statement) - _loaded_by("pass")
    others = {
        "agentd_client.blocking",
        "agentd_client.requesting",
        "agentd_client.token_file.folder",
        "agentd_client.file_locks",
        "fcntl",
    }
    assert not loaded & (SLOW - FOR_SESSIONS | TROUBLE | others)


def test_the_stand_in_for_named_tuples_makes_what_typing_would() -> None:
    class Light(light_typing.NamedTuple):
        """Says what it is."""

        first: int
        second: str = "two"

        def both(self) -> str:
            return f"{self.first} {self.second}"

    class Real(NamedTuple):
        """Says what it is."""

        first: int
        second: str = "two"

        def both(self) -> str:
            return f"{self.first} {self.second}"

    for given in ((1,), (1, "b")):
        light, real = Light(*given), Real(*given)
        assert light == real
        assert light.both() == real.both()
        assert light._asdict() == real._asdict()
        assert light._replace(first=3) == real._replace(first=3)
    for name in ("_fields", "_field_defaults", "__doc__", "__module__"):
        assert getattr(Light, name) == getattr(Real, name)
    assert Light.__qualname__ == Real.__qualname__.replace("Real", "Light")
    assert repr(Light(1)) == "Light(first=1, second='two')"


def test_a_name_is_loaded_when_it_is_used_and_an_unknown_one_is_refused() -> None:
    loaded = _loaded_by("import agentd_client") - _loaded_by("pass")
    assert {name for name in loaded if name.startswith("agentd_client")} == {"agentd_client"}
    assert "agentd_client.blocking" not in _loaded_by("from agentd_client import AgentdError")
    assert set(agentd_client.__all__) <= set(dir(agentd_client))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        agentd_client.nonsense  # noqa: B018 - asking is the test


def test_what_few_programs_need_is_imported_when_it_is_used() -> None:
    loaded = _loaded_by("import agentd_client")
    assert not loaded.intersection({"agentd_client.token_file.renewal", "agentd_client.transport.events"})
    loaded = _loaded_by(
        "import agentd_client.token_file.renewal, agentd_client.transport.events"
    ) - _loaded_by("pass")
    assert not loaded.intersection(HEAVY)


def test_the_async_twins_are_a_module_of_their_own() -> None:
    assert "anyio" in _loaded_by("import agentd_client.aio")


def test_every_public_error_can_be_imported_from_the_package() -> None:
    for error in errors.ERRORS.values():
        assert getattr(agentd_client, error.__name__) is error
        assert error.__name__ in agentd_client.__all__
    for name in agentd_client.__all__:
        assert hasattr(agentd_client, name)


def test_no_modules_of_the_client_import_each_other() -> None:
    graph = grimp.build_graph("agentd_client", exclude_type_checking_imports=True, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert list(graphlib.TopologicalSorter(imported).static_order())  # a cycle raises CycleError
