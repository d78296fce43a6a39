"""Variables that were meant for another user, or lead nowhere: every program names them and makes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import scratch_home
from tests.other_user import needs_root

LIBRARY = "from agentd_client import Client, Session; {}"
PROGRAMS = {
    "serve": ["-m", "agentd", "serve"],
    "init": ["-m", "agentd", "init"],
    "doctor": ["-m", "agentd", "doctor"],
    "status": ["-m", "agentd_client.cli", "status"],
    "login": ["-m", "agentd_client.cli", "login"],
    "verify": ["-m", "agentd_client.cli", "verify"],
}


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


def run(here: Path, arguments: list[str], environ: dict[str, str], prefix: list[str] | None = None):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "AGENTD_")) and name != "HOME"
    }
    return subprocess.run(
        [*(prefix or []), sys.executable, *arguments],
        cwd=here,
        env=kept | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("home", ["", "relative", "/nowhere/at/all"])
def test_a_home_that_leads_nowhere_is_named_and_nothing_is_made(here, program, home):
    if os.path.exists(f"/run/user/{os.geteuid()}") and program in ("status", "login", "verify"):
        pytest.skip("this user has a runtime folder, and a client needs no more")
    done = run(here, PROGRAMS[program], {"HOME": home})
    assert done.returncode == 78, done.stderr
    assert "HOME is " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


@needs_root
@pytest.mark.parametrize("program", ["serve", "init", "doctor", "status", "login", "verify"])
def test_a_user_whom_nobody_knows_makes_nothing_in_the_current_folder(here, program):
    here.chmod(0o777)
    # Another user need not be able to reach this Python: the modules are imported before, as root.
    main = "agentd.cli" if program in ("serve", "init", "doctor") else "agentd_client.cli.__main__"
    code = (
        "import os, sys, agentd.cli, agentd.main, agentd.doctor.command, agentd_client.cli.run as ctl\n"
        "from click.testing import CliRunner\n"
        "os.setgroups([]); os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)\n"
        f"arguments = [{program!r}]\n"
        + ("agentd.cli.main(arguments)" if main == "agentd.cli" else "sys.exit(ctl.run(arguments))")
    )
    done = run(here, ["-c", code], {})
    assert done.returncode == 78, done.stderr
    assert "HOME is not set, and uid 54321 is not in the password database" in done.stderr
    assert list(here.iterdir()) == []


@needs_root
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("variable", ["HOME", "XDG_RUNTIME_DIR"])
def test_another_users_folder_is_named_and_stays_as_it_was(here, home, program, variable):
    if variable == "HOME" and os.path.exists("/run/user/0") and program in ("status", "login", "verify"):
        pytest.skip("root has a runtime folder, and a client needs no more")
    theirs = home.path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 4711, 4711)
    done = run(here, PROGRAMS[program], {"HOME": str(home.path)} | {variable: str(theirs)})
    assert done.returncode == 78, done.stderr
    assert f"{variable} is {theirs}, which belongs to uid 4711, and you are uid 0" in done.stderr
    assert list(theirs.iterdir()) == []


@needs_root
@pytest.mark.parametrize("act", ["Client.connect()", "Session.create_session()"])
def test_the_client_library_names_it_as_well(here, home, act):
    theirs = home.path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 4711, 4711)
    environ = {"HOME": str(home.path), "XDG_RUNTIME_DIR": str(theirs)}
    done = run(here, ["-c", LIBRARY.format(act)], environ)
    assert "EnvironmentVariableError: XDG_RUNTIME_DIR is " in done.stderr


def test_a_state_folder_in_which_no_store_can_be_made_gets_no_key(home):
    home.state.mkdir(parents=True)
    (home.state / "store").touch()
    for command in ("init", "serve"):
        done = home.agentd(command)
        assert done.returncode == 74, done.stderr
        assert f"{home.state}/store is not a store folder" in done.stderr
        assert not (home.state / "keys").exists()


@pytest.mark.parametrize("state", ["/dev/null/x", "/proc/nothing", "file"])
def test_a_state_path_that_cannot_be_used_is_named(home, state):
    (home.path / "file").touch()
    path = state if state.startswith("/") else str(home.path / state)
    done = home.agentd("init", "--state", path)
    assert done.returncode == 78, done.stderr
    assert path in done.stderr
    assert "Traceback" not in done.stderr
