"""Matches as text: a table for a person, lines of values for other programs, DICOM JSON for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .keys import Key
from .screen import clean, counted

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["cell", "draw", "heading", "json_line"]

#: Short headings, for names that would make their columns wide.
_HEADINGS = {
    "PatientName": "Patient",
    "PatientBirthDate": "Born",
    "PatientSex": "Sex",
    "StudyDate": "Date",
    "StudyTime": "Time",
    "SeriesDate": "Date",
    "SeriesTime": "Time",
    "ModalitiesInStudy": "Modalities",
    "AccessionNumber": "Accession",
    "StudyDescription": "Description",
    "SeriesDescription": "Description",
    "BodyPartExamined": "Body part",
    "NumberOfPatientRelatedStudies": "Studies",
    "NumberOfStudyRelatedSeries": "Series",
    "NumberOfStudyRelatedInstances": "Instances",
    "NumberOfSeriesRelatedInstances": "Instances",
    "SeriesNumber": "No.",
    "InstanceNumber": "No.",
    "SOPClassUID": "Class",
}


def heading(key: Key, *, pretty: bool = False) -> str:
    """Return what stands above a column: the key, or in short what a person calls it."""
    from pydicom.datadict import keyword_for_tag

    if not pretty:
        return key.text
    keyword = keyword_for_tag(key.tag)
    return _HEADINGS.get(keyword, keyword or key.text)


def cell(match: Dataset, key: Key, *, pretty: bool = False) -> str:
    """Return the value of a key in a match, several of them with a backslash between; empty if there is none.

    :param pretty: write dates, times and SOP classes as people do.
    """
    inside: Any = match
    for tag, number in key.path[:-1]:
        element = inside.get(tag)
        if element is None or element.VR != "SQ" or number >= len(element.value):
            return ""
        inside = element.value[number]
    element = inside.get(key.tag)
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return counted(len(element.value), "item") if element.value else ""
    if isinstance(element.value, bytes):
        return counted(len(element.value), "byte") if element.value else ""
    values = [str(one) for one in (element.value if element.VM > 1 else [element.value])]
    write = _PRETTY.get(element.VR) if pretty else None
    return clean("\\".join(map(write, values) if write else values)).strip()


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def _time(text: str) -> str:
    digits = text.partition(".")[0]
    return f"{digits[:2]}:{digits[2:4]}" if digits.isdigit() and len(digits) in (4, 6) else text


def _uid(text: str) -> str:
    from ..sop import lookup

    return lookup(text).name


_PRETTY: dict[str, Callable[[str], str]] = {"DA": _date, "TM": _time, "UI": _uid}


def json_line(match: Dataset) -> str:
    """Return a match as one line in the DICOM JSON model (PS3.18 F.2).

    What is not printable is escaped, so that it can be looked at on a terminal.
    """
    values: dict[str, Any] = {}
    for element in match:
        try:
            value = element.to_json_dict(bulk_data_element_handler=None, bulk_data_threshold=1024)
        except Exception:
            # Not what its VR says. Left out it would be lost; as text somebody may make something of it.
            value = {"vr": element.VR, "Value": [str(element.value)]}
        values[f"{element.tag:08X}"] = value
    if "00080005" in values:
        values["00080005"]["Value"] = ["ISO_IR 192"]  # of the JSON text (PS3.18 F.2)
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(values), ensure_ascii=False)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return text


def _finite(value: Any) -> Any:
    """Write the numbers that JSON lacks as PS3.18 F.2.3 does, as strings."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "NaN" if value != value else "inf" if value > 0 else "-inf"
    return value


def draw(columns: Sequence[Key], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table on standard output, as wide as the terminal.

    Where it would be too wide, columns without any value are left out, and the UIDs that identify things stand below their
    rows: whole, to be copied.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    titles = [heading(key, pretty=True) for key in columns]
    widths = [max(cell_len(title), *(cell_len(row[i]) for row in rows)) for i, title in enumerate(titles)]
    beside, below = _layout(columns, rows, widths, console.width)

    def line(cells: Sequence[str], style: str) -> None:
        parts = []
        for i in beside:
            text = cells[i] if cell_len(cells[i]) <= widths[i] else set_cell_size(cells[i], widths[i] - 1) + "…"
            parts.append(text + " " * (widths[i] - cell_len(text)))
        console.print(Text((" " * _GAP).join(parts).rstrip(), style=style), soft_wrap=True)

    line(titles, "bold")
    for row in rows:
        line(row, "")
        for i in below:
            if row[i]:
                console.print(Text(f"  {row[i]}", style="dim"), soft_wrap=True)


#: Blanks between columns.
_GAP = 2


def _layout(
    columns: Sequence[Key], rows: Sequence[Sequence[str]], widths: list[int], room: int
) -> tuple[list[int], list[int]]:
    """Choose which columns stand beside each other, and which below; takes from the widths what there is no room for."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    def needed(chosen: Sequence[int]) -> int:
        return sum(widths[i] + _GAP for i in chosen) - _GAP

    beside = list(range(len(columns)))
    below: list[int] = []
    if needed(beside) > room:
        beside = [i for i in beside if any(row[i] for row in rows)] or beside
    if needed(beside) > room:
        uids = {
            i
            for i, key in enumerate(columns)
            if key.tag != _SOP_CLASS_UID and dictionary_has_tag(key.tag) and dictionary_VR(key.tag) == "UI"
        }
        below = [i for i in beside if i in uids]
        beside = [i for i in beside if i not in uids] or [below.pop(0)]
    for least in (10, 4):  # a date has ten characters
        while needed(beside) > room:
            widest = max(beside, key=lambda i: widths[i])
            if widths[widest] <= least:
                break
            widths[widest] -= 1
    return beside, below


#: Shown by its name, it is as short as other texts.
_SOP_CLASS_UID = 0x00080016
