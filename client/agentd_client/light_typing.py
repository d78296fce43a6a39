"""The parts of `typing` that classes need at run time; importing it takes as long as all the rest.

Type checkers read the real one instead::

    TYPE_CHECKING = False  # type checkers know it by its name
    if TYPE_CHECKING:
        from typing import NamedTuple
    else:
        from .light_typing import NamedTuple
"""

from __future__ import annotations

from collections import namedtuple  # already imported by msgpack


class _NamedTupleType(type):
    def __new__(cls, name, bases, namespace):  # type: ignore[no-untyped-def]
        fields = namespace["__annotations__"]
        defaults = [namespace[field] for field in fields if field in namespace]
        made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])  # type: ignore[misc]
        for key, value in namespace.items():
            if key not in fields:
                setattr(made, key, value)
        return made


NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})
"""As `typing.NamedTuple`: the annotations are the fields, the values their defaults."""


T = None
"""The parameter of a `Generic`."""


class Generic:
    """As `typing.Generic`, but only as a base class."""

    __slots__ = ()

    def __class_getitem__(cls, parameters: object) -> type:
        return cls
