"""The installation that the doctor examines, and what a check is."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import msgspec

from agentd_client import paths
from agentd_client.blocking import Client
from agentd_client.errors import AgentdError, PassphraseError
from agentd_client.file_locks import holder_of
from agentd_client.protocol.results import Status

from .. import process
from ..config import Settings
from ..keys import PassphraseText, read_only_keys
from ..sessions.records import TIMESTAMPED_FOLDERS
from ..store import OfflineCheck, check_offline
from . import system
from .findings import Finding
from .system import Node, flock_holders, node_at, read_proc

ANSWER_SECONDS = 3.0
"""For the status of an agent that runs; it takes a millisecond."""

START_SECONDS = 1.0
"""For an agent that has the socket's lock and does not listen yet."""

SOCKET_UNIT, SERVICE_UNIT = "agentd.socket", "agentd.service"
_ENABLED_LINK = f"sockets.target.wants/{SOCKET_UNIT}"


class Limits(NamedTuple):
    """Soft limits of a process, in bytes; infinite for unlimited, None for unknown."""

    memlock: float | None
    core: float | None


class Answer(NamedTuple):
    """The status of the running agent, or why there is none. Both None: it was not asked."""

    status: Status | None = None
    failure: str | None = None


class StoreFacts(NamedTuple):
    """What is known of the store.

    examined: None if it cannot be read, for the reason in `failure`; both None if there is no store.
    sealed: why its values were not opened. is_passphrase_refused: because of the passphrase that was given.
    """

    examined: OfflineCheck | None = None
    failure: str | None = None
    sealed: str | None = None
    is_passphrase_refused: bool = False


def own_limits() -> Limits:
    """The limits that this process was started with."""
    found = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], process.core_limit_of_caller()
    return Limits(*(float("inf") if soft == resource.RLIM_INFINITY else soft for soft in found))


class Installation:
    """The installation that is examined, and facts about it that several checks use: each is read once.

    Args:
        settings: its settings, or the defaults if those cannot be used.
        config_path: of the settings file, which need not exist.
        config_failure: why the settings in the file cannot be used; None if they can.
        limits: of the shell that started the doctor.
        passphrase: of the key file, to open the values of the store; None if it has none.
        environ: the environment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        config_path: str,
        config_failure: str | None,
        limits: Limits,
        passphrase: PassphraseText | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self.config_path = config_path
        self.config_failure = config_failure
        self.limits = limits
        self.environ = environ
        self.uid = os.geteuid()
        self.token_path = os.path.abspath(paths.session_token_path(environ))
        self._passphrase = passphrase

    @cached_property
    def locks(self) -> str:
        """The text of /proc/locks."""
        return read_proc("locks")

    @cached_property
    def socket_lock(self) -> Node:
        """The lock file that the agent of this socket holds."""
        return node_at(f"{self.settings.socket_path}.lock")

    @cached_property
    def serving(self) -> list[int]:
        """The processes that hold the socket's lock: the agent, if one runs."""
        return flock_holders(self.locks, self.socket_lock)

    @cached_property
    def storing(self) -> list[int]:
        """The processes that hold the store's lock."""
        return flock_holders(self.locks, node_at(self._store_lock))

    @cached_property
    def storing_at(self) -> str:
        """The socket that the agent with the store says it serves; empty if it does not say."""
        holder = holder_of(self._store_lock)
        return "" if holder is None else holder.socket_path

    @property
    def _store_lock(self) -> Path:
        return self.settings.store_path / "agentd.lock"

    @cached_property
    def listeners(self) -> int:
        """How many sockets listen at the socket's path, as far as this network namespace shows."""
        return system.listeners(self.settings.socket_path)

    @cached_property
    def is_taken(self) -> bool | None:
        """Whether a socket is bound to the file at the socket's path; None if it cannot be known."""
        return system.is_taken(self.settings.socket_path)

    @cached_property
    def unit_folders(self) -> list[Path]:
        """Where the user's manager searches for units, in order of precedence (systemd.unit(5))."""
        config_home = Path(paths.config_path(self.environ)).parent.parent
        system = (Path(folder) / "systemd" / "user" for folder in ("/etc", "/usr/local/lib", "/usr/lib"))
        return [config_home / "systemd" / "user", *system]

    @cached_property
    def is_enabled(self) -> bool:
        """Whether the user's manager starts the socket unit by itself."""
        return any(os.path.lexists(folder / _ENABLED_LINK) for folder in self.unit_folders)

    @cached_property
    def answer(self) -> Answer:
        """The agent's answer; it is asked only if one has the socket's lock, so that asking never starts one.

        A listener without the lock may be systemd, which starts an agent for any connection.
        """
        if not self.serving:
            return Answer()
        try:
            path = self.settings.socket_path
            with Client.connect(path, timeout=ANSWER_SECONDS, patience=START_SECONDS) as agent:
                return Answer(agent.get_status())
        except AgentdError as failure:
            return Answer(failure=failure.sentence)

    @cached_property
    def store(self) -> StoreFacts:
        """The store, examined without a lock; its values are opened if there is a key for it."""
        if node_at(self.settings.store_path / "data.mdb").kind is None:
            return StoreFacts()
        try:
            with read_only_keys(self.settings.keys_path, self._passphrase) as keys:
                return StoreFacts(
                    check_offline(self.settings.store_path, keys, newest_below=TIMESTAMPED_FOLDERS)
                )
        except AgentdError as failure:  # of the key file; `check_offline` returns its own
            sealed, is_refused = failure.sentence, isinstance(failure, PassphraseError)
        except OSError as failure:
            return StoreFacts(failure=f"{failure.filename}: {failure.strerror}")
        try:
            found = check_offline(self.settings.store_path, None, newest_below=TIMESTAMPED_FOLDERS)
        except OSError as failure:
            return StoreFacts(failure=f"{failure.filename}: {failure.strerror}")
        return StoreFacts(found, sealed=sealed, is_passphrase_refused=is_refused)


class Check(msgspec.Struct, frozen=True):
    """The facts about one subject, and what they mean. `NAMES` are those of the findings."""

    NAMES: ClassVar[tuple[str, ...]]

    @classmethod
    def gather(cls, installation: Installation) -> Self:
        """Read the facts. It judges nothing, and whatever it meets there, it raises nothing."""
        raise NotImplementedError

    def judge(self) -> Iterable[Finding]:
        """The findings. Pure, so that tests can give it any facts."""
        raise NotImplementedError
