from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field
from typing import ClassVar

import pytest

from asyncdicom.protocol.values import frozen


@frozen
class Base:
    """A value with what values have."""

    kind: ClassVar[str] = "base"
    name: str
    number: int = 3
    secret: str = field(default="s", repr=False)
    note: str = field(default="", compare=False)
    items: list[int] = field(default_factory=list)


@frozen
class Derived(Base):
    """A value with more of it."""

    kind: ClassVar[str] = "derived"
    more: tuple[str, ...] = ()


@frozen(kw_only=False)
class Pair:
    """A value whose fields have places."""

    left: int
    right: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", abs(self.left))


@frozen
class Empty:
    """A value without fields."""


@frozen
class Own:
    """A value with methods of its own."""

    name: str

    def __repr__(self) -> str:
        return "mine"


def test_fields_are_given_by_keyword_and_have_their_defaults() -> None:
    value = Base(name="a")
    assert (value.name, value.number, value.secret, value.note, value.items) == ("a", 3, "s", "", [])
    assert Base(name="a").items is not value.items
    with pytest.raises(TypeError):
        Base("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Base()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Base(name="a", nothing=1)  # type: ignore[call-arg]


def test_a_subclass_has_the_fields_of_both() -> None:
    value = Derived(name="a", number=4, more=("x",))
    assert (value.name, value.number, value.more, value.kind) == ("a", 4, ("x",), "derived")
    assert repr(value) == "Derived(name='a', number=4, note='', items=[], more=('x',))"


def test_places_and_a_post_init() -> None:
    assert (Pair(-1).left, Pair(1, 2).right, Pair(1, right=3).right) == (1, 2, 3)


def test_it_is_frozen_and_has_slots() -> None:
    value = Base(name="a")
    for name in ("name", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.name
    assert not hasattr(value, "__dict__")
    assert value.name == "a"


def test_values_are_equal_by_what_is_compared_and_only_within_a_class() -> None:
    assert Base(name="a", note="x") == Base(name="a", note="y")
    assert Base(name="a") != Base(name="b")
    assert Base(name="a") != Derived(name="a")
    assert Base(name="a") != object()
    assert len({Pair(1), Pair(-1), Pair(2)}) == 2
    assert len({Own(name="a"), Own(name="b"), Own(name="a")}) == 2
    assert Empty() == Empty()
    assert len({Empty(), Empty(), Own(name="a")}) == 2


def test_what_is_not_to_be_shown_is_not_shown() -> None:
    assert repr(Base(name="a", secret="password")) == "Base(name='a', number=3, note='', items=[])"
    assert repr(Own(name="a")) == "mine"


def test_it_is_a_dataclass_to_the_standard_library() -> None:
    value = Base(name="a", items=[1])
    assert dataclasses.is_dataclass(value)
    assert dataclasses.replace(value, name="b") == Base(name="b", items=[1])
    assert dataclasses.asdict(Pair(1)) == {"left": 1, "right": 0}
    match Pair(1, 2):
        case Pair(left, right):
            assert (left, right) == (1, 2)
    assert str(inspect.signature(Pair)) == "(left: 'int', right: 'int' = 0) -> 'None'"


def test_it_can_be_copied_and_pickled() -> None:
    value = Derived(name="a", items=[1], more=("x",))
    for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert made == value
        assert made is not value
