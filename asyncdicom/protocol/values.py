"""Frozen value classes: dataclasses that are made in a fraction of the time.

:func:`dataclasses.dataclass` compiles six functions for each frozen class, about 0.5 ms; the messages, PDUs and events of
the protocol are some seventy classes, and a third of what ``asyncdicom echo`` took went into making them. Here the one
function that has to be fast is compiled, ``__init__``, and the others are shared. It sets slots directly, which is quicker
than what a frozen dataclass does, too.

What comes out is a dataclass with slots: ``fields``, ``replace``, ``asdict``, ``match`` and type checkers know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["frozen"]

T = TypeVar("T")


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, kw_only: bool = ...) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, dataclasses.Field))
def frozen(cls: type[T] | None = None, /, *, kw_only: bool = True) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass with slots.

    :param kw_only: fields are given by keyword.
    """
    if cls is None:
        return lambda cls: _make(cls, kw_only=kw_only)
    return _make(cls, kw_only=kw_only)


def _make(cls: type[T], *, kw_only: bool) -> type[T]:
    made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    given = vars(cls)
    methods: dict[str, object] = {
        "__init__": _init(made, fields),
        "__setattr__": _setattr,
        "__delattr__": _delattr,
        "__getstate__": _getstate,
        "__setstate__": _setstate,
        "__repr__": _repr,
        **_comparison(tuple(field.name for field in fields if field.compare)),
    }
    for name, method in methods.items():
        # Defining __eq__ sets __hash__ to None.
        if name not in given or (name == "__hash__" and given[name] is None):
            setattr(made, name, method)
    return made


def _init(cls: type, fields: tuple[Field[Any], ...]) -> object:
    """Compile ``__init__``: it stores each argument by the descriptor of its slot."""
    names: dict[str, object] = {"_MISSING": MISSING}
    positional: list[str] = []
    by_keyword: list[str] = []
    body: list[str] = []
    for field in fields:
        name = field.name
        names[f"_set_{name}"] = vars(_owner(cls, name))[name].__set__
        parameter, argument = name, name
        if field.default is not MISSING:
            names[f"_default_{name}"] = field.default
            parameter = f"{name}=_default_{name}"
        elif field.default_factory is not MISSING:
            names[f"_make_{name}"] = field.default_factory
            parameter = f"{name}=_MISSING"
            argument = f"_make_{name}() if {name} is _MISSING else {name}"
        (by_keyword if field.kw_only else positional).append(parameter)
        body.append(f" _set_{name}(self, {argument})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    parameters = ["self", *positional, *(["*", *by_keyword] if by_keyword else [])]
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(body or [" pass"]), names)
    init: Any = names["__init__"]
    init.__module__ = cls.__module__
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {field.name: field.type for field in fields} | {"return": "None"}
    return init


def _owner(cls: type, name: str) -> type:
    """Return the class of the line of ancestors that has the slot."""
    return next(ancestor for ancestor in cls.__mro__ if name in vars(ancestor))


def _setattr(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[object]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _setstate(self: Any, state: list[object]) -> None:
    for field, one in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, one)


def _comparison(names: tuple[str, ...]) -> dict[str, object]:
    """Make ``__eq__`` and ``__hash__``. All fields are got by one call, for what is remembered is found by such values."""
    values: Callable[[object], object] = attrgetter(*names) if names else type

    def eq(self: object, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_(self: object) -> int:
        return hash(values(self))

    return {"__eq__": eq, "__hash__": hash_}


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
