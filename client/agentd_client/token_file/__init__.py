"""The token file: one line that only its owner can read, replaced whole or not at all.

Writers take turns by a lock file beside it, whose name ends in ``.lock``; readers take no lock and see
one whole token, because a file that is there never changes: another takes its name (rename(2)). Who may
read it and what is refused: docs/security.md.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from _thread import allocate_lock
from contextlib import ExitStack, contextmanager, suppress

from ..errors import TokenFileBusyError, TokenFileError
from ..paths import TOKEN_PATH_VARIABLE
from ..private import folders_fault, private_fault
from ..protocol.calls import stripped_token, token_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..private import Fault
    from .folder import TokenFolder

MAX_FILE_BYTES = 16 * 1024
"""The largest token is half of this; a larger file is not a token file, and is neither read nor replaced."""

JUDGED_SECONDS = 1.0
"""For how long the folders of a file that is read again and again are taken to be as they were."""

_ELSEWHERE = f"choose another path ({TOKEN_PATH_VARIABLE})"

# O_NONBLOCK: opening a FIFO would wait for a writer for ever. O_NOFOLLOW: the name must be the file.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TokenFile:
    """A place for one token. Safe to use from many threads and processes at once.

    Every method raises `TokenFileError`, naming the file, the reason and the remedy, for what it refuses
    and for what the system refuses; the writing ones raise `TokenFileBusyError` where another writer does
    not let go of the lock for five seconds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute from now on: a later chdir must not move it.
        self.path = os.path.abspath(os.fspath(path))
        self._folder_path, self._name = os.path.split(self.path)
        if "\0" in self.path or not self._name:
            raise TokenFileError(f"{self.path!r} cannot be the path of a token file; choose another")
        # One name for all, made and removed under the lock: what a killed writer leaves, the next one clears.
        self._new_name = f".{self._name}.new"
        self._lock_name = f"{self._name}.lock"
        self._judge_at = 0.0

    def read(self) -> str | None:
        """The token, or None where there is no file or it is empty; white space around it is stripped."""
        with self._translated("read"):
            self._check_folders()
            try:
                descriptor = os.open(self.path, _READ_FLAGS)
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
            # The zeros of a lost write, or some other file: never handed on as a token.
            raise self._refusal("it does not hold one token", f"run `rm {self.path}` and log in again")
        return text

    def write(self, token: str, *, anew: bool = False) -> None:
        """Replace what is there by this token; it is on the disk when this returns.

        What `read` would refuse is refused here too and stays as it is, unless `anew` is set: then it is
        replaced, whatever it is but a directory. A missing folder is made, with mode 0700.

        Raises:
            InvalidTokenError: not a token: visible ASCII on one line, at most 8 KiB.
        """
        text = stripped_token(token)
        with self._writing() as folder:
            self._replace(folder, text, anew=anew)

    def exchange(self, token: str) -> str | None:
        """As `write`; returns what was there before. Of two at once, the later one returns the other's."""
        text = stripped_token(token)
        with self._writing() as folder:
            before = self.read()
            self._replace(folder, text, anew=False)
            return before

    def take(self) -> str | None:
        """Remove the file and return the token that was in it: of two at once, one gets it.

        What `read` would refuse is refused here too and stays; `remove` removes it.
        """
        if not os.path.lexists(self.path):
            return None
        with self._removing() as folder:
            token = self.read()
            folder.remove(self._name)
            return token

    def remove(self) -> bool:
        """Remove the file, whatever it is but a directory, and its lock file; whether there was one."""
        if not os.path.lexists(self.path) and not os.path.lexists(f"{self.path}.lock"):
            return False  # nothing to remove needs no folder, and no right to write to it
        with self._removing() as folder:
            return folder.remove(self._name)

    def claim(self) -> TokenClaim:
        """The right to replace the token by its successor; nothing is locked before `TokenClaim.take`."""
        return TokenClaim(self)

    @contextmanager
    def _removing(self) -> Iterator[TokenFolder]:
        from .folder import TokenFolder  # reading needs neither it nor a lock

        with (
            self._translated("remove"),
            TokenFolder.opened(self._folder_path) as folder,
            folder.locked(self._lock_name, removed_after=True),
        ):
            folder.remove(self._new_name)
            yield folder
            folder.sync()

    @contextmanager
    def _writing(self, *, waiting: bool = True) -> Iterator[TokenFolder]:
        from .folder import TokenFolder

        with (
            self._translated("write"),
            TokenFolder.opened_for_writing(self._folder_path) as folder,
            folder.locked(self._lock_name, waiting=waiting),
        ):
            yield folder

    def _replace(self, folder: TokenFolder, text: str, *, anew: bool) -> None:
        if not anew:
            self._check_target(folder)
        folder.remove(self._new_name)
        try:
            with open(folder.open(self._new_name, _NEW_FLAGS, 0o600), "wb") as new:
                os.fchmod(new.fileno(), 0o600)  # the umask may have taken our own rights
                new.write(text.encode("ascii") + b"\n")
                new.flush()
                os.fsync(new.fileno())
            folder.rename(self._new_name, self._name)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                folder.remove(self._new_name)
            raise
        folder.sync()

    def _check_target(self, folder: TokenFolder) -> None:
        try:
            descriptor = folder.open(self._name, _READ_FLAGS)
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
        # None is fine: it was replaced between open and here, and its token was whole.
        if found.st_nlink > 1:
            raise self._refusal(
                f"it has {found.st_nlink} names (hard links)", f"run `rm {self.path}` and log in again"
            )
        if found.st_size > MAX_FILE_BYTES:
            raise self._refusal(f"it is larger than {MAX_FILE_BYTES} bytes", _ELSEWHERE)

    def _check_folders(self) -> None:
        # Not at every read: that would cost a third of it, and whoever reads has judged a moment ago.
        now = time.monotonic()
        if now >= self._judge_at:
            fault = folders_fault(self._folder_path)
            if fault is not None:
                raise folder_refused(fault)
            self._judge_at = now + JUDGED_SECONDS

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
    """The turn of one writer, held over something else: from `take` to `release`.

    The methods block as those of `TokenFile` do, and raise what they raise. Each may run in another thread.
    `release` does not block: where another thread is still at work, that one lets go when it is done.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file
        self._folder: TokenFolder | None = None
        self._held = ExitStack()
        self._state = allocate_lock()
        self._at_work = False
        self._released = False

    def take(self, token: str) -> bool:
        """Lock the file without waiting, and see that it still holds this token.

        False where another writer has the lock, or where the file holds something else by now.
        """
        with self._working():
            try:
                folder = self._held.enter_context(self._file._writing(waiting=False))
            except TokenFileBusyError:
                return False
            if self._file.read() != token:
                return False
            self._folder = folder
            return True

    def replace(self, token: str) -> None:
        """Put another token in its place, after `take` said yes; it is on the disk when this returns."""
        text = stripped_token(token)
        with self._working(), self._file._translated("write"):
            if self._folder is None:
                raise self._refusal("is not held")
            self._file._replace(self._folder, text, anew=False)

    def release(self) -> None:
        """Let go of the lock; from then on nothing is replaced."""
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
        return TokenFileBusyError(f"the claim on token file {self._file.path} {reason}; claim it anew")


def folder_refused(fault: Fault) -> TokenFileError:
    """Others could replace the token file there."""
    return TokenFileError(f"the token file's folder {fault}")
