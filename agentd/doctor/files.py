"""The files: settings, the folders of keys and store, the key file, and the token file of this shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from agentd_client import paths
from agentd_client.errors import KeyFileError, TokenFileError
from agentd_client.private import Fault, folders_fault
from agentd_client.token_file import TokenFile

from ..keys import KEY_FILE, KeyFileForm, key_file_form
from ..state_folder import check_key_file, state_folder_fault
from .findings import Finding, error, note, ok, refused, warning
from .installation import Check, Installation
from .system import FILE, FOLDER, Node, node_at, nodes_in

SETTINGS = "settings.file"
STATE, KEYS, STORE, STORE_FILES = "state.folder", "keys.folder", "store.folder", "store.files"
KEY, PASSPHRASE, LEFTOVERS = "key.file", "key.passphrase", "key.leftovers"
TOKEN, TOKEN_FOLDER, ENVIRONMENT = "token.file", "token.folder", "token.environment"

_STORE_FILES = ("data.mdb", "lock.mdb", "agentd.lock", "stopped")
_MIB = 1024 * 1024

WEAK_BYTES = 64 * _MIB
"""Of Argon2id's memory: libsodium's "interactive". Less was measured on a machine that had little memory."""


class SettingsFile(Check, frozen=True):
    """Whether the agent can use the settings file.

    target: the file after following links; empty if there is none. failure: why the agent would refuse it.
    """

    path: str
    target: str
    failure: str | None

    NAMES: ClassVar = (SETTINGS,)

    @classmethod
    def gather(cls, installation: Installation) -> SettingsFile:
        """Find the file; its content was read with the settings."""
        path = os.path.abspath(installation.config_path)
        return cls(path, os.path.realpath(path) if os.path.exists(path) else "", installation.config_failure)

    def judge(self) -> Iterator[Finding]:
        """One finding."""
        if self.failure is not None:
            remedy = "" if "; " in self.failure else "; fix that: until then the agent does not start"
            yield refused(SETTINGS, f"{self.failure}{remedy}")
        elif not self.target:
            yield note(SETTINGS, f"{self.path} does not exist, so the defaults apply")
        else:
            link = "" if self.target == self.path else f", a link to {self.target},"
            yield ok(SETTINGS, f"{self.path}{link} can be used")


class Folders(Check, frozen=True):
    """The folders of keys and store, and the files of the store.

    state_fault: why the agent would refuse the state folder.
    """

    state: Node
    state_fault: Fault | None
    keys: Node
    store: Node
    files: list[Node]

    NAMES: ClassVar = (STATE, KEYS, STORE, STORE_FILES)

    @classmethod
    def gather(cls, installation: Installation) -> Folders:
        """Examine each."""
        settings = installation.settings
        state = node_at(settings.state_path, follow=True)  # as the agent does
        readable = state.kind is not None and not state.unreadable
        files = nodes_in(settings.store_path)
        return cls(
            state,
            state_folder_fault(settings.state_path) if readable else None,
            node_at(settings.keys_path),
            node_at(settings.store_path),
            [node for node in files if os.path.basename(node.path) in _STORE_FILES],
        )

    def judge(self) -> Iterator[Finding]:
        """A finding for each folder, and one for the files of the store."""
        if self.state.kind is None:
            yield note(STATE, f"{self.state.path} does not exist yet; the first start makes it")
            return
        yield self._judge_state()
        for name, what, node in (
            (KEYS, "the folder of the key file", self.keys),
            (STORE, "the store's folder", self.store),
        ):
            if node.kind is not None:
                yield node.judge_private(name, what, FOLDER)
        judged = [node.judge_private(STORE_FILES, "a file of the store", FILE) for node in self.files]
        faults = [finding for finding in judged if finding.remedy]
        yield from faults
        if judged and not faults:
            yield ok(STORE_FILES, f"the {len(judged)} files of the store are yours alone")

    def _judge_state(self) -> Finding:
        state = self.state
        if self.state_fault is not None:
            return error(
                STATE, f"{state.path}, the state folder: {self.state_fault.reason}", self.state_fault.remedy
            )
        if state.fault is not None:
            # Others can enter it. The agent takes it all the same, because keys and store are closed to them.
            return warning(STATE, f"{state.path}, the state folder: {state.fault.reason}", state.fault.remedy)
        return state.judge_private(STATE, "the state folder", FOLDER)


class KeyFile(Check, frozen=True):
    """The key file. form: None if there is none. refusal: why the agent would refuse it."""

    path: str
    form: KeyFileForm | None
    refusal: str | None

    NAMES: ClassVar = (KEY, PASSPHRASE, LEFTOVERS)

    @classmethod
    def gather(cls, installation: Installation) -> KeyFile:
        """Read the file's form, and what is public of its content."""
        form, refusal = None, None
        try:
            check_key_file(installation.settings)
            form = key_file_form(installation.settings.keys_path)
        except KeyFileError as failure:
            refusal = failure.sentence
        except OSError as failure:
            refusal = f"{failure.filename} cannot be read: {failure.strerror}; see who owns it"
        return cls(str(installation.settings.keys_path / KEY_FILE), form, refusal)

    def judge(self) -> Iterator[Finding]:
        """A finding for the file, one for its passphrase, and one for temporary files beside it."""
        if self.refusal is not None:
            yield refused(KEY, self.refusal)
        elif self.form is not None:
            yield ok(KEY, f"{self.path} is yours alone and has the right form")
            yield self._judge_passphrase(self.form)
            if self.form.leftovers:
                names = ", ".join(self.form.leftovers)
                yield warning(
                    LEFTOVERS,
                    f"an interrupted change left {names} beside {self.path}: that may be the bare key",
                    "start the agent, which removes it, or remove it by hand",
                )
        else:
            yield note(KEY, f"{self.path} does not exist yet; the first start makes it")

    def _judge_passphrase(self, form: KeyFileForm) -> Finding:
        if form.cost is None:
            return note(
                PASSPHRASE,
                f"{self.path} needs no passphrase: whoever can read it can open the store",
                "`agentctl passwd` sets one",
            )
        mebibytes, passes = form.cost.memory_bytes // _MIB, form.cost.passes
        says = f"a passphrase protects {self.path} (Argon2id, {mebibytes} MiB, {passes} passes)"
        if form.cost.memory_bytes < WEAK_BYTES:
            remedy = "`agentctl passwd` measures again what this machine can do"
            return note(PASSPHRASE, f"{says}, which is little", remedy)
        return ok(PASSPHRASE, says)


class Token(Check, frozen=True):
    """The token file of this shell, and never the token.

    folder_fault: why others could replace the file. variable: the one that holds a token instead of the file.
    """

    path: str
    has_token: bool
    refusal: str | None
    folder: Node
    folder_fault: Fault | None
    variable: str | None

    NAMES: ClassVar = (TOKEN, TOKEN_FOLDER, ENVIRONMENT)

    @classmethod
    def gather(cls, installation: Installation) -> Token:
        """Read the file as a client does, and drop its content."""
        path, has_token, refusal = installation.token_path, False, None
        try:
            has_token = TokenFile(path).read() is not None
        except TokenFileError as failure:
            refusal = failure.sentence
        folder = os.path.dirname(path)
        try:
            fault = folders_fault(folder)
        except OSError:  # reading the file said so
            fault = None
        return cls(
            path, has_token, refusal, node_at(folder), fault, paths.token_variable(installation.environ)
        )

    def judge(self) -> Iterator[Finding]:
        """A finding for the file, and for its folder and the environment if there is something to say."""
        if self.refusal is not None:
            yield refused(TOKEN, self.refusal)
        elif self.has_token:
            yield ok(TOKEN, f"{self.path} is yours alone and holds one token")
        else:
            yield note(TOKEN, f"{self.path} holds no token: this shell is not logged in", "`agentctl login`")
        if self.folder_fault is not None:
            yield warning(
                TOKEN_FOLDER,
                f"others may replace the token file, because of {self.folder_fault.path}: "
                f"{self.folder_fault.reason}",
                f"{self.folder_fault.remedy}, or choose another path ({paths.TOKEN_PATH_VARIABLE})",
            )
        elif self.folder.kind is not None:
            yield ok(TOKEN_FOLDER, f"nobody else can replace files in {self.folder.path}")
        if self.variable == paths.TOKEN_VARIABLE:
            yield note(
                ENVIRONMENT,
                f"{self.variable} holds a token: every process of yours can read it",
                "unset it if a file or AGENTD_TOKEN_FD will do",
            )
