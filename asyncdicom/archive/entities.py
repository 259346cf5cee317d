"""What the index keeps of an instance, and of what it belongs to.

The attributes of an entity are kept as a JSON object, tag as eight digits -> value, in the form in which they came: this is
what comes back. What is searched for has a column besides, see :mod:`~asyncdicom.archive.schema`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .identifier import Attributes, Buffer, Element, decode_head, suits
from .matching import IdentifierError, normal_text
from .model import KEYS, STORED, UNIQUE, Level
from .schema import COLUMNS, column_values

__all__ = ["InstanceRow", "NewInstance", "Prepared", "Stored", "items_from_json", "kept", "prepare", "read_attributes"]

#: Longer identities are hashed: they are keys of an index.
_LONGEST_IDENTITY = 200
#: An attribute with more characters or values is not kept; nobody looks for it.
_LONGEST_ATTRIBUTE = 1 << 16

STUDY_INSTANCE_UID = UNIQUE[Level.STUDY].tag
SERIES_INSTANCE_UID = UNIQUE[Level.SERIES].tag
SOP_INSTANCE_UID = UNIQUE[Level.IMAGE].tag
SOP_CLASS_UID = 0x00080016
_PATIENT_ID = UNIQUE[Level.PATIENT].tag
_ISSUER, _NAME, _BIRTH_DATE, _SEX = 0x00100021, 0x00100010, 0x00100030, 0x00100040

#: What is written to the columns of a row.
Parameters: TypeAlias = dict[str, str | int | None]
#: Stored attributes of an entity: tag as eight digits -> value.
Stored: TypeAlias = dict[str, Any]

#: For each level (tag, tag as eight digits) of what is kept.
NAMES: Mapping[Level, list[tuple[int, str]]] = {
    level: [(tag, key.name) for tag, key in keys.items() if not key.computed] for level, keys in KEYS.items()
}

_VRS = {tag: key.vr for keys in KEYS.values() for tag, key in keys.items()}


def read_attributes(data: Buffer, transfer_syntax_uid: str) -> Attributes:
    """Read from a data set what the index keeps of it; pixel data are not touched, damage is tolerated.

    :param data: the data set as it is stored, or its first part.
    """
    return decode_head(data, transfer_syntax_uid, STORED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInstance:
    """An instance to be added.

    :ivar attributes: what :func:`read_attributes` gives.
    :ivar path: where it is, for whoever keeps the files.
    :ivar size: bytes, for whoever keeps the files.
    :raises IdentifierError: it has no Study, Series or SOP Instance UID, or no SOP Class UID.
    """

    attributes: Attributes
    transfer_syntax_uid: str
    path: str
    size: int

    def __post_init__(self) -> None:
        for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, SOP_CLASS_UID):
            element = self.attributes.get(tag)
            if element is None or not isinstance(element.value, str) or not normal_text("UI", element.value):
                raise IdentifierError("is missing", tag)

    def uid(self, tag: int) -> str:
        """Return one of the four UIDs."""
        value = self.attributes[tag].value
        assert isinstance(value, str)
        return normal_text("UI", value)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the data set."""
        return self.uid(SOP_INSTANCE_UID)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """A stored instance.

    :ivar path: as it was given when it was added.
    :ivar size: likewise, in bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int


def _to_json(value: list[str] | list[int] | list[float] | list[Attributes]) -> list[object]:
    return [
        {
            f"{tag:08X}": [e.vr, _to_json(e.value) if isinstance(e.value, list) else e.value]
            for tag, e in item.items()
            if not isinstance(e.value, bytes)
        }
        if isinstance(item, dict)
        else item
        for item in value
    ]


def items_from_json(items: list[dict[str, Any]]) -> list[Attributes]:
    """Turn a stored sequence into what it was."""
    return [
        {
            int(name, 16): Element(vr, items_from_json(value) if vr == "SQ" else value)
            for name, (vr, value) in item.items()
        }
        for item in items
    ]


def _is_kept(tag: int, element: Element) -> bool:
    """Say whether an element has a value, not too long, that suits the attribute."""
    vr, value = element
    if vr != _VRS.get(tag) and not suits(_VRS.get(tag, "UN"), value):
        return False
    if vr == "SQ":
        return isinstance(value, list) and value != [] and len(_encode(_to_json(value))) <= _LONGEST_ATTRIBUTE
    if isinstance(value, str | list):
        return 0 < len(value) <= _LONGEST_ATTRIBUTE
    return not isinstance(value, bytes)


def kept(level: Level, attributes: Attributes) -> Stored:
    """Return what is kept of an instance's attributes of one level; all of them pass :func:`_is_kept`."""
    found: Stored = {}
    for tag, name in NAMES[level]:
        if tag in attributes:
            value = attributes[tag].value
            found[name] = _to_json(value) if isinstance(value, list) else value
    return found


# The functions of the json module make an encoder for each call, and look for what cannot be here.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def dumps(stored: Stored) -> str:
    """Write what is kept of an entity as it is stored."""
    return _encode(stored)


def loads(text: str) -> Stored:
    """Read what :func:`dumps` wrote."""
    stored: Stored = _decode(text)[0]
    return stored


def columns(level: Level, attributes: Attributes) -> Parameters:
    """Return what is written to the columns of an entity."""
    values: Parameters = {}
    for key in COLUMNS[level]:
        element = attributes.get(key.tag)
        values |= column_values(key, element.value if element is not None else "")
    return values


def _value_text(attributes: Attributes, tag: int) -> str:
    element = attributes.get(tag)
    value = element.value if element is not None else ""
    return normal_text("LO", value) if isinstance(value, str) else ""


def _identity(attributes: Attributes) -> str:
    """Return what tells a patient from others; see :mod:`~asyncdicom.archive.schema`."""
    tags: tuple[int, ...] = (_PATIENT_ID, _ISSUER)
    if not _value_text(attributes, _PATIENT_ID):
        tags = (_PATIENT_ID, _NAME, _BIRTH_DATE, _SEX)
    identity = "\x1f".join(_value_text(attributes, tag) for tag in tags)
    if len(identity) > _LONGEST_IDENTITY:
        identity = "\x1e" + hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
    return identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An instance that is ready to be added."""

    attributes: Attributes
    sop_instance_uid: str
    keys: tuple[str, str, str]  # identity of patient; UIDs of study and series
    values: Parameters


def prepare(instance: NewInstance) -> Prepared:
    attributes = {tag: element for tag, element in instance.attributes.items() if _is_kept(tag, element)}
    values = columns(Level.IMAGE, attributes)
    values["sop_class_uid"] = instance.uid(SOP_CLASS_UID)
    values["sop_instance_uid"] = uid = instance.sop_instance_uid
    values["transfer_syntax_uid"] = instance.transfer_syntax_uid
    values["path"] = instance.path
    values["size"] = instance.size
    values["attributes"] = dumps(kept(Level.IMAGE, attributes))
    return Prepared(
        attributes=attributes,
        sop_instance_uid=uid,
        keys=(_identity(attributes), instance.uid(STUDY_INSTANCE_UID), instance.uid(SERIES_INSTANCE_UID)),
        values=values,
    )
