from __future__ import annotations

import os
import secrets
import socket
import tempfile
from contextlib import ExitStack

import pytest

from agentd.systemd import is_journal, notify, passed_sockets, watchdog_seconds
from agentd_client.errors import SocketPathError
from tests.agentd.socket_passing import listening, started_with_sockets

OWN_PID = str(os.getpid())
OWNERS = "a None None"
TAKE = """
import os
from agentd.systemd import passed_sockets
from agentd_client.errors import SocketPathError
try:
    passed = passed_sockets().owners
except SocketPathError as error:
    print(error.sentence, end="")
else:
    print(passed.fileno(), passed.getsockname(), passed.getblocking(), os.get_inheritable(3), end="")
"""


TAKE_ALL = """
from agentd.systemd import passed_sockets
from agentd_client.errors import SocketPathError
try:
    passed = passed_sockets()
except SocketPathError as error:
    print(error.sentence, end="")
else:
    print(*(each and each.getsockname().rpartition("/")[2] for each in passed), end="")
"""


def taken(*passed: object, program: str = TAKE, names: str | None = None) -> str:
    said, failed = started_with_sockets(passed, "-c", program, names=names).communicate(timeout=60)
    assert not failed
    return said


# --- sockets ---


def test_the_listening_socket_is_taken_and_neither_blocks_nor_is_inherited(tmp_path):
    with listening(tmp_path / "s") as listener:
        assert taken(listener) == f"3 {tmp_path}/s False False"


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getppid())}]
)
def test_sockets_meant_for_another_process_are_ignored(environ):
    assert passed_sockets(environ) == (None, None, None)


@pytest.mark.parametrize("count", ["0", "2", "3", "", "many"])
def test_any_other_number_than_one_is_refused_where_they_have_no_names(count):
    with pytest.raises(
        SocketPathError, match=f"systemd passed {count} sockets .without names.; agentd.socket"
    ):
        passed_sockets({"LISTEN_PID": OWN_PID, "LISTEN_FDS": count})


@pytest.mark.parametrize(
    ("names", "owners_verify_ask"),
    [
        ("agentd.socket:verify", "a b None"),
        ("verify:agentd.socket", "b a None"),
        ("agent:verify", "a b None"),
        (":verify", "a b None"),
        ("agentd.socket:ask", "a None b"),
        ("verify:ask", "None a b"),
        ("agentd.socket:verify:ask", "a b c"),
        ("ask::verify", "b c a"),
    ],
)
def test_several_sockets_are_distinguished_by_name(tmp_path, names, owners_verify_ask):
    with ExitStack() as held:
        passed = [held.enter_context(listening(tmp_path / name)) for name in "abc"[: names.count(":") + 1]]
        assert taken(*passed, program=TAKE_ALL, names=names) == owners_verify_ask


@pytest.mark.parametrize(
    ("names", "owners_verify_ask"),
    [
        ("verify", "None a None"),
        ("ask", "None None a"),
        *((name, OWNERS) for name in ("agentd.socket", "Verify", "verify2", "verify.socket", "not-verify")),
        *((name, OWNERS) for name in ("Ask", "ask2", "ask.socket", "owners")),
        *((unclear, OWNERS) for unclear in (None, "", "verify:verify", ":verify", "verify:ask")),
    ],
)
def test_one_socket_is_the_owners_unless_its_name_is_exactly_that_of_a_socket_for_others(
    tmp_path, names, owners_verify_ask
):
    with listening(tmp_path / "a") as only:
        assert taken(only, program=TAKE_ALL, names=names) == owners_verify_ask


@pytest.mark.parametrize(
    "names",
    [
        "verify:verify",
        "ask:ask",
        "agentd.socket:verfy",
        "agentd.socket:Ask",
        "a:b:verify",
        "verify",
        "unknown:",
    ],
)
def test_two_of_which_it_is_not_clear_which_is_which_are_refused(tmp_path, names):
    with listening(tmp_path / "a") as one, listening(tmp_path / "b") as other:
        said = taken(one, other, program=TAKE_ALL, names=names)
    assert said.startswith("systemd passed 2 sockets (")
    assert said.endswith("agentd-verify.socket one named 'verify', and agentd-ask.socket one named 'ask'")


def test_a_second_socket_that_is_none_is_refused_like_the_first(tmp_path):
    with listening(tmp_path / "a") as one, tempfile.TemporaryFile() as file:
        said = taken(one, file, program=TAKE_ALL, names="agentd.socket:verify")
    assert said == "systemd passed a descriptor that is not a socket: Socket operation on non-socket"


def test_a_descriptor_that_is_no_socket_is_refused():
    with tempfile.TemporaryFile() as file:
        assert (
            taken(file) == "systemd passed a descriptor that is not a socket: Socket operation on non-socket"
        )


def unbound_stream():
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def datagram():
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def over_tcp():
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("make", [unbound_stream, datagram, over_tcp])
def test_a_socket_of_another_kind_is_refused(make):
    with make() as other:
        assert taken(other) == "systemd passed something other than a listening Unix stream socket"


def test_a_socket_without_a_path_is_refused():
    with listening("\0agentd-test-" + secrets.token_hex(8)) as abstract:
        assert "without a path" in taken(abstract)


# --- readiness ---


@pytest.fixture(params=["in the file system", "abstract"])
def notified(request, tmp_path):
    address = (
        str(tmp_path / "notify") if request.param != "abstract" else "\0agentd-test-" + secrets.token_hex(8)
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        yield manager, {"NOTIFY_SOCKET": address.replace("\0", "@")}


def test_a_state_reaches_the_manager(notified):
    manager, environ = notified
    assert notify("READY=1\nSTATUS=ready", environ)
    assert manager.recv(100) == b"READY=1\nSTATUS=ready"


def test_notify_does_not_wait_for_a_manager_that_does_not_read(notified):
    manager, environ = notified
    taken = 0
    while notify("WATCHDOG=1", environ):
        taken += 1
    assert taken
    assert manager.recv(100)
    assert notify("WATCHDOG=1", environ), "there is room again"


@pytest.mark.parametrize(
    "address", ["", "relative", "/nonexistent/notify", "@agentd-test-nobody-listens-here"]
)
def test_without_a_manager_notify_has_no_effect(address):
    assert notify("READY=1", {"NOTIFY_SOCKET": address})
    assert notify("READY=1", {})


# --- the watchdog ---


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": OWN_PID}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_PID": OWN_PID}, None),
    ],
)
def test_the_watchdogs_time_is_in_seconds_and_only_for_whom_it_is_meant(environ, seconds):
    assert watchdog_seconds(environ) == seconds


# --- the journal ---


def test_a_descriptor_is_the_journal_where_device_and_inode_say_so(tmp_path):
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        found = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(stream.fileno(), environ)
        assert not is_journal(other.fileno(), environ), "it was redirected since"
        assert not is_journal(stream.fileno(), {})
        assert not is_journal(stream.fileno(), {"JOURNAL_STREAM": "nonsense"})
        closed = stream.fileno()
    assert not is_journal(closed, environ)
