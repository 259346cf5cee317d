"""Identifiers of queries: making them from keywords, and the one list that responses carry."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .exceptions import DataSetError, LocalProtocolError
from .sop import transfer_syntax as _syntax

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["encode_failed_list", "is_data_set", "make_identifier"]

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")


def is_data_set(value: object) -> bool:
    """Tell whether a value is a :class:`pydicom.Dataset`, without importing pydicom."""
    module: Any = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(value, module.Dataset)


def make_identifier(query: Any, keys: Mapping[str, object], level: str | None, model: str) -> Dataset:
    """Make an identifier from a data set or mapping, keyword arguments and a level; ``query`` is not changed.

    :param query: a data set, a mapping of keywords or tags to values, or ``None``.
    :param keys: more of the same.
    :param level: the Query/Retrieve Level, if it is not among them.
    :param model: the SOP class; levels belong to the Query/Retrieve classes only.
    :raises LocalProtocolError: a keyword is unknown, or there is no identifier.
    :raises DataSetError: a value does not suit its attribute.
    """
    import pydicom

    from ._quiet import quiet

    identifier = pydicom.Dataset()
    if is_data_set(query):
        identifier.update(query)
    elif isinstance(query, Mapping):
        keys = {**{str(key): value for key, value in query.items()}, **keys}
    elif query is not None:
        raise LocalProtocolError(f"a query is a data set, a mapping or bytes, not {type(query).__name__}")
    with quiet():
        for key, value in keys.items():
            _set(identifier, key, value)
    if level is not None:
        identifier.QueryRetrieveLevel = level.upper()
    if not len(identifier):
        raise LocalProtocolError("the identifier is empty: give at least one key")
    if "SpecificCharacterSet" not in identifier and not _is_ascii(identifier):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def _set(identifier: Dataset, key: str, value: object) -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    match = _TAG.fullmatch(key)
    # The dictionary has attributes without a keyword, which the empty one would find.
    tag = int(match[1] + match[2], 16) if match else tag_for_keyword(key) if key else None
    if tag is None:
        raise LocalProtocolError(f"{key[:64]!r} is no attribute: expected a keyword or a tag such as 0010,0020")
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        vr = "UN"
    try:
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            value = list(value)
        identifier.add_new(tag, vr, "" if value is None and vr != "SQ" else value)
    except (TypeError, ValueError) as exc:
        raise DataSetError(f"the value given for {key[:64]} does not suit its VR {vr}") from exc


def _is_ascii(identifier: Dataset) -> bool:
    """Tell whether all text is ASCII, that of items without a character set of their own included (PS3.5 7.5.3)."""
    from pydicom.errors import BytesLengthException

    try:
        return all(
            all("SpecificCharacterSet" in item or _is_ascii(item) for item in element.value or ())
            if element.VR == "SQ"
            else str(element.value).isascii()
            for element in identifier
        )
    except (ValueError, BytesLengthException):
        return True


_FAILED_LIST = (0x0008, 0x0058)


def encode_failed_list(uids: Iterable[str], transfer_syntax: str) -> bytes:
    """Encode a data set that holds the Failed SOP Instance UID List (0008,0058).

    Over 65 534 bytes it is sent as UN with a 32-bit length (PS3.5 6.2.2).
    """
    value = "\\".join(uids).encode("latin-1", "replace")
    if len(value) % 2:
        value += b"\0"
    syntax = _syntax(transfer_syntax)
    order = "<" if syntax.is_little_endian else ">"
    group, element = _FAILED_LIST
    if syntax.is_implicit_vr:
        encoded = struct.pack("<HHI", group, element, len(value)) + value
    elif len(value) > 65534:
        encoded = struct.pack(f"{order}HH2sHI", group, element, b"UN", 0, len(value)) + value
    else:
        encoded = struct.pack(f"{order}HH2sH", group, element, b"UI", len(value)) + value
    if syntax.is_deflated:
        from .dataset import deflate

        return deflate(encoded)
    return encoded
