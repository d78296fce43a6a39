"""What classes here need of `typing` while they run, without its import, which takes as long as all others.

Type checkers read the real one in its place::

    TYPE_CHECKING = False  # known to type checkers by its name
    if TYPE_CHECKING:
        from typing import NamedTuple
    else:
        from .light_typing import NamedTuple
"""

from __future__ import annotations

from collections import namedtuple  # msgpack has imported it

_NOT_COPIED = frozenset({"__annotations__", "__module__", "__qualname__"})


class _NamedTupleType(type):
    def __new__(cls, name, bases, namespace):  # type: ignore[no-untyped-def]
        fields = namespace["__annotations__"]
        defaults = [namespace[field] for field in fields if field in namespace]
        made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])  # type: ignore[misc]
        for key, value in namespace.items():
            if key not in _NOT_COPIED and key not in fields:
                setattr(made, key, value)
        made.__annotations__ = fields
        return made


NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})
"""`typing.NamedTuple`: the class's annotations are the fields, its values their defaults."""


T = None
"""The parameter of a `Generic`."""


class Generic:
    """`typing.Generic`, as a base class alone."""

    __slots__ = ()

    def __class_getitem__(cls, parameters: object) -> type:
        return cls
