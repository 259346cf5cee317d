"""Keys of the command line, made into identifiers (PS3.4 C.2.2).

A key is a path of attributes, ``Keyword``, ``0010,0010`` or ``00100010``, joined by dots; an attribute that is a sequence
may have the number of an item, ``[0]``, behind it. ``KEY=VALUE`` matches, ``KEY`` and ``KEY=`` ask for the value.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from .arguments import close_match
from .outcome import CommandError, Exit

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

__all__ = ["LEVELS", "Key", "Query", "find_query", "parse_key", "retrieve_query"]

#: The levels of the models, from the top (PS3.4 C.6.1.1), with their unique keys.
LEVELS = MappingProxyType(
    {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
)

#: The levels of each model, and the names of its classes in ``asyncdicom.sop`` before ``_FIND``, ``_GET``, ``_MOVE``.
_MODELS = MappingProxyType(
    {
        "study": ("STUDY_ROOT", ("STUDY", "SERIES", "IMAGE")),
        "patient": ("PATIENT_ROOT", ("PATIENT", "STUDY", "SERIES", "IMAGE")),
        "patient-study": ("PATIENT_STUDY_ONLY", ("PATIENT", "STUDY")),
    }
)

_PATIENT = ("PatientName", "PatientID")
#: What is asked for at each level when nothing is named.
_RETURN_KEYS = MappingProxyType(
    {
        "PATIENT": (*_PATIENT, "PatientBirthDate", "PatientSex", "NumberOfPatientRelatedStudies"),
        "STUDY": (
            "StudyDate",
            "StudyTime",
            "ModalitiesInStudy",
            "AccessionNumber",
            "StudyDescription",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
        ),
        "SERIES": (
            "Modality",
            "SeriesNumber",
            "SeriesDescription",
            "BodyPartExamined",
            "NumberOfSeriesRelatedInstances",
        ),
        "IMAGE": ("InstanceNumber", "SOPClassUID"),
    }
)

_ATTRIBUTE = re.compile(r"(?P<keyword>[A-Za-z]\w*)|\(?(?P<group>[0-9A-Fa-f]{4}),?(?P<element>[0-9A-Fa-f]{4})\)?")
_TAG = re.compile(r"\(?[0-9A-Fa-f]{4},?[0-9A-Fa-f]{4}\)?(?![0-9A-Za-z])")
_ITEM = re.compile(r"\[(\d{1,4})\]")
_INTEGERS = frozenset({"US", "UL", "SS", "SL", "UV", "SV"})
_BULK = frozenset({"OB", "OW", "OD", "OF", "OL", "OV"})
_DATE = re.compile(r"(?:\d{8}|\d{4}\.\d{2}\.\d{2}|[\d*?]*[*?][\d*?]*)?")
_TIME = re.compile(r"(?:\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?|[\d*?.]*[*?][\d*?.]*)?")


@dataclass(frozen=True, slots=True)
class Key:
    """A key: the path of (tag, number of the item) to an attribute, and its value.

    :ivar text: its path as it was written.
    :ivar value: the value as it was written; ``None`` if there is none.
    """

    text: str
    path: tuple[tuple[int, int], ...]
    value: str | None

    @property
    def tag(self) -> int:
        """The tag of the attribute."""
        return self.path[-1][0]

    @property
    def is_exact(self) -> bool:
        """Whether all matches have the same value; names match in many ways (PS3.4 C.2.2.2.1)."""
        from pydicom.datadict import dictionary_has_tag, dictionary_VR

        if self.value is None or any(c in self.value for c in '*?\\-"'):
            return False
        return dictionary_has_tag(self.tag) and dictionary_VR(self.tag) != "PN"


def _usage(text: str) -> CommandError:
    return CommandError(text, Exit.USAGE)


def parse_key(text: str) -> Key:
    """Read ``PATH[=VALUE]``.

    :raises CommandError: it has another form, or names an attribute that does not exist.
    """
    path, equals, value = text.partition("=")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _usage(f"{path}: the value is not text in the terminal's encoding") from None
    position = 0
    found: list[tuple[int, int]] = []
    while True:
        # Eight letters of a keyword can all be hexadecimal digits, but then there is more of it.
        match = _TAG.match(path, position) or _ATTRIBUTE.match(path, position)
        if match is None:
            raise _usage(
                f"{text!r} is no key: expected KEYWORD or GGGG,EEEE, nested as in Sequence[0].KEYWORD, and =VALUE"
            )
        tag = _tag(match[0], path)
        position = match.end()
        item = _ITEM.match(path, position)
        number = 0
        if item is not None:
            number = int(item[1])
            position = item.end()
        found.append((tag, number))
        if position == len(path) and not (item is not None and equals):
            break
        if path[position : position + 1] != ".":
            what = (
                f"{path[position:]!r} is not understood" if position < len(path) else "an item has no value of its own"
            )
            raise _usage(f"{text!r} is no key: {what}")
        position += 1
    return Key(path, tuple(found), value or None)


def _tag(word: str, path: str) -> int:
    from pydicom.datadict import keyword_dict, tag_for_keyword

    if _TAG.fullmatch(word):
        tag = int(re.sub(r"[(),]", "", word), 16)
        if tag >> 16 in (0, 2) or tag & 0xFFFF == 0:
            raise _usage(f"{word} is no key: it does not belong in a data set")
        return tag
    known = tag_for_keyword(word)
    if known is None:
        where = "" if word == path else f" in {path}"
        raise _usage(f"{word} is no attribute{where}{close_match(word, keyword_dict)}")
    return known


def _element(tag: int, value: str, name: str) -> DataElement:
    from pydicom import DataElement
    from pydicom.datadict import dictionary_VR

    try:
        vr = dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        vr = "UN"
    if vr == "SQ":
        if value:
            raise _usage(f"{name} is a sequence: name what is inside of it, as in {name}[0].KEYWORD=VALUE")
        return DataElement(tag, vr, [])
    if vr == "UN":
        return DataElement(tag, vr, value.encode())
    if vr in _BULK:
        raise _usage(f"{name} is no key: its VR is {vr}")
    hint = _HINTS.get(vr)
    if hint is not None and not _is_range(hint[0], value):
        raise _usage(f"{name}={value}: expected {hint[1]}, or a range of them with a hyphen")
    try:
        return DataElement(tag, vr, _converted(vr, value))
    except (ValueError, TypeError, ArithmeticError) as exc:
        raise _usage(f"{name}={value}: the value does not suit the VR, {vr}") from exc


_HINTS = MappingProxyType({"DA": (_DATE, "YYYYMMDD"), "TM": (_TIME, "HHMMSS")})


def _is_range(pattern: re.Pattern[str], value: str) -> bool:
    """Tell whether a value is one of a kind, a range or a list of them, or the empty value ``""`` (PS3.4 C.2.2.2)."""
    return all(
        one == '""' or (len(ends := one.split("-")) <= 2 and all(pattern.fullmatch(end.strip()) for end in ends))
        for one in value.split("\\")
    )


def _converted(vr: str, value: str) -> object:
    if not value:
        return None if vr in _INTEGERS or vr in ("FL", "FD", "AT") else ""
    parts = value.split("\\")
    if vr in _INTEGERS:
        return [int(part, 0) for part in parts]
    if vr in ("FL", "FD"):
        return [float(part) for part in parts]
    if vr == "AT":
        return [int(re.sub(r"[(),]", "", part), 16) for part in parts]
    return value


def _add(identifier: Dataset, key: Key) -> None:
    """Add a key to an identifier, making the items on its path."""
    from pydicom import Dataset

    inside = identifier
    for depth, (tag, number) in enumerate(key.path[:-1]):
        element = inside.get(tag)
        if element is None:
            element = inside[tag] = _element(tag, "", key.text)
        if element.VR != "SQ":
            name = key.text.split(".")[depth]
            raise _usage(f"{key.text}: {name} is not a sequence")
        items = element.value
        if number > len(items):
            raise _usage(f"{key.text}: item {number} comes before there is an item {number - 1}")
        if number == len(items):
            items.append(Dataset())
        inside = items[number]
    if key.value is None and key.tag in inside:
        return
    made = _element(key.tag, key.value or "", key.text)
    before = inside.get(key.tag)
    if before is not None and before.value and key.value is not None:
        if made.VR != "UI":
            raise _usage(f"{key.text} is given twice")
        made = _element(key.tag, _text(before.value) + "\\" + key.value, key.text)  # a list of UIDs
    inside[key.tag] = made


def _text(value: object) -> str:
    return (
        value if isinstance(value, str) else "\\".join(map(str, value)) if isinstance(value, Iterable) else str(value)
    )


@dataclass(slots=True)
class Query:
    """An identifier and where it belongs.

    :ivar model: the information model: ``"STUDY_ROOT"`` for example.
    :ivar level: the Query/Retrieve Level.
    :ivar columns: the keys that a person wants to see, in order.
    """

    model: str
    level: str
    identifier: Dataset
    columns: list[Key] = field(default_factory=list)

    def sop_class(self, operation: str) -> str:
        """Return the SOP class of the model for ``"FIND"``, ``"GET"`` or ``"MOVE"``."""
        from .. import sop

        return str(getattr(sop, f"{self.model}_{operation}"))

    def value(self, keyword: str) -> str:
        """Return the value of a key, empty if it has none."""
        return _text(self.identifier.get(keyword) or "")


def find_query(options: argparse.Namespace) -> Query:
    """Make the identifier of a C-FIND from the options of ``add_query_options``.

    Unless a key without a value is among the keys, those that suit the level are asked for. The level is that of the
    model below which nothing is named.

    :raises CommandError: a key, or the level, is wrong.
    """
    keys = [parse_key(text) for text in options.keys]
    level, keys = _take_level(options.level, keys)
    model = options.model or ("patient" if level == "PATIENT" else "study")
    level = _checked_level(level or ("PATIENT" if model == "patient" else "STUDY"), model)
    query = _make(model, level, keys)
    if all(key.value is not None for key in keys):
        names: Sequence[str] = _RETURN_KEYS[level]
        if level == "STUDY" and model == "study":
            names = (*_PATIENT, *names)
        query.columns = _with_defaults(keys, names)
    else:
        query.columns = list(keys)
    unique = parse_key(LEVELS[level])
    if all(key.path != unique.path for key in query.columns):
        query.columns.append(unique)
    for key in query.columns:
        if key.value is None:
            _add(query.identifier, key)
    return query


def _with_defaults(keys: Sequence[Key], names: Iterable[str]) -> list[Key]:
    """Return the default columns, and before them what else is matched: it may be a range."""
    defaults = [parse_key(name) for name in names]
    paths = {key.path for key in defaults}
    return [key for key in keys if key.path not in paths] + defaults


def retrieve_query(options: argparse.Namespace) -> Query:
    """Make the identifier of a C-GET or C-MOVE from the options of ``add_query_options``.

    The level is that of the lowest unique key that has a value, unless it is given.

    :raises CommandError: a key or the level is wrong, or nothing says what to retrieve.
    """
    keys = [parse_key(text) for text in options.keys]
    level, keys = _take_level(options.level, keys)
    given = {key.tag for key in keys if key.value and len(key.path) == 1}
    named = [name for name, keyword in LEVELS.items() if parse_key(keyword).tag in given]
    if level is None and not named:
        expected = ", ".join(f"-k {keyword}=..." for keyword in (*LEVELS.values(),)[1:])
        raise _usage(f"nothing says what to retrieve: expected {expected} or -k PatientID=...")
    level = level or named[-1]
    model = options.model or ("patient" if level == "PATIENT" else "study")
    return _make(model, _checked_level(level, model), keys)


def _take_level(level: str | None, keys: Sequence[Key]) -> tuple[str | None, list[Key]]:
    """Return the level that an option or a key gives, and the other keys."""
    rest = [key for key in keys if key.path != ((0x00080052, 0),)]
    given = {key.value.strip().upper() for key in keys if key not in rest and key.value}
    if level is not None:
        given.add(level.strip().upper())
    if len(given) > 1:
        raise _usage(f"more than one level is given: {', '.join(sorted(given))}")
    return (given.pop() if given else None), rest


def _checked_level(level: str, model: str) -> str:
    levels = _MODELS[model][1]
    level = "IMAGE" if level == "INSTANCE" else level
    if level not in LEVELS:
        names = ", ".join(name.lower() for name in levels)
        raise _usage(f"{level.lower()!r} is no level: expected {names}{close_match(level, names.split(', '))}")
    if level not in levels:
        raise _usage(f"the {model} model has no level {level.lower()}: expected {', '.join(levels).lower()}")
    return level


def _make(model: str, level: str, keys: Iterable[Key]) -> Query:
    import pydicom
    from pydicom.config import disable_value_validation

    with disable_value_validation():
        identifier = pydicom.Dataset()
        for key in keys:
            if key.value is not None:
                _add(identifier, key)
        for key in keys:
            if key.value is None:
                _add(identifier, key)
        identifier.QueryRetrieveLevel = level
        if not all((key.value or "").isascii() for key in keys) and "SpecificCharacterSet" not in identifier:
            identifier.SpecificCharacterSet = "ISO_IR 192"
    return Query(_MODELS[model][0], level, identifier)
