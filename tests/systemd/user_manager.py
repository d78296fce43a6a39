"""A real `systemd --user` for a user of its own, in namespaces of its own: nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
UID = 64123
NAME = "agentd-test"
AGENTS = "agentd-agents"  # a group that the user is in
AGENTS_GID = 64124
SYSTEMD = "/lib/systemd/systemd"
SYSTEM_PYTHON = "/usr/bin/python3"  # one that every user can read
PROGRAMS = (
    "unshare",
    "nsenter",
    "setpriv",
    "make",
    "systemctl",
    "journalctl",
    "dbus-daemon",
    SYSTEMD,
    SYSTEM_PYTHON,
)
DEADLINE_SECONDS = 60.0
HOME = Path("/home/of 100% & co")  # no script and no unit may stumble over what a home can be called
PASSED_THROUGH = ("PIP_", "SSL_", "REQUESTS_", "CURL_", "HTTP_", "HTTPS_", "ALL_", "NO_")
"""How pip reaches the package index outside is how it reaches it inside."""


def missing() -> str | None:
    """What keeps these tests from running, if anything."""
    if os.geteuid() != 0:
        return "a systemd --user of its own needs root, for the namespaces"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is missing"
    if not Path("/usr/lib/systemd/user/dbus.socket").exists():
        return "the package dbus-user-session is missing"
    namespaces = ["unshare", "--fork", "--pid", "--mount", "--cgroup", "--ipc", "--uts", "true"]
    if subprocess.run(namespaces, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return "this root may not make namespaces (a container without CAP_SYS_ADMIN?)"
    asked = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"], check=False
    )
    if asked.returncode != 0:
        return f"{SYSTEM_PYTHON} is older than 3.11, or has no venv (package python3-venv)"
    return None


def until(holds: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Poll, for what foreign processes do; fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.02)


class UserManager:
    def __init__(self, scratch: Path, leader: int) -> None:
        self.scratch = scratch
        self._leader = leader
        self.home = HOME
        self.runtime = Path(f"/run/user/{UID}")
        self.state = self.home / ".local/state/agentd"
        self.units = self.home / ".config/systemd/user"
        self.source = scratch / "source"
        self.python = self.home / ".local/share/agentd/venv/bin/python"

    @property
    def environ(self) -> dict[str, str]:
        passed = {
            name: value
            for name, value in os.environ.items()
            if name.upper().startswith(PASSED_THROUGH) and name.upper() != "SSLKEYLOGFILE"
        }
        return passed | {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PATH": f"{self.home}/.local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }

    def _inside(self, command: tuple[object, ...], environ: Mapping[str, str], *, root: bool) -> list[str]:
        entered = ["nsenter", "-t", str(self._leader), "-m", "-p", "-C", "-i", "-u", "--"]
        as_user = [] if root else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
        cleared = ["env", "-i", *(f"{name}={value}" for name, value in (self.environ | environ).items())]
        return [*entered, *as_user, *cleared, *map(str, command)]

    def start(self, *command: object, root: bool = False) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._inside(command, {}, root=root),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *command: object, root: bool = False, seconds: float = DEADLINE_SECONDS, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._inside(command, environ, root=root),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def done(self, *command: object, **options: object) -> str:
        """Run what has to succeed; its output."""
        ended = self.run(*command, **options)
        assert ended.returncode == 0, (command, ended.returncode, ended.stdout, ended.stderr)
        return ended.stdout

    def kill(self, signal: str, pid: int) -> None:
        self.done("sh", "-c", f"kill -{signal} {pid}")

    def make(self, *arguments: str) -> str:
        return self.done("make", "-C", self.source, *arguments, f"PYTHON={SYSTEM_PYTHON}", seconds=240)

    # --- the units ---

    def systemctl(self, *arguments: str) -> str:
        return self.done("systemctl", "--user", *arguments)

    def show(self, name: str, unit: str = "agentd.service") -> str:
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def drop_in(self, text: str) -> None:
        """Settings for the service, on top of its unit; `tidy` takes them away."""
        folder = self.units / "agentd.service.d"
        self.write(folder / "test.conf", text)
        self.systemctl("daemon-reload")

    def outside(self, path: Path) -> Path:
        """Where root finds a path of the user's."""
        return Path(f"/proc/{self._leader}/root{path}")

    def exists(self, path: Path) -> bool:
        """To the user, in there: a link counts if it leads somewhere."""
        return self.run("test", "-e", path).returncode == 0

    def write(self, path: Path, text: str) -> None:
        there = self.outside(path)
        missing = [folder for folder in (there.parent, *there.parent.parents) if not folder.exists()]
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        for made in (there, *missing):
            os.chown(made, UID, UID)

    def remove(self, path: Path) -> None:
        shutil.rmtree(self.outside(path), ignore_errors=True)

    def tidy(self) -> None:
        """As after a fresh installation: no agent, no session, no settings."""
        self.remove(self.units / "agentd.service.d")
        self.remove(self.home / ".config/agentd")
        self.systemctl("daemon-reload")
        self.systemctl("stop", "agentd.socket", "agentd.service")
        self.run("systemctl", "--user", "reset-failed")
        self.remove(self.state / "keys")
        self.remove(self.state / "store")
        self.systemctl("start", "agentd.socket")

    # --- the journal ---

    def cursor(self) -> str:
        self.done("journalctl", "--sync", root=True)
        return self.done("journalctl", "-n", "0", "--show-cursor", root=True).partition("cursor: ")[2].strip()

    def journal(self, after: str) -> list[dict[str, str]]:
        """What the service said since the cursor."""
        self.done("journalctl", "--sync", root=True)
        read = self.done("journalctl", f"_UID={UID}", "--after-cursor", after, "-o", "json", root=True)
        # Out of a real session's control groups the journal itself does not tell which user unit it was.
        entries = [json.loads(line) for line in read.splitlines()]
        return [entry for entry in entries if entry["_SYSTEMD_CGROUP"].endswith("/agentd.service")]


@contextmanager
def user_manager() -> Iterator[UserManager]:
    """A running one; at the end no process, mount or control group of it is left."""
    scratch = Path(tempfile.mkdtemp(prefix="agentd-systemd-"))
    scratch.chmod(0o755)
    cgroup = scratch.name
    _prepare(scratch)
    log = (scratch / "namespaces.log").open("w")
    namespaces = subprocess.Popen(
        ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--cgroup", "--ipc", "--uts",
         "sh", HERE / "namespaces.sh", scratch, str(UID), HOME, cgroup],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    manager: subprocess.Popen[bytes] | None = None
    try:
        assert namespaces.stdout is not None
        assert namespaces.stdout.readline() == "ready\n", (scratch / "namespaces.log").read_text()
        children = Path(f"/proc/{namespaces.pid}/task/{namespaces.pid}/children").read_text().split()
        inside = UserManager(scratch, int(children[0]))
        # It has to live in a control group that its user owns; root puts it there.
        enter = 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"'
        start = inside._inside((SYSTEMD, "--user", "--log-target=journal"), {}, root=False)
        split = start.index("--") + 1
        manager = subprocess.Popen(
            [*start[:split], "sh", "-c", enter, "sh", f"/sys/fs/cgroup/{cgroup}", *start[split:]],
            cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        up = ("systemctl", "--user", "is-system-running", "--wait")
        until(lambda: inside.run(*up).stdout.strip() in {"running", "degraded"})
        yield inside
    finally:
        assert namespaces.stdin is not None
        assert namespaces.stdout is not None
        namespaces.stdin.close()
        namespaces.wait(DEADLINE_SECONDS)
        namespaces.stdout.close()
        if manager is not None:
            manager.wait(DEADLINE_SECONDS)
        log.close()
        shutil.rmtree(scratch)


def _prepare(scratch: Path) -> None:
    for file, entry in (
        ("passwd", f"{NAME}:x:{UID}:{UID}::/nonexistent:/bin/sh"),
        ("group", f"{NAME}:x:{UID}:\n{AGENTS}:x:{AGENTS_GID}:{NAME}"),
    ):
        (scratch / file).write_text(Path("/etc", file).read_text() + entry + "\n")
    (scratch / "source").mkdir()
    for part in (
        "agentd",
        "client",
        "docs",
        "Makefile",
        "pyproject.toml",
        "hatch_build.py",
        "README.md",
        "LICENSE",
    ):
        if (PROJECT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(PROJECT / part, scratch / "source" / part, ignore=ignored)
        else:
            shutil.copy(PROJECT / part, scratch / "source")
    shutil.copytree(HERE, scratch / "tests", ignore=shutil.ignore_patterns("__pycache__"))
