"""The token file of this shell: private, whole, and where nobody else can replace it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from agentd_client import paths
from agentd_client.errors import TokenFileError
from agentd_client.token_file import TokenFile

from .finding import Finding, note, ok, refused, warning
from .node import Node, look
from .scene import Scene

FILE, FOLDER, ENVIRONMENT = "token.file", "token.folder", "token.environment"
NAMES = (FILE, FOLDER, ENVIRONMENT)

_WRITABLE_BY_OTHERS = 0o022


class Facts(NamedTuple):
    """What there is, and never the token. variable: the one that hands a token over instead of the file."""

    path: str
    has_token: bool
    refusal: str | None
    folder: Node
    variable: str | None
    uid: int


def gather(scene: Scene) -> Facts:
    """Read the file as a client does, and forget what it says."""
    has_token, refusal = False, None
    try:
        has_token = TokenFile(scene.token_path).read() is not None
    except TokenFileError as failure:
        refusal = failure.sentence
    folder = look(os.path.dirname(scene.token_path))
    return Facts(scene.token_path, has_token, refusal, folder, paths.token_variable(scene.environ), scene.uid)


def judge(facts: Facts) -> Iterator[Finding]:
    """A finding for the file, and for folder and environment where they are worth one."""
    if facts.refusal is not None:
        yield refused(FILE, facts.refusal)
    elif facts.has_token:
        yield ok(FILE, f"{facts.path} is yours alone and holds one token")
    else:
        yield note(FILE, f"{facts.path} holds no token: this shell is not logged in", "`agentctl login`")
    if facts.folder.kind is not None:
        yield _judge_folder(facts.folder, facts.uid)
    if facts.variable == paths.TOKEN_VARIABLE:
        yield note(
            ENVIRONMENT,
            f"{facts.variable} hands a token over: every process of yours can read it",
            "where a file or AGENTD_TOKEN_FD can do, unset it",
        )


def _judge_folder(folder: Node, uid: int) -> Finding:
    if folder.uid not in (uid, 0):
        return warning(
            FOLDER, f"{folder.path} belongs to uid {folder.uid}", "choose a path in a folder of your own"
        )
    if folder.mode & _WRITABLE_BY_OTHERS and not folder.mode & stat.S_ISVTX:
        return warning(
            FOLDER,
            f"others may replace files in {folder.path} (mode {folder.mode:04o})",
            f"run `chmod go-w {folder.path}`, or choose another path ({paths.TOKEN_PATH_VARIABLE})",
        )
    return ok(FOLDER, f"nobody else may replace files in {folder.path}")
