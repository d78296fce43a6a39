"""`agentd doctor` on whole systems: it names what is broken, and disturbs nothing that is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentd.keys import read_only_keys
from agentd.store import check_offline
from tests.e2e.breakages import BROKEN, broken_home, call_doctor, examine, install_units, used
from tests.e2e.daemon import scratch_home

HEALTHY = {"ok", "note"}


def test_a_healthy_system_that_serves(home, daemon):
    assert home.agentctl("login").returncode == 0
    found = examine(home)
    assert found.code == 0
    assert {finding["severity"] for finding in found.findings} == HEALTHY
    assert len(found.of("agent.answer")) == len(found.of("store.seals")) == 1
    assert found.of("store.structure")[0]["severity"] == "ok"
    assert daemon.stop() == 0


def test_a_healthy_system_that_is_stopped(home):
    used(home)
    found = examine(home)
    assert found.code == 0
    assert "of" not in found.of("store.seals")[0]["says"].split()
    assert "no agent runs here" in found.of("agent.answer")[0]["says"]


def test_a_healthy_system_with_units(home):
    install_units(home)
    used(home)
    found = examine(home)
    assert found.code == 0
    for name in ("units.files", "units.enabled", "units.program", "units.state"):
        assert found.of(name)[0]["severity"] == "ok"


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_system_is_named(name):
    with broken_home(name) as (home, broken):
        found = examine(home, *broken.arguments)
    named = [finding for finding in found.of(broken.finding) if finding["severity"] == broken.severity]
    assert named
    assert named[0]["remedy"]
    assert found.code == {"warning": 1, "error": 2}[broken.severity]


MOUNTS = {
    "start.state": 'mkdir "$1/state"; mount --bind "$1/state" "$1/state"; mount -o remount,bind,ro "$1/state"',
    "start.socket": 'mount --bind "$1/run" "$1/run"; mount -o remount,bind,ro "$1/run"',
    "store.room": 'mkdir "$1/state"; mount -t tmpfs -o size=512k,mode=700 tmpfs "$1/state"',
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("name", MOUNTS)
def test_file_systems_that_keep_the_agent_from_starting_are_named(home, name):
    def within(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = f'set -e; {MOUNTS[name].replace("mkdir", "mkdir -p")}; shift; exec "$@"'
        mounted = ["unshare", "--mount", "sh", "-c", script, "sh", str(home.path)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [*mounted, sys.executable, "-m", "agentd", *arguments],
            env=home.environ | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    ended = within("doctor", "--json")
    if "permission denied" in ended.stderr.lower() or "not permitted" in ended.stderr:
        pytest.skip("this root may not mount")
    named = [each for each in json.loads(ended.stdout)["findings"] if each["severity"] == "error"]
    assert [each["name"] for each in named] == [name]
    assert ended.returncode == 2
    assert within("serve").returncode in (74, 78), "and the agent does not start there"


def test_links_are_followed_as_the_agent_follows_them(home):
    dotfiles, config = home.path / "dotfiles", home.path / "config" / "agentd"
    for folder in (dotfiles, dotfiles / "state", config, home.state.parent):
        folder.mkdir(mode=0o700, parents=True)
    (dotfiles / "agentd.toml").write_text('session_expiry = "5m"\n')
    (config / "config.toml").symlink_to(dotfiles / "agentd.toml")
    home.state.symlink_to(dotfiles / "state")
    used(home)
    found = examine(home)
    assert found.code == 0
    assert found.of("settings.file")[0]["severity"] == "ok"
    assert f"a link to {dotfiles}/agentd.toml" in found.of("settings.file")[0]["says"]
    assert found.of("state.folder")[0]["severity"] == "ok"
    dotfiles.chmod(0o777)
    refused = examine(home)
    assert refused.of("settings.file")[0]["severity"] == "error"
    assert refused.of("settings.file")[0]["remedy"] == f"run `chmod go-w {dotfiles}`"
    assert home.agentd("serve").returncode == 78


def test_people_get_lines_with_the_worst_first_and_what_to_do(home):
    used(home)
    (home.state / "keys").chmod(0o755)
    ended = call_doctor(home)
    first, second, *_, last = ended.stdout.splitlines()
    assert ended.returncode == 2
    assert first.startswith("error    keys.folder      ")
    assert second.strip() == f"→ run `chmod 700 {home.state}/keys`"
    assert last.startswith("1 error, ")


def test_on_an_empty_home_it_makes_nothing(home):
    assert examine(home).code == 0
    assert [path.name for path in home.path.iterdir()] == ["run"]
    assert not any(home.runtime.iterdir())


def test_it_changes_no_file(home):
    used(home)
    before = state_of(home.path)
    assert examine(home).code == 0
    assert state_of(home.path) == before


def test_neither_tokens_nor_keys_are_in_what_it_says(home, daemon):
    token = home.agentctl("login").returncode or home.token_file.read_text().strip()
    key = (home.state / "keys" / "root.key").read_bytes()
    found = examine(home, AGENTD_TOKEN=token)
    assert found.of("token.environment")
    said = str(found.findings)
    assert token not in said
    assert key.hex() not in said


def test_while_the_agent_serves_the_doctor_disturbs_nothing(home, daemon):
    names = {path.name for path in (home.state / "store").iterdir()}
    tokens: list[str] = []
    failures: list[Exception] = []
    ended = threading.Event()
    begun = threading.Event()

    def create() -> None:
        with daemon.client() as agent:
            while not ended.is_set():
                try:
                    tokens.append(agent.create_token(label="beside the doctor").token)
                except Exception as error:  # whatever a client sees is a disturbance
                    failures.append(error)
                begun.set()

    creating = threading.Thread(target=create)
    creating.start()
    try:
        assert begun.wait(30)
        looks = [examine_in_place(home) for _ in range(50)]
        codes = [home.agentd("doctor").returncode for _ in range(3)]
    finally:
        ended.set()
        creating.join()
    assert failures == []
    assert not set(codes) & {2}
    whole = [look for look in looks if not look.overtaken]
    assert whole, "the agent was faster than every look"
    for look in whole:
        assert (look.error, look.problems, look.key_error) == (None, [], None)
        assert look.seals is not None
        assert (look.seals.broken, look.seals.opened) == (0, look.seals.of)
    with daemon.client() as agent:
        assert all(agent.verify_token(token) for token in tokens)
        assert agent.get_status().sessions == len(tokens)
    assert {path.name for path in (home.state / "store").iterdir()} == names
    assert "WARNING" not in daemon.log.read_text()
    assert daemon.stop() == 0


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("shell", ["this", "of another network namespace"])
def test_it_starts_no_agent_where_systemd_would(home, is_enabled, shell):
    from tests.agentd.socket_passing import listening

    if is_enabled:
        install_units(home)
    prefix = ["unshare", "--net"] if shell != "this" else []  # where nobody is seen to listen
    if prefix and subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("this user may not make network namespaces")
    home.socket.parent.mkdir(mode=0o700)
    with listening(home.socket) as listener:
        home.socket.chmod(0o600)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ended = subprocess.run(
            [*prefix, sys.executable, "-m", "agentd", "doctor"],
            env=home.environ | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert ended.returncode == 0, ended.stdout
    assert "no agent runs here; the first connection starts it" in ended.stdout
    assert "a process listens at" in ended.stdout


def test_another_program_cannot_make_it_see_an_agent_that_is_not_there(home):
    line = f"0000000000000000: 00000002 00000000 00010000 0001 01 4711 {home.socket}"
    home.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0\n{line}")
        abstract.listen()
        found = examine(home)
    assert found.of("socket.listener")[0]["severity"] == "note"
    assert found.of("agent.answer")[0]["says"] == "no agent runs here; `agentd serve` starts it"


@pytest.mark.parametrize("way", ["--passphrase-file", "--passphrase-fd"])
async def test_with_a_passphrase_the_seals_are_checked_only_when_it_is_given(way):
    from agentd.keys import Cost, KeyRing
    from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
    from agentd.store import DB

    with scratch_home() as home:
        async with (
            await KeyRing.create_key_ring(
                keys_path=home.state / "keys", passphrase="open up", cost=Cost(MIN_MEMORY_BYTES, MIN_PASSES)
            ) as key_ring,
            await DB.create_db(db_path=home.state / "store", key_ring=key_ring),
        ):
            pass
        closed = examine(home)
        assert closed.code == 0
        assert closed.of("store.seals")[0]["severity"] == "note"
        assert closed.of("store.structure")[0]["severity"] == "ok"
        assert "19 MiB" in closed.of("key.passphrase")[0]["says"]
        file = home.path / "passphrase"
        file.write_text("open up\n")
        file.chmod(0o600)
        opened = given(home, way, file)
        assert opened.returncode == 0
        assert "ok       store.seals" in opened.stdout
        file.write_text("another\n")
        refused = given(home, way, file)
        assert refused.returncode == 1
        assert "not checked: that is not the passphrase" in refused.stdout
        assert "another" not in refused.stdout


def given(home, way, file: Path):
    with file.open() as descriptor:
        value = str(file) if way == "--passphrase-file" else str(descriptor.fileno())
        return subprocess.run(
            [sys.executable, "-m", "agentd", "doctor", way, value],
            env=home.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            pass_fds=[descriptor.fileno()], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


def examine_in_place(home):
    with read_only_keys(home.state / "keys") as keys:
        return check_offline(home.state / "store", keys)


def state_of(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        entry = path.lstat()
        found[str(path)] = (entry.st_mode, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns)
    return found
