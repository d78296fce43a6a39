"""The token file: one line that only its owner can read, replaced as a whole.

Writers take turns by a lock file beside it, whose name ends in ``.lock``. Readers take no lock and still see
one whole token, because an existing file never changes: a new file takes over its name (rename(2)).
docs/security.md says who may read it and what is refused.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from _thread import allocate_lock
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from ..errors import TokenFileBusyError, TokenFileError
from ..paths import TOKEN_PATH_VARIABLE
from ..private import READ_FLAGS, folders_fault, private_fault
from ..protocol.methods import stripped_token, token_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .folder import TokenFolder

MAX_FILE_BYTES = 16 * 1024
"""Twice the largest token. A larger file is not a token file and is neither read nor replaced."""

FOLDERS_CHECKED_SECONDS = 1.0
"""How long a check of the folders counts for a file that is read again and again."""

_ELSEWHERE = f"choose another path ({TOKEN_PATH_VARIABLE})"


class TokenFile:
    """A file for one token. Safe to use from many threads and processes at once.

    Every method raises `TokenFileError`, naming the file, the reason and the remedy, for what it refuses and
    for what the system refuses. Writing methods raise `TokenFileBusyError` if another writer holds the lock
    for five seconds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute from now on: a later chdir must not move it.
        self.path = os.path.abspath(os.fspath(path))
        self._folder_path, self._name = os.path.split(self.path)
        if "\0" in self.path or not self._name:
            raise TokenFileError(f"{self.path!r} cannot be the path of a token file; choose another")
        # The same name for all writers, used under the lock: the next one removes what a killed one left.
        self._new_name = f".{self._name}.new"
        self._lock_name = f"{self._name}.lock"
        self._check_folders_at = 0.0

    def read(self) -> str | None:
        """The token, or None where there is no file or it is empty; white space around it is stripped."""
        with self._translated("read"):
            self._check_folders()
            try:
                descriptor = os.open(self.path, READ_FLAGS)
            except FileNotFoundError:
                return None
            try:
                self._check(descriptor)
                content = os.read(descriptor, MAX_FILE_BYTES)
            finally:
                os.close(descriptor)
        text = content.decode("ascii", "replace").strip()
        if not text:
            return None
        if token_text(text) is None:
            # The zeros of a lost write, or some other file: never returned as a token.
            raise self._refusal("it does not hold one token", f"run `rm {self.path}` and log in again")
        return text

    def write(self, token: str, *, anew: bool = False) -> None:
        """Replace the token; the new one is on the disk when this returns.

        A file that `read` would refuse is refused here too and left as it is, unless `anew` is set: then
        anything except a directory is replaced. A missing folder is made, with mode 0700.

        Raises:
            InvalidTokenError: not a token: visible ASCII on one line, at most 8 KiB.
        """
        text = stripped_token(token)
        with self.turn() as replace:
            replace(text, anew=anew)

    def exchange(self, token: str) -> str | None:
        """As `write`; returns the previous token. Of two callers at once, the later one gets the other's."""
        text = stripped_token(token)
        with self.turn() as replace:
            before = self.read()
            replace(text)
            return before

    def take(self) -> str | None:
        """Remove the file and return its token: of two callers at once, one gets it.

        A file that `read` would refuse is refused here too and left; `remove` removes it.
        """
        if not os.path.lexists(self.path):
            return None
        with self._removing() as folder:
            token = self.read()
            folder.remove(self._name)
            return token

    def remove(self) -> bool:
        """Remove the file, unless it is a directory, and its lock file; returns whether there was one."""
        if not os.path.lexists(self.path) and not os.path.lexists(f"{self.path}.lock"):
            return False  # so that neither a folder nor permission to write is needed
        with self._removing() as folder:
            return folder.remove(self._name)

    def claim(self) -> TokenClaim:
        """A claim to replace the token by its successor; `TokenClaim.take` locks the file."""
        return TokenClaim(self)

    @contextmanager
    def turn(self, *, waiting: bool = True) -> Iterator[Callable[..., None]]:
        """One writer's turn; yields the function that replaces the token, which is checked already.

        Without `waiting`, it raises `TokenFileBusyError` at once if another writer has the lock.
        """
        from .folder import TokenFolder  # not needed to read

        with (
            self._translated("write"),
            TokenFolder.opened_for_writing(self._folder_path) as folder,
            folder.locked(self._lock_name, waiting=waiting),
        ):
            yield partial(self._replace, folder)

    @contextmanager
    def _removing(self) -> Iterator[TokenFolder]:
        from .folder import TokenFolder

        with (
            self._translated("remove"),
            TokenFolder.opened(self._folder_path) as folder,
            folder.locked(self._lock_name, removed_after=True),
        ):
            folder.remove(self._new_name)
            yield folder
            folder.sync()

    def _replace(self, folder: TokenFolder, text: str, *, anew: bool = False) -> None:
        with self._translated("write"):
            if not anew:
                self._check_target(folder)
            folder.remove(self._new_name)
            try:
                folder.create(self._new_name, text.encode("ascii") + b"\n")
                folder.rename(self._new_name, self._name)
            except BaseException:
                with suppress(OSError):  # report the first error
                    folder.remove(self._new_name)
                raise
            folder.sync()

    def _check_target(self, folder: TokenFolder) -> None:
        try:
            descriptor = folder.open(self._name, READ_FLAGS)
        except FileNotFoundError:
            return
        try:
            self._check(descriptor)
        finally:
            os.close(descriptor)

    def _check(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise self._refusal("it is not a regular file", _ELSEWHERE)
        fault = private_fault(self.path, found)
        if fault is not None:
            raise self._refusal(
                fault.reason,
                f"{fault.remedy}, and end the session if someone may have read its token; or {_ELSEWHERE}",
            )
        # 0 is fine: the file was replaced since it was opened, and its token was whole.
        if found.st_nlink > 1:
            raise self._refusal(
                f"it has {found.st_nlink} names (hard links)", f"run `rm {self.path}` and log in again"
            )
        if found.st_size > MAX_FILE_BYTES:
            raise self._refusal(f"it is larger than {MAX_FILE_BYTES} bytes", _ELSEWHERE)

    def _check_folders(self) -> None:
        # Not at every read, of which it would cost a third.
        now = time.monotonic()
        if now >= self._check_folders_at:
            fault = folders_fault(self._folder_path)
            if fault is not None:
                raise TokenFileError(f"the token file's folder {fault}")
            self._check_folders_at = now + FOLDERS_CHECKED_SECONDS

    def _refusal(self, reason: str, remedy: str) -> TokenFileError:
        return TokenFileError(f"token file {self.path} is refused: {reason}; {remedy}")

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ELOOP and os.path.islink(self.path):
                raise self._refusal(
                    "it is a symbolic link", f"name the file that it points to, or {_ELSEWHERE}"
                ) from None
            about = "" if error.filename in (None, self.path, self._name) else f" ({error.filename})"
            raise TokenFileError(
                f"cannot {verb} token file {self.path}: {error.strerror}{about}; fix this, or {_ELSEWHERE}"
            ) from error


class TokenClaim:
    """One writer's turn, held from `take` to `release` while something else happens.

    The methods block and raise as those of `TokenFile` do. Each may run in another thread. `release` does not
    block: if another thread is still at work, that thread releases the lock when it is done.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file
        self._replace: Callable[..., None] | None = None
        self._held = ExitStack()
        self._state = allocate_lock()
        self._at_work = False
        self._released = False

    def take(self, token: str) -> bool:
        """Lock the file without waiting, and check that it still holds this token.

        False if another writer has the lock, or if the file holds something else by now.
        """
        with self._working():
            try:
                replace = self._held.enter_context(self._file.turn(waiting=False))
            except TokenFileBusyError:
                return False
            if self._file.read() != token:
                return False
            self._replace = replace
            return True

    def replace(self, token: str) -> None:
        """Replace the token, after `take` returned True; the new one is on the disk when this returns."""
        text = stripped_token(token)
        with self._working():
            if self._replace is None:
                raise self._refusal("is not held")
            self._replace(text)

    def release(self) -> None:
        """Release the lock; nothing can be replaced afterwards."""
        with self._state:
            self._released = True
            if self._at_work:
                return
        self._held.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._state:
            if self._released:
                raise self._refusal("was released")
            self._at_work = True
        try:
            yield
        finally:
            with self._state:
                self._at_work = False
                released = self._released
            if released:
                self._held.close()

    def _refusal(self, reason: str) -> TokenFileBusyError:
        return TokenFileBusyError(f"the claim on token file {self._file.path} {reason}; make a new claim")
