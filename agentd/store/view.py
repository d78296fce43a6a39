"""The one way of reading and writing that the writer and a transaction share."""

from __future__ import annotations

from typing import Protocol

from .keypath import KeyPath

Path = tuple[bytes, ...]
Entry = tuple[Path, bytes]
"""A path and its value."""


class View(Protocol):
    """What a rule about records needs of the store, wherever it runs. Every method is synchronous.

    Raises:
        InvalidPathError: a path is not one.
        StoreDamagedError: a value was not sealed by this agent at its path.
        TransactionEndedError: the view is used after its end.
    """

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None where there is none."""
        ...

    def sealed(self, path: KeyPath) -> bytes | None:
        """The stored bytes as they are: equal bytes mean an unchanged value.

        None where there is no entry, and where this view itself has changed it.
        """
        ...

    def put(self, path: KeyPath, value: bytes) -> None:
        """Set the value."""
        ...

    def delete(self, path: KeyPath) -> bool:
        """Remove the entry; whether there was one."""
        ...

    def clear(self, prefix: KeyPath = ()) -> int:
        """Remove the entry at `prefix` and all below it; how many there were."""
        ...

    def iterate(
        self,
        prefix: KeyPath = (),
        *,
        after: KeyPath | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """The entry at `prefix` and all below it, in the order of their paths.

        Args:
            prefix: `()` is the whole store.
            after: begin strictly past this path, in the direction of reading; it need not exist.
            reverse: from the last to the first.
            limit: at most so many entries; None for all.
        """
        ...
