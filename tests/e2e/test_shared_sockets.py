"""The verify socket, the ask socket and the owner's, as another user finds them."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgpack
import pytest

from agentd_client import AgentLockedError, Client, UnknownMethodError
from agentd_client.protocol import limits
from tests.agentd.socket_passing import listening, served
from tests.e2e.daemon import START_SECONDS, serving
from tests.e2e.locked import PASSPHRASE, protect, unlocked
from tests.operations import AT_SHARED_SOCKETS, EVERY
from tests.other_user import NOBODY, as_user, needs_root

OWNER = os.geteuid()
MOST = {
    "verify": (limits.MAX_VERIFY_CONNECTIONS, limits.MAX_VERIFY_CONNECTIONS_OF_UID),
    "ask": (limits.MAX_ASK_CONNECTIONS, limits.MAX_ASK_CONNECTIONS_OF_UID),
}
LOGGED = {
    "verify": "other users can have tokens verified at",
    "ask": "other programs can ask for sessions at",
}


@pytest.fixture(params=AT_SHARED_SOCKETS)
def kind(request):
    """Which of the sockets for others."""
    return request.param


@pytest.fixture
def shared_path(kind):
    """Where it is to be: in a folder that everybody may pass through."""
    with tempfile.TemporaryDirectory(prefix="agentd-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / f"{kind}.sock"


@pytest.fixture
def configure(home, kind, shared_path):
    def configure(more: str = "", **settings: object) -> None:
        config = home.path / "config" / "agentd" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        said = {"path": shared_path} | settings
        config.write_text("".join(f'{kind}_socket_{name} = "{said[name]}"\n' for name in said) + more)

    return configure


@pytest.fixture
def opened(home, configure):
    """An agent whose socket for others is open to everybody."""
    configure(mode="0666")
    with serving(home) as daemon:
        yield daemon


def at(path: Path, agent_uid: int | None = OWNER) -> Client:
    return Client.connect(str(path), timeout=START_SECONDS, patience=0, agent_uid=agent_uid)


def ask(path: Path, name: str, *args: object, agent_uid: int | None = OWNER, **named: object):
    """One call, for `as_user`."""

    def call():
        with at(path, agent_uid) as agent:
            return getattr(agent, name)(*args, **named)

    return call


def begin(path: Path) -> socket.socket:
    """A connection that was answered, and has begun its next request."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(START_SECONDS)
    sock.connect(os.fspath(path))
    sock.sendall(msgpack.packb([0, 1, "hello", [{}]]) + msgpack.packb([0, 2, "hello", [{}]])[:-1])
    assert sock.recv(100), "the answer to the first"
    return sock


def knock(path: Path) -> socket.socket:
    """A connection with a request, of which no answer was read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(START_SECONDS)
    sock.connect(os.fspath(path))
    sock.sendall(msgpack.packb([0, 1, "hello", [{}]]))
    return sock


# --- the owner's socket ---


@needs_root
def test_the_owners_socket_opened_to_everybody_by_hand_still_hears_nobody_else(home, daemon):
    with daemon.client() as agent:
        token = agent.create_token().token
    for folder in (home.path, home.runtime, home.socket.parent):
        folder.chmod(0o755)
    home.socket.chmod(0o666)

    def speak():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(START_SECONDS)
            sock.connect(str(home.socket))
            try:
                sock.sendall(msgpack.packb([0, 1, "verifyToken", [{"token": token}]]))
                return len(sock.recv(100))
            except (BrokenPipeError, ConnectionResetError):
                return 0

    with daemon.client() as agent:
        before = agent.get_status().counters
    assert as_user(speak) == 0
    assert as_user(speak) == 0
    with daemon.client() as agent:
        after = agent.get_status().counters
    assert after.peers_refused - before.peers_refused == 2
    assert after.requests - before.requests == 1, "the status itself: nothing of theirs was read"
    assert f"peer uid={NOBODY}" in daemon.log.read_text()


# --- a socket for others ---


@needs_root
def test_another_user_learns_whether_a_token_is_good_and_for_what(opened, shared_path):
    with opened.client() as agent:
        created = agent.create_token(label="a label", audience=["web"], scopes=["read", "write"])
        assert as_user(ask(shared_path, "verify_token", created.token, audience="web")) is True
        judged = as_user(ask(shared_path, "judge_token", created.token, audience="web", scopes=["read"]))
        assert judged == [True, None, ["web"], ["read", "write"]]
        for asked, reason in (
            ({}, "WRONG_AUDIENCE"),
            ({"audience": "mail"}, "WRONG_AUDIENCE"),
            ({"audience": "web", "scopes": ["read", "admin"]}, "MISSING_SCOPE"),
        ):
            assert as_user(ask(shared_path, "judge_token", created.token, **asked)) == [
                False,
                reason,
                None,
                None,
            ]
        agent.revoke_token(created.token)
        judged = as_user(ask(shared_path, "judge_token", created.token, audience="web"))
        assert judged == [False, "REVOKED", None, None]
    assert created.token not in opened.log.read_text()


@needs_root
def test_a_locked_agent_says_so_at_the_sockets_for_others_too(home, configure, kind, shared_path):
    protect(home)
    configure(mode="0666")
    with unlocked(home) as daemon, daemon.client() as agent:
        token = agent.create_token().token
        assert as_user(ask(shared_path, "verify_token", token)) is True
        agent.lock()
        with pytest.raises(AgentLockedError):
            ask(shared_path, "judge_token", token)()
        with at(shared_path) as other, pytest.raises(UnknownMethodError):
            other.unlock(PASSPHRASE)
        assert sorted(as_user(ask(shared_path, "hello"))[2]) == sorted(AT_SHARED_SOCKETS[kind])
        assert agent.get_status().locked


@needs_root
def test_the_bytes_of_an_answer_hold_nothing_of_the_session(opened, shared_path):
    with opened.client() as agent:
        created = agent.create_token(label="a label")

    def speak():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(START_SECONDS)
            sock.connect(str(shared_path))
            sock.sendall(msgpack.packb([0, 1, "verifyToken", [{"token": created.token}]]))
            return sock.recv(4096).hex()

    answer = msgpack.unpackb(bytes.fromhex(as_user(speak)))
    assert answer == [1, 1, None, {"valid": True, "reason": None, "audience": None, "scopes": None}]


@needs_root
def test_whatever_else_another_user_asks_is_an_unknown_method(opened, kind, shared_path):
    def try_every_method():
        known = []
        for name in sorted(EVERY):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(START_SECONDS)
                sock.connect(str(shared_path))
                sock.sendall(msgpack.packb([0, 1, name, [{"noSuchParameter": 1}]]))
                if b"UNKNOWN_METHOD" not in sock.recv(4096):
                    known.append(name)
        return known

    assert as_user(try_every_method) == sorted(AT_SHARED_SOCKETS[kind])


@needs_root
def test_a_client_sends_nothing_to_another_users_agent_unless_that_user_was_named(opened, shared_path):
    for agent_uid in (None, NOBODY, OWNER + 1):
        assert as_user(ask(shared_path, "verify_token", "v4.local.x", agent_uid=agent_uid)) == [
            "ForeignAgentError"
        ]
    with opened.client() as agent:
        assert agent.get_status().counters.requests == 2, "what this test and its fixture asked"


@needs_root
def test_uses_are_counted_whichever_socket_they_come_through(opened, shared_path):
    with opened.client() as agent:
        token = agent.create_token(max_uses=3).token
        assert agent.verify_token(token)
        assert [as_user(ask(shared_path, "verify_token", token)) for _ in range(3)] == [True, True, False]
        assert agent.inspect_token(token).reason == "USED_UP"


@needs_root
def test_the_owner_sees_who_asked(opened, shared_path):
    as_user(ask(shared_path, "verify_token", "v4.local.x"))
    refusals = []
    with opened.client() as agent:
        while not refusals:  # the verdict does not wait for the audit log
            refusals = [entry for entry in agent.list_audit().entries if entry.kind == "refused"]
    (refused,) = refusals
    assert (refused.peer_uid, refused.reason) == (NOBODY, "MALFORMED")


@needs_root
def test_one_user_can_neither_fill_the_socket_nor_keep_the_owner_from_an_answer(opened, kind, shared_path):
    _, most = MOST[kind]
    ready, go = os.pipe(), os.pipe()

    def crowd():
        with ExitStack() as held:
            try:
                socks = [held.enter_context(begin(shared_path)) for _ in range(most)]
                one_more = held.enter_context(knock(shared_path))
                answered = bool(one_more.recv(1))
                made_room = socks.pop(0).recv(1) == b""
            finally:
                os.write(ready[1], b"\n")
            os.read(go[0], 1)
            for sock in socks:
                sock.sendall(b"\x80")
                answered += bool(sock.recv(100))
        return [made_room, answered]

    with ThreadPoolExecutor(1) as pool:
        crowding = pool.submit(as_user, crowd)
        try:
            os.read(ready[0], 1)
            assert as_user(ask(shared_path, "hello"), uid=61001)[1] == 1
            assert ask(shared_path, "hello")().protocol == 1
            with opened.client() as agent:
                assert agent.get_status().counters.peers_refused == 0
        finally:
            os.write(go[1], b"\n")
        assert crowding.result(START_SECONDS) == [True, most]
    for descriptor in (*ready, *go):
        os.close(descriptor)
    assert f"the limit of one user is {most}" in opened.log.read_text()


@needs_root
def test_one_process_with_many_uids_does_not_keep_the_next_user_out(opened, kind, shared_path):
    """What a user is that has 65,536 subordinate uids, as root of a user namespace."""
    most, _ = MOST[kind]

    def crowd():
        held = []
        for uid in range(100_000, 100_000 + 2 * most):
            os.seteuid(uid)  # which is what the kernel tells the agent
            held.append(begin(shared_path))
            os.seteuid(0)
        return ask(shared_path, "hello")()[1], len(held)

    def outsider():
        return [ask(shared_path, "hello")()[1] for _ in range(3)]

    with ThreadPoolExecutor(1) as pool:
        ready, go = os.pipe(), os.pipe()

        def crowd_and_wait():
            try:
                return crowd()
            finally:
                os.write(ready[1], b"\n")
                os.read(go[0], 1)

        crowding = pool.submit(as_user, crowd_and_wait, 0)
        try:
            os.read(ready[0], 1)
            assert as_user(outsider, 61001) == [1, 1, 1]
        finally:
            os.write(go[1], b"\n")
        assert crowding.result(START_SECONDS) == [1, 2 * most]
    for descriptor in (*ready, *go):
        os.close(descriptor)


# --- who may connect ---


@needs_root
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ["PermissionError", "PermissionError"]),
        (["group"], [True, "PermissionError"]),
        (["group", "mode"], [True, True]),
    ],
)
def test_path_group_and_mode_decide_who_may_connect(home, configure, shared_path, settings, expected):
    group = next(group for group in grp.getgrall() if group.gr_gid not in (OWNER, NOBODY))

    def connects():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(shared_path))
        return True

    given = {"group": group.gr_name, "mode": "0666"}
    configure(**{name: given[name] for name in settings})
    with serving(home):
        found = [as_user(connects, groups=[group.gr_gid]), as_user(connects)]
        assert [each if each is True else each[0] for each in found] == expected


def test_only_the_owner_may_connect_where_nothing_is_said(home, configure, kind, shared_path):
    configure()
    with serving(home) as daemon:
        assert stat.S_IMODE(shared_path.stat().st_mode) == 0o600
        with daemon.client() as agent:
            token = agent.create_token(scopes=["read"]).token
        with at(shared_path) as agent:
            assert set(agent.hello().capabilities) == AT_SHARED_SOCKETS[kind]
            assert agent.judge_token(token) == (True, None, None, ["read"])
        verified = home.agentctl("--socket", str(shared_path), "verify", "-", input=token)
        assert (verified.returncode, verified.stdout) == (0, "valid\n")
        assert f"{LOGGED[kind]} {shared_path}" in daemon.log.read_text()
    assert not shared_path.exists(), "it is removed with the agent's end"


def test_without_the_setting_there_is_no_such_socket(home, daemon, kind, shared_path):
    assert not shared_path.exists()
    assert LOGGED[kind] not in daemon.log.read_text()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"group": "no-such-group"}, "_socket_group: there is no group 'no-such-group'"),
        ({"mode": "0777"}, "_socket_mode is one of 0600, 0660, 0666"),
    ],
)
def test_settings_that_cannot_be_meant_end_the_start(home, configure, kind, shared_path, settings, named):
    configure(**settings)
    refused = home.agentd("serve")
    assert refused.returncode == 78
    assert f"{kind}{named}" in refused.stderr
    assert not shared_path.exists()
    assert not home.socket.exists()


def test_a_folder_that_others_may_write_to_ends_the_start(home, configure, shared_path):
    shared_path.parent.chmod(0o777)
    configure()
    refused = home.agentd("serve")
    assert refused.returncode == 78
    assert f"others may write to {shared_path.parent}" in refused.stderr


def test_a_killed_agents_socket_is_replaced_and_two_agents_never_share_one(home, configure, shared_path):
    configure()
    home.start().ready().signal(signal.SIGKILL)
    assert shared_path.is_socket()
    with serving(home):
        assert ask(shared_path, "hello")().protocol == 1
        elsewhere = ("--socket", str(home.runtime / "other" / "s"), "--state", str(home.path / "other"))
        second = home.agentd("serve", *elsewhere)
        assert second.returncode == 73
        assert f"another agent already serves {shared_path}" in second.stderr
        assert ask(shared_path, "hello")().protocol == 1


# --- handed over by systemd ---


@pytest.fixture
def listener(home):
    home.socket.parent.mkdir(mode=0o700)
    with listening(home.socket) as listener:
        yield listener


@pytest.fixture
def passed(shared_path):
    with listening(shared_path) as passed:
        shared_path.chmod(0o666)
        yield passed


def test_a_socket_that_systemd_passes_for_it_is_served_and_left_to_the_next_agent(
    home, configure, kind, listener, passed, shared_path
):
    configure(mode="0660", path=shared_path.with_name("elsewhere.sock"))  # has no say then
    agent = served(home, listener, others={kind: passed})
    with at(home.socket) as owner, at(shared_path) as other:
        token = owner.create_token().token
        assert other.judge_token(token).valid
        assert set(other.hello().capabilities) == AT_SHARED_SOCKETS[kind]
        assert owner.get_status().socket_path == str(home.socket)
    assert [path.name for path in shared_path.parent.iterdir()] == [f"{kind}.sock"]
    agent.send_signal(signal.SIGTERM)
    assert agent.communicate(timeout=START_SECONDS)[1].count("Traceback") == 0
    assert agent.returncode == 0
    assert shared_path.is_socket()
    agent = served(home, listener, others={kind: passed})
    with at(shared_path) as other:
        assert other.verify_token(token)
    agent.terminate()
    agent.communicate(timeout=START_SECONDS)


def test_the_settings_count_where_systemd_passes_only_the_owners(home, configure, listener, shared_path):
    configure()
    agent = served(home, listener)
    with at(home.socket) as owner:
        token = owner.create_token().token
    with at(shared_path) as other:
        assert other.verify_token(token)
    agent.terminate()
    agent.communicate(timeout=START_SECONDS)
    assert not shared_path.exists()


def test_who_waits_at_it_is_told_of_a_failed_start_and_not_the_reason(
    home, configure, kind, listener, passed, shared_path
):
    configure("nonsense = 1")
    with knock(home.socket) as owner, knock(shared_path) as other:
        agent = served(home, listener, others={kind: passed})
        answers = [msgpack.unpackb(sock.recv(4096))[2] for sock in (owner, other)]
        assert "nonsense" in answers[0][1]
        assert answers[1] == [0, "START: the agent could not start: its owner is told why"]
        assert other.recv(1) == b""
    agent.communicate(timeout=START_SECONDS)
    assert agent.returncode == 78
