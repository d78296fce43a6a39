"""The key file: there, private, of a form that the agent takes, with a passphrase or without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agentd_client.errors import KeyFileError

from ..keys import KEY_FILE, KeyFileForm, key_file_form
from .finding import Finding, error, note, ok, refused, warning
from .node import look
from .scene import Scene

FILE, PASSPHRASE, LEFTOVERS = "key.file", "key.passphrase", "key.leftovers"
NAMES = (FILE, PASSPHRASE, LEFTOVERS)

_MIB = 1024 * 1024

WEAK_BYTES = 64 * _MIB
"""Of Argon2id's memory: what libsodium calls interactive. Less was measured on a machine that had little."""


class Facts(NamedTuple):
    """form: None where there is no key file. refusal: why the agent would refuse it."""

    path: str
    form: KeyFileForm | None
    refusal: str | None
    has_store: bool


def gather(scene: Scene) -> Facts:
    """Read the file's form, and of its content what is public."""
    form, refusal = None, None
    try:
        form = key_file_form(scene.settings.keys_path)
    except KeyFileError as failure:
        refusal = failure.sentence
    except OSError as failure:
        refusal = f"{failure.filename} cannot be read: {failure.strerror}; see who owns it"
    has_store = look(scene.settings.store_path / "data.mdb").kind is not None
    return Facts(str(scene.settings.keys_path / KEY_FILE), form, refusal, has_store)


def judge(facts: Facts) -> Iterator[Finding]:
    """A finding for the file, one for its passphrase, and one for what was left beside it."""
    if facts.refusal is not None:
        yield refused(FILE, facts.refusal)
    elif facts.form is not None:
        yield ok(FILE, f"{facts.path} is yours alone and of the right form")
        yield _judge_passphrase(facts.path, facts.form)
        yield from _judge_leftovers(facts)
    elif facts.has_store:
        yield error(
            FILE,
            f"{facts.path} is gone, and the store cannot be opened without it",
            "restore the key file, or begin anew with `agentd init --fresh`",
        )
    else:
        yield note(FILE, f"{facts.path} is not there yet; the first start makes it")


def _judge_passphrase(path: str, form: KeyFileForm) -> Finding:
    if form.cost is None:
        return note(
            PASSPHRASE,
            f"{path} needs no passphrase: whoever can read it can open the store",
            "`agentctl passwd` sets one",
        )
    mebibytes, passes = form.cost.memory_bytes // _MIB, form.cost.passes
    says = f"a passphrase protects {path} (Argon2id, {mebibytes} MiB, {passes} passes)"
    if form.cost.memory_bytes < WEAK_BYTES:
        return note(
            PASSPHRASE, f"{says}, which is little", "`agentctl passwd` measures anew what this machine can do"
        )
    return ok(PASSPHRASE, says)


def _judge_leftovers(facts: Facts) -> Iterator[Finding]:
    if facts.form is not None and facts.form.leftovers:
        names = ", ".join(facts.form.leftovers)
        yield warning(
            LEFTOVERS,
            f"beside {facts.path} lies what an interrupted change left ({names}): perhaps the bare key",
            "start the agent, which removes it, or remove it by hand",
        )
