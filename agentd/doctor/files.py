"""The files: settings, the folders of keys and store, the key file, and the token file of this shell."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agentd_client import paths
from agentd_client.errors import KeyFileError, TokenFileError
from agentd_client.private import folders_fault
from agentd_client.token_file import TokenFile

from ..keys import KEY_FILE, KeyFileForm, key_file_form
from ..state_folder import check_key_file, state_folder_fault
from .findings import Finding, error, note, ok, refused, warning
from .installation import Installation
from .system import FILE, FOLDER, Node, node_at, nodes_in

_STORE_FILES = ("data.mdb", "lock.mdb", "agentd.lock", "stopped")
_MIB = 1024 * 1024

WEAK_BYTES = 64 * _MIB
"""Of Argon2id's memory: libsodium's "interactive". Less was measured on a machine that had little memory."""


def check_settings(installation: Installation) -> Iterator[Finding]:
    """Whether the agent can use the settings file."""
    path, failure = os.path.abspath(installation.config_path), installation.config_failure
    if failure is not None:
        remedy = "" if "; " in failure else "; fix that: until then the agent does not start"
        yield refused("settings.file", f"{failure}{remedy}")
    elif not os.path.exists(path):
        yield note("settings.file", f"{path} does not exist, so the defaults apply")
    else:
        target = os.path.realpath(path)
        link = "" if target == path else f", a link to {target},"
        yield ok("settings.file", f"{path}{link} can be used")


def check_folders(installation: Installation) -> Iterator[Finding]:
    """The folders of keys and store, and the files of the store."""
    settings = installation.settings
    state = node_at(settings.state_path, follow=True)  # as the agent does
    if state.kind is None:
        yield note("state.folder", f"{state.path} does not exist yet; the first start makes it")
        return
    yield _judge_state(state)
    keys, store = node_at(settings.keys_path), node_at(settings.store_path)
    if keys.kind is not None:
        yield keys.judge_private("keys.folder", "the folder of the key file", FOLDER)
    if store.kind is not None:
        yield store.judge_private("store.folder", "the store's folder", FOLDER)
    files = [node for node in nodes_in(settings.store_path) if os.path.basename(node.path) in _STORE_FILES]
    judged = [node.judge_private("store.files", "a file of the store", FILE) for node in files]
    faults = [finding for finding in judged if finding.remedy]
    yield from faults
    if judged and not faults:
        yield ok("store.files", f"the {len(judged)} files of the store are yours alone")


def _judge_state(state: Node) -> Finding:
    fault = None if state.unreadable else state_folder_fault(state.path)
    if fault is not None:
        return error("state.folder", f"{state.path}, the state folder: {fault.reason}", fault.remedy)
    if state.fault is not None:
        # Others can enter it. The agent takes it all the same, because keys and store are closed to them.
        says = f"{state.path}, the state folder: {state.fault.reason}"
        return warning("state.folder", says, state.fault.remedy)
    return state.judge_private("state.folder", "the state folder", FOLDER)


def check_key(installation: Installation) -> Iterator[Finding]:
    """The key file, and what is public of its content."""
    path = str(installation.settings.keys_path / KEY_FILE)
    try:
        check_key_file(installation.settings)
        form = key_file_form(installation.settings.keys_path)
    except KeyFileError as failure:
        yield refused("key.file", failure.sentence)
        return
    except OSError as failure:
        says = f"{failure.filename} cannot be read: {failure.strerror}"
        yield error("key.file", says, "see who owns it")
        return
    if form is None:
        yield note("key.file", f"{path} does not exist yet; the first start makes it")
    else:
        yield from judge_form(path, form)


def judge_form(path: str, form: KeyFileForm) -> Iterator[Finding]:
    """A finding for the key file, one for its passphrase, and one for temporary files beside it."""
    yield ok("key.file", f"{path} is yours alone and has the right form")
    if form.cost is None:
        yield note(
            "key.passphrase",
            f"{path} needs no passphrase: whoever can read it can open the store",
            "`agentctl passwd` sets one",
        )
    else:
        mebibytes, passes = form.cost.memory_bytes // _MIB, form.cost.passes
        says = f"a passphrase protects {path} (Argon2id, {mebibytes} MiB, {passes} passes)"
        if form.cost.memory_bytes < WEAK_BYTES:
            remedy = "`agentctl passwd` measures again what this machine can do"
            yield note("key.passphrase", f"{says}, which is little", remedy)
        else:
            yield ok("key.passphrase", says)
    if form.leftovers:
        yield warning(
            "key.leftovers",
            f"an interrupted change left {', '.join(form.leftovers)} beside {path}: that may be the bare key",
            "start the agent, which removes it, or remove it by hand",
        )


def check_token(installation: Installation) -> Iterator[Finding]:
    """The token file of this shell, its folder and the environment. The token itself is dropped."""
    path = os.path.abspath(paths.session_token_path(installation.environ))
    try:
        has_token = TokenFile(path).read() is not None
    except TokenFileError as failure:
        yield refused("token.file", failure.sentence)
    else:
        if has_token:
            yield ok("token.file", f"{path} is yours alone and holds one token")
        else:
            says = f"{path} holds no token: this shell is not logged in"
            yield note("token.file", says, "`agentctl login`")
    folder = os.path.dirname(path)
    try:
        fault = folders_fault(folder)
    except OSError:  # reading the file said so
        fault = None
    if fault is not None:
        yield warning(
            "token.folder",
            f"others may replace the token file, because of {fault.path}: {fault.reason}",
            f"{fault.remedy}, or choose another path ({paths.TOKEN_PATH_VARIABLE})",
        )
    elif node_at(folder).kind is not None:
        yield ok("token.folder", f"nobody else can replace files in {folder}")
    variable = paths.token_variable(installation.environ)
    if variable == paths.TOKEN_VARIABLE:
        yield note(
            "token.environment",
            f"{variable} holds a token: every process of yours can read it",
            "unset it if a file or AGENTD_TOKEN_FD will do",
        )
