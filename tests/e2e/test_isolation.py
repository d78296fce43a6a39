"""The commands run what was installed with them, wherever they are started and whatever Python's variables say."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.agentctl.running import without_coverage

INSTALLED = Path(sysconfig.get_path("scripts"))
COMMANDS = {
    "agentctl": [str(INSTALLED / "agentctl"), "verify"],
    "agentctl as a module": [sys.executable, "-m", "agentd_client.cli", "verify"],
    "agentd": [str(INSTALLED / "agentd"), "doctor", "--json"],
    "agentd as a module": [sys.executable, "-m", "agentd", "doctor", "--json"],
}
IMPORTED = ("click", "msgpack", "trio", "anyio", "getpass", "ctypes", "json")
"""None that Python imports before a program has its say, as runpy and contextlib are."""


@pytest.fixture
def project(home):
    """A folder with modules that anything might import, and that answer "no" for whatever imports them."""
    folder = home.path / "project"
    folder.mkdir()
    for name in IMPORTED:
        (folder / f"{name}.py").write_text("print('foreign code'); raise SystemExit(1)\n")
    return folder


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("way", ["path", "path among others", "current folder"])
def test_modules_of_a_project_are_not_run(home, project, command, way):
    environ = {
        "path": {"PYTHONPATH": str(project)},
        "path among others": {"PYTHONPATH": f"/nonexistent{os.pathsep}{project}{os.sep}{os.pathsep}"},
        "current folder": {},
    }[way]
    ended = subprocess.run(
        command,
        # Measuring coverage would import modules before a program has its say.
        env=without_coverage(home.environ) | environ,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "foreign code" not in ended.stdout + ended.stderr
    if "verify" in command:
        assert (ended.returncode, ended.stdout) == (69, "")
    else:
        assert '"findings"' in ended.stdout


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_prompt_of_pythons_takes_the_place_of_the_exit_code(home, command):
    before = subprocess.run(
        command, env=home.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    ended = subprocess.run(
        command,
        env=home.environ | {"PYTHONINSPECT": "1", "PYTHONSTARTUP": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == before.returncode
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("program", "module"), [("agentctl", "agentd_client.cli"), ("agentd", "agentd.__main__")]
)
@pytest.mark.parametrize("fault", ["raise SystemExit(1)", "raise ImportError", "1 / 0"])
def test_a_start_that_is_broken_is_never_an_answer(home, program, module, fault):
    broken = f"""if True:
        import sys
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name in ("agentd_client.cli.run", "agentd.cli"):
                    {fault}
        sys.meta_path.insert(0, Broken())
        from {module} import main
        main()
    """
    command = [sys.executable, "-c", broken]
    ended = subprocess.run(
        command,
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 70
    assert ended.stderr.startswith(f"{program} cannot start (")
    assert ended.stderr.count("\n") == 1
    with open("/dev/full", "wb") as full:
        assert (
            subprocess.run(command, env=home.environ, stderr=full, timeout=60, check=False).returncode == 70
        )
