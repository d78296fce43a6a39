"""The store: sealed values under key paths, in one LMDB environment with one committing thread."""

from .db import DB
from .examination import Examined, Seals, examine
from .files import check_folder
from .growth import MIN_GROWTH_BYTES
from .keypath import KeyPath
from .sealing import KeyRing
from .transaction import Transaction
from .view import Entry, View

__all__ = [
    "DB",
    "MIN_GROWTH_BYTES",
    "Entry",
    "Examined",
    "KeyPath",
    "KeyRing",
    "Seals",
    "Transaction",
    "View",
    "check_folder",
    "examine",
]
