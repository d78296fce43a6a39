"""Calls, results and errors as they go over the wire: camelCase maps out, checked named tuples back."""

from __future__ import annotations

from ..errors import ERRORS, AgentdError, ProtocolError, RequestError
from . import results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, NamedTuple, TypeVar

    ResultT = TypeVar("ResultT", bound=NamedTuple)
    T = TypeVar("T")
else:
    from ..light_typing import Generic, NamedTuple, T

# A bool is no int: types are compared exactly.
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


class UnusableAnswerError(ProtocolError):
    """The agent's answer is not of the form that this client knows; perhaps it is of another version."""


def camel(name: str) -> str:
    """`created_at` -> `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class Method(NamedTuple, Generic[T]):
    """A method: its wire name, how its answer is read, and whether to repeat it if that answer is lost."""

    name: str
    read: Callable[[Any], T]
    repeatable: bool = True

    def call(self, **params: Any) -> Call[T]:
        """A call with these parameters, by their Python names; those that are None are left out."""
        return Call(
            self,
            {
                camel(name) if "_" in name else name: value
                for name, value in params.items()
                if value is not None
            },
        )


class Call(NamedTuple, Generic[T]):
    """A request to be made: a method, and its parameters by their wire names."""

    method: Method[T]
    params: dict[str, Any]

    def __repr__(self) -> str:
        # Parameters hold tokens and passphrases, and a call stands in every traceback that shows its locals.
        return f"Call({self.method.name}, {', '.join(self.params) or 'no parameters'})"


class _Form:
    """How one kind of result is written, by the annotations of its class.

    fields: of each field its wire name, its types, and its default.
    nested: of each field that holds a result or a list of them its position, its wire name, and their kind.
    """

    def __init__(self, kind: type[Any]) -> None:
        annotations: dict[str, str] = {}
        for base in reversed(kind.__mro__):
            annotations |= getattr(base, "__annotations__", {})
        self.names = [camel(field) for field in kind._fields]
        self.fields: list[tuple[str, tuple[type, ...], Any]] = []
        self.nested: list[tuple[int, str, type[Any]]] = []
        for at, (field, name) in enumerate(zip(kind._fields, self.names, strict=True)):
            declared, _, optional = annotations[field].partition(" | ")  # then None
            item = declared.removeprefix("list[").removesuffix("]")
            types = (list,) if item != declared else _TYPES.get(item, (dict,))
            if optional:
                types += (type(None),)
            self.fields.append((name, types, kind._field_defaults.get(field)))
            if item not in _TYPES:
                self.nested.append((at, name, getattr(results, item)))


_forms: dict[type[Any], _Form] = {}


def _form_of(kind: type[Any]) -> _Form:
    return _forms.setdefault(kind, _Form(kind))


def to_wire(result: Any) -> dict[str, Any]:
    """A result (a named tuple) as the map that goes over the wire."""
    kind = type(result)
    form = _forms.get(kind) or _form_of(kind)
    wire = dict(zip(form.names, result, strict=True))
    for _, name, _ in form.nested:
        value = wire[name]
        if type(value) is list:
            wire[name] = [to_wire(item) for item in value]
        elif value is not None:
            wire[name] = to_wire(value)
    return wire


def from_wire(kind: type[ResultT], value: object) -> ResultT:
    """The named tuple of a received map.

    Fields that a newer agent added are ignored. A field that an older agent does not send gets the named
    tuple's default, so every field that is added to a result needs one.

    Raises:
        UnusableAnswerError: a field is missing or of the wrong type.
    """
    if not isinstance(value, dict):
        raise UnusableAnswerError(f"the agent's answer is not a map but {type(value).__name__}")
    form = _forms.get(kind) or _form_of(kind)
    found = []
    for name, types, default in form.fields:
        item = value.get(name, default)
        if type(item) not in types:
            raise UnusableAnswerError(f"the agent's answer has no usable field {name!r}")
        found.append(item)
    for at, _, nested in form.nested:
        item = found[at]
        if type(item) is list:
            found[at] = [from_wire(nested, each) for each in item]
        elif item is not None:
            found[at] = from_wire(nested, item)
    return kind._make(found)


def error_to_wire(error: AgentdError) -> list[Any]:
    """``[number, "CODE: sentence"]``, the form that foreign clients already know how to show."""
    return [error.number, f"{error.code}: {error.sentence}"]


def error_from_wire(error: object) -> AgentdError:
    """The exception that a received error stands for; one of a newer agent becomes a `RequestError`."""
    match error:
        case [int(), str(text)]:
            code, _, sentence = text.partition(": ")
            kind = ERRORS.get(code)
            return RequestError(text) if kind is None else kind(sentence)
    return RequestError(f"the agent answered an error of a form unknown here ({type(error).__name__})")
