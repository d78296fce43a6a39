"""Healthy systems and broken ones, and what `agentd doctor` says of each.

`python -m tests.e2e.breakages` prints all of it. Each is a scratch home of its own, and what is broken in it is
broken by hand, as it would be: with a wrong mode, a killed agent, a flipped byte.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb
import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from tests.clocks import ManualClock
from tests.e2e.daemon import Daemon, Home, scratch_home, serving

PAGE_BYTES = 4096
DAY_SECONDS = 24 * 3600.0


class Broken(NamedTuple):
    """What is done to a home, and the finding that has to name it, with its severity."""

    break_it: Callable[[Home, ExitStack], object]
    finding: str
    severity: str
    arguments: tuple[str, ...] = ()


BROKEN: dict[str, Broken] = {}


def _broken(finding: str, severity: str, *arguments: str) -> Callable[..., object]:
    def add(function: Callable[[Home, ExitStack], object]) -> object:
        BROKEN[function.__name__] = Broken(function, finding, severity, arguments)
        return function

    return add


class Examination(NamedTuple):
    """How the doctor ended, and its findings."""

    code: int
    findings: list[dict[str, str | None]]

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [finding for finding in self.findings if finding["name"] == name]


def call_doctor(home: Home, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call the doctor from a shell that has the commands in its PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = home.agentd("doctor", *arguments, PATH=path, **environ)
    assert ended.stderr == "", ended.stderr
    return ended


def examine(home: Home, *arguments: str, **environ: str) -> Examination:
    """What the doctor says, for programs."""
    ended = call_doctor(home, "--json", *arguments, **environ)
    return Examination(ended.returncode, json.loads(ended.stdout)["findings"])


@contextmanager
def broken_home(name: str) -> Iterator[tuple[Home, Broken]]:
    """A home that was healthy, with one thing broken in it."""
    with scratch_home() as home, ExitStack() as undo:
        BROKEN[name].break_it(home, undo)
        yield home, BROKEN[name]


def used(home: Home) -> None:
    """Let an agent run, open a few sessions and stop it."""
    with serving(home) as daemon, daemon.client() as agent:
        for number in range(60):
            agent.create_token(label=f"session {number}")


def _left_running(home: Home, undo: ExitStack, *arguments: str) -> Daemon:
    return undo.enter_context(serving(home, *arguments))


def _stopped(home: Home, undo: ExitStack) -> None:
    """An agent that does nothing any more, by SIGSTOP."""
    daemon = _left_running(home, undo)
    undo.callback(daemon.process.send_signal, signal.SIGCONT)
    daemon.process.send_signal(signal.SIGSTOP)


def _data(home: Home) -> Path:
    return home.state / "store" / "data.mdb"


def _root_page(data: Path) -> int:
    """The page that all entries hang from."""
    head = data.read_bytes()[: 2 * PAGE_BYTES]
    newest = max((0, PAGE_BYTES), key=lambda at: struct.unpack_from("=Q", head, at + 144)[0])
    root: int = struct.unpack_from("=Q", head, newest + 16 + 24 + 48 + 40)[0]
    return root


# --- files ------------------------------------------------------------------------------------------


@_broken("settings.file", "error")
def a_setting_that_is_misspelt(home: Home, undo: ExitStack) -> None:
    folder = home.path / "config" / "agentd"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('sesion_expiry = "8h"\n')


@_broken("settings.file", "error")
def settings_whose_link_leads_nowhere(home: Home, undo: ExitStack) -> None:
    folder = home.path / "config" / "agentd"
    folder.mkdir(parents=True)
    (folder / "config.toml").symlink_to(home.path / "dotfiles" / "agentd.toml")


def _set(home: Home, *lines: str) -> None:
    folder = home.path / "config" / "agentd"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("\n".join(lines))


@_broken("start.passphrase", "error")
def a_passphrase_file_that_is_not_there(home: Home, undo: ExitStack) -> None:
    _set(home, f'passphrase_file = "{home.path}/nothing"')


@_broken("start.passphrase", "error")
def a_passphrase_for_a_key_file_that_has_none(home: Home, undo: ExitStack) -> None:
    used(home)
    (home.path / "passphrase").touch(mode=0o600)
    (home.path / "passphrase").write_text("open up\n")
    _set(home, f'passphrase_file = "{home.path}/passphrase"')


@_broken("start.verify", "error")
def a_group_that_does_not_exist(home: Home, undo: ExitStack) -> None:
    _set(home, f'verify_socket_path = "{home.path}/s"', 'verify_socket_group = "agentd-no-such-group"')


@_broken("start.verify", "error")
def a_folder_for_others_that_is_not_there(home: Home, undo: ExitStack) -> None:
    _set(home, f'verify_socket_path = "{home.path}/shared/s"')


@_broken("start.state", "error")
def a_file_where_the_state_folder_has_to_be(home: Home, undo: ExitStack) -> None:
    home.state.parent.write_text("")


@_broken("start.state", "error")
def a_folder_above_the_state_folder_that_others_can_write_to(home: Home, undo: ExitStack) -> None:
    home.state.parent.mkdir()
    home.state.parent.chmod(0o777)


@_broken("keys.folder", "error")
def a_key_folder_that_others_may_enter(home: Home, undo: ExitStack) -> None:
    used(home)
    (home.state / "keys").chmod(0o755)


@_broken("store.files", "error")
def a_data_file_that_others_may_read(home: Home, undo: ExitStack) -> None:
    used(home)
    _data(home).chmod(0o644)


@_broken("token.file", "error")
def a_token_file_that_others_may_read(home: Home, undo: ExitStack) -> None:
    _left_running(home, undo)
    assert home.agentctl("login").returncode == 0
    home.token_file.chmod(0o644)


# --- keys -------------------------------------------------------------------------------------------


@_broken("key.file", "error")
def a_key_file_that_is_gone(home: Home, undo: ExitStack) -> None:
    used(home)
    (home.state / "keys" / "root.key").unlink()


@_broken("key.file", "error")
def a_key_file_cut_short(home: Home, undo: ExitStack) -> None:
    used(home)
    os.truncate(home.state / "keys" / "root.key", 31)


@_broken("key.leftovers", "warning")
def a_key_left_beside_the_key_file(home: Home, undo: ExitStack) -> None:
    used(home)
    keys = home.state / "keys"
    shutil.copy2(keys / "root.key", keys / f".root.key.{'0' * 16}")


@_broken("store.key", "error")
def the_key_file_of_another_agent(home: Home, undo: ExitStack) -> None:
    used(home)
    (home.state / "keys" / "root.key").write_bytes(bytes(range(32)))


# --- the store --------------------------------------------------------------------------------------


@_broken("store.file", "error")
def a_store_cut_short(home: Home, undo: ExitStack) -> None:
    used(home)
    os.truncate(_data(home), 3 * PAGE_BYTES)


@_broken("store.structure", "error")
def a_page_of_the_store_overwritten(home: Home, undo: ExitStack) -> None:
    used(home)
    with _data(home).open("r+b") as file:
        file.seek(_root_page(_data(home)) * PAGE_BYTES)
        file.write(bytes(64))


@_broken("store.seals", "error")
def two_sessions_exchanged(home: Home, undo: ExitStack) -> None:
    used(home)
    with (
        lmdb.open(str(home.state / "store"), map_size=1 << 24) as environment,
        environment.begin(write=True) as txn,
    ):
        sessions = [pair for pair in txn.cursor() if pair[0].startswith(b"dsessions\0")]
        (a, a_value), (b, b_value) = sessions[0], sessions[-1]
        txn.put(a, b_value)
        txn.put(b, a_value)


@_broken("clock.records", "warning")
def a_clock_that_was_a_day_ahead(home: Home, undo: ExitStack) -> None:
    trio.run(_open_session_tomorrow, home.state)


async def _open_session_tomorrow(state: Path) -> None:
    clock = ManualClock()
    clock.wall = time.time() + DAY_SECONDS
    async with (
        await KeyRing.create_key_ring(keys_path=state / "keys") as key_ring,
        await DB.create_db(db_path=state / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager,
    ):
        await manager.create_token()


# --- sockets and agents -----------------------------------------------------------------------------


@_broken("socket.path", "error", "--socket", f"/tmp/{'long/' * 25}agent.sock")
def a_socket_path_that_is_too_long(home: Home, undo: ExitStack) -> None:
    pass


@_broken("socket.folder", "error")
def a_socket_folder_that_others_may_enter(home: Home, undo: ExitStack) -> None:
    _left_running(home, undo)
    home.socket.parent.chmod(0o755)


@_broken("socket.file", "error")
def a_socket_that_others_may_use(home: Home, undo: ExitStack) -> None:
    _left_running(home, undo)
    home.socket.chmod(0o666)


@_broken("socket.listener", "warning")
def the_socket_of_a_killed_agent(home: Home, undo: ExitStack) -> None:
    _left_running(home, undo).signal(signal.SIGKILL)


@_broken("socket.listener", "error")
def a_socket_removed_under_its_agent(home: Home, undo: ExitStack) -> None:
    _stopped(home, undo)  # it would make it again within a second
    home.socket.unlink()


@_broken("socket.listener", "error")
def two_agents_on_one_socket(home: Home, undo: ExitStack) -> None:
    _stopped(home, undo)  # it would make room for the other
    home.socket.unlink()
    home.socket.with_name("agent.sock.lock").unlink()
    _left_running(home, undo, "--state", str(home.path / "another"))


@_broken("agent.alone", "error")
def two_agents_of_which_one_has_the_store(home: Home, undo: ExitStack) -> None:
    elsewhere = home.path / "elsewhere"
    undo.enter_context(_serving_at(home, elsewhere / "agent.sock"))
    _left_running(home, undo, "--state", str(home.path / "another"))


@_broken("agent.alone", "error")
def an_agent_that_uses_this_store_from_another_socket(home: Home, undo: ExitStack) -> None:
    undo.enter_context(_serving_at(home, home.path / "elsewhere" / "agent.sock"))


@_broken("agent.answer", "error")
def an_agent_that_hangs(home: Home, undo: ExitStack) -> None:
    _stopped(home, undo)


@_broken("agent.supervisor", "warning")
def an_agent_by_hand_beside_systemds(home: Home, undo: ExitStack) -> None:
    install_units(home)
    _left_running(home, undo)


@_broken("units.program", "error")
def a_service_whose_python_is_gone(home: Home, undo: ExitStack) -> None:
    install_units(home, python="/nonexistent/python")


@contextmanager
def _serving_at(home: Home, path: Path) -> Iterator[Daemon]:
    moved = Home.__new__(Home)
    moved.__dict__.update(home.__dict__)
    moved.socket = path
    with serving(moved, "--socket", str(path)) as daemon:
        yield daemon


def install_units(home: Home, python: str = sys.executable) -> None:
    """The unit files as `agentd service install` leaves them, enabled."""
    source = Path(__file__).parents[2] / "agentd" / "units"
    units = home.path / "config" / "systemd" / "user"
    (units / "sockets.target.wants").mkdir(parents=True)
    shutil.copy(source / "agentd.socket", units)
    (units / "sockets.target.wants" / "agentd.socket").symlink_to(units / "agentd.socket")
    service = (source / "agentd.service").read_text()
    for word, value in {
        "PYTHON": python,
        "ISOLATION": "-I",
        "STATE": str(home.state),
        "STATE_HOME": str(home.state.parent),
        "CONFIG_HOME": str(home.path / "config"),
    }.items():
        service = service.replace(f"@{word}@", value)
    (units / "agentd.service").write_text(service)


def main() -> None:
    with scratch_home() as home, serving(home):
        home.agentctl("login")
        _print("healthy, serving", home)
    with scratch_home() as home:
        used(home)
        _print("healthy, stopped", home)
    for name in BROKEN:
        with broken_home(name) as (home, broken):
            _print(name.replace("_", " "), home, *broken.arguments)


def _print(title: str, home: Home, *arguments: str) -> None:
    found = call_doctor(home, *arguments)
    shown = " ".join(["$ agentd doctor", *arguments])
    print(f"## {title}\n\n```\n{shown}\n{found.stdout}$ echo $?\n{found.returncode}\n```\n", flush=True)


if __name__ == "__main__":
    main()
