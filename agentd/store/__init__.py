"""The store: sealed values under key paths, in one LMDB environment with one committing thread."""

from .db import DB
from .entries import Entry, KeyPath, KeyRing
from .folder import check_folder
from .growth import MIN_GROWTH_BYTES
from .offline_check import OfflineCheck, Seals, check_offline
from .view import Transaction, View

__all__ = [
    "DB",
    "MIN_GROWTH_BYTES",
    "Entry",
    "KeyPath",
    "KeyRing",
    "OfflineCheck",
    "Seals",
    "Transaction",
    "View",
    "check_folder",
    "check_offline",
]
