"""How a token is handed to a command: by descriptor, by a private file, or in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from .. import paths
from ..errors import TokenFileError
from ..protocol.results import CreatedToken
from ..token_file.folder import TokenFolder

FD, FILE, ENV = "fd", "file", "env"

# The file itself, and those beside it while its token is renewed.
_FILE_NAME = r"\.?([0-9]{1,9})-[0-9A-Za-z_-]+(?:\.new|\.lock)?"


class Handover:
    """A token prepared for a command: the variable that names it, and how to take it back."""

    __slots__ = ("_variable", "_value", "take_back")  # noqa: RUF023 - the order of the constructor

    def __init__(self, variable: str, value: str, take_back: Callable[[], None]) -> None:
        self._variable = variable
        self._value = value
        self.take_back = take_back

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The command's environment, with this and no other variable that can name a token."""
        return paths.without_tokens(environ) | {self._variable: self._value}


def hand_over(created: CreatedToken, way: str) -> Handover:
    """Prepare the token for handing over by `FD`, `FILE` or `ENV`.

    Raises:
        TokenFileError: the private file cannot be made.
        OSError: the descriptor cannot be made.
    """
    if way == ENV:
        return Handover(paths.TOKEN_VARIABLE, created.token, lambda: None)
    if way == FILE:
        return _by_file(created)
    from ..token_file.descriptor import sealed_descriptor

    descriptor = sealed_descriptor(created.token)
    return Handover(paths.TOKEN_FD_VARIABLE, str(descriptor), lambda: os.close(descriptor))


def handover_folder() -> str:
    """The folder of the files that are handed to commands."""
    return os.path.join(paths.runtime_dir(), "exec")


def _by_file(created: CreatedToken) -> Handover:
    folder_path = handover_folder()
    name = f"{os.getpid()}-{created.id}"
    path = os.path.join(folder_path, name)
    if not re.fullmatch(_FILE_NAME, name):  # it becomes part of a path, and an agent could answer anything
        raise TokenFileError("the agent gave the session an id that cannot name a file; use --fd")
    try:
        with TokenFolder.opened_for_writing(folder_path) as folder:
            _clean(folder)
            folder.create(name, created.token.encode("ascii") + b"\n")
    except OSError as error:
        raise TokenFileError(f"cannot write token file {path}: {error.strerror}; use --fd") from error

    def take_back() -> None:
        with suppress(OSError):
            os.unlink(path)

    return Handover(paths.TOKEN_PATH_VARIABLE, path, take_back)


def _clean(folder: TokenFolder) -> None:
    for name in os.listdir(folder.path):
        found = re.fullmatch(_FILE_NAME, name)
        if found is not None and not _runs(int(found[1])):
            with suppress(OSError):  # another process may clean up at the same time
                folder.remove(name)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's process by now, or not a pid: leave the file
    return True
