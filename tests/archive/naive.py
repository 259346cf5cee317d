"""A deliberately naive matcher: pydicom data sets in, yes or no out.

It shares no code with the archive and cares for nothing but being obviously right: expected results come from here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

Row = dict[str, Any]

WILD = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
ONE_TEXT = ("LT", "ST", "UT", "UR")


def texts(element: DataElement | None) -> list[str]:
    """Return the values of an element as text."""
    if element is None or element.value is None:
        return []
    value = element.value
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    found = [str(getattr(v, "original_string", v) if element.VR != "PN" else v) for v in values]
    if element.VR not in ("LT", "ST", "UT", "UR"):
        found = [text.lstrip(" ") for text in found]
    found = [unicodedata.normalize("NFC", text.rstrip(" \0")) for text in found]
    return [text for text in found if text]


def stored_texts(element: DataElement | None) -> list[str]:
    """Return what is stored; an attribute that must have one value has one, whatever is in it."""
    found = texts(element)
    if element is not None and len(found) > 1 and dictionary_VM(element.tag) == "1":
        return ["\\".join(found)]
    return found


def wildcard(pattern: str, text: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def group(text: str) -> str:
    components = [component.strip() for component in text.lower().replace("ς", "σ").split("^")]
    while components and not components[-1]:
        components.pop()
    return "^".join(components)


def name_matches(key: str, stored: str) -> bool:
    stored_groups = [group(g) for g in stored.split("=", 2)]
    stored_groups += [""] * (3 - len(stored_groups))
    key_groups = [group(g) for g in key.rstrip("=").split("=", 2)]

    def one(pattern: str, text: str) -> bool:
        if not pattern.strip("*"):
            return True
        if not text:
            return False
        # The stored name may have empty components at its end, as many as the key asks for.
        while True:
            if wildcard(pattern, text):
                return True
            if not re.search(r"\^\*+$", pattern):
                return False
            pattern = re.sub(r"\^\*+$", "", pattern)

    if len(key_groups) == 1:
        return any(one(key_groups[0], text) for text in stored_groups if text)
    return all(one(pattern, text) for pattern, text in zip(key_groups, stored_groups, strict=False))


def valid_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return len(text) == 8


def clean_time(text: str) -> str:
    return text.replace(":", "")


def valid_time(text: str) -> bool:
    return re.fullmatch(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", text, re.ASCII) is not None


def padded(text: str, filling: str) -> str:
    """Return a time in full; *filling* says what stands where it says nothing."""
    whole = text.replace(".", "")
    return whole + filling[len(whole) :]


def date_matches(key: str, stored: str) -> bool:
    key, stored = key.replace(".", ""), stored.replace(".", "")
    first, dash, last = (part.strip() for part in key.partition("-"))
    if not dash:
        last = first
    return valid_date(stored) and (not first or first <= stored) and (not last or stored <= last)


def time_matches(key: str, stored: str) -> bool:
    key, stored = clean_time(key), clean_time(stored)
    if not valid_time(stored):
        return False
    first, dash, last = (part.strip() for part in key.partition("-"))
    if not dash:
        last = first
    moment = padded(stored, "000000000000")
    return (not first or padded(first, "000000000000") <= moment) and (
        not last or moment <= padded(last, "235959999999")
    )


def shifted(date: str, time: str, minutes: int) -> tuple[str, str]:
    """Return date and time of the same moment, so many minutes further east."""
    whole = padded(clean_time(time), "000000000000")
    moment = datetime.strptime(date + whole[:6], "%Y%m%d%H%M%S") + timedelta(minutes=minutes)
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S") + "." + whole[6:]


def text_matches(vr: str, key: str, stored: str) -> bool:
    if not key.strip("*"):
        return True
    if vr == "PN":
        return name_matches(key, stored)
    if vr == "DA":
        return date_matches(key, stored)
    if vr == "TM":
        return time_matches(key, stored)
    if vr in ("IS", "DS"):
        try:
            return Decimal(key) == Decimal(stored)
        except InvalidOperation:  # real files have everything
            return False
    return wildcard(key, stored) if vr in WILD else key == stored


def is_universal(key: DataElement) -> bool:
    if key.VR == "SQ":
        return all(all(is_universal(element) for element in item) for item in key.value)
    wanted = texts(key)
    if key.VR == "PN":  # a name without a letter is no name
        wanted = ["".join(group(part) for part in text.rstrip("=").split("=", 2)) for text in wanted]
    return not wanted or any(not text.strip("*") for text in wanted)


def matches(key: DataElement, stored: DataElement | None) -> bool:
    """Say whether a stored element matches a key."""
    if is_universal(key):
        return True
    if key.VR == "SQ":
        return any(item_matches(key.value[0], item) for item in (stored.value if stored is not None else []))
    wanted = texts(key)
    if len(wanted) > 1 and key.VR in ONE_TEXT:
        wanted = ["\\".join(wanted)]
    found = stored_texts(stored)
    if '""' in wanted and not found:
        return True
    return any(text_matches(key.VR, k, s) for k in wanted if k != '""' for s in found)


def item_matches(keys: Dataset, stored: Dataset) -> bool:
    return all(matches(key, stored.get(key.tag)) for key in keys)


# Entities

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")


def identities(ds: Dataset) -> list[tuple[str, ...]]:
    """Return what tells the patient, study, series and instance apart from others."""
    patient: tuple[str, ...] = (str(ds.get("PatientID", "") or ""), str(ds.get("IssuerOfPatientID", "") or ""))
    if not patient[0]:
        patient = ("", *(str(ds.get(k, "") or "") for k in ("PatientName", "PatientBirthDate", "PatientSex")))
    study = (*patient, str(ds.StudyInstanceUID))
    series = (*study, str(ds.SeriesInstanceUID))
    return [patient, study, series, (str(ds.SOPInstanceUID),)]


class Corpus(list[Dataset]):
    """The archived instances, in the order in which they came, and which belong together."""

    def __init__(self, instances: Iterable[Dataset]) -> None:
        super().__init__(instances)
        self.entities: list[dict[tuple[str, ...], list[Dataset]]] = [{} for _ in LEVELS]
        for ds in self:
            for level, identity in enumerate(identities(ds)):
                self.entities[level].setdefault(identity, []).append(ds)
        self._values: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"<{len(self)} instances>"

    def values(self, keyword: str) -> list[str]:
        """Return the values that an attribute has in it."""
        if keyword not in self._values:
            found = {text for ds in self if keyword in ds for text in stored_texts(ds[keyword])}
            self._values[keyword] = sorted(found)
        return self._values[keyword]


def value_for(instances: Iterable[Dataset], keyword: str) -> DataElement | None:
    """Return an entity's attribute: that of the first of its instances that has one."""
    for ds in instances:
        element = ds.get_item(keyword) and ds[keyword]
        if element is not None and ((element.VR == "SQ" and len(element.value)) or texts(element)):
            return element
    return None


COUNTS = {
    "NumberOfPatientRelatedStudies": 1,
    "NumberOfPatientRelatedSeries": 2,
    "NumberOfPatientRelatedInstances": 3,
    "NumberOfStudyRelatedSeries": 2,
    "NumberOfStudyRelatedInstances": 3,
    "NumberOfSeriesRelatedInstances": 3,
}


def find(archive: Corpus, query: Dataset, level_of: dict[str, str]) -> list[tuple[str, ...]]:
    """Return the identities of the entities of the query's level that match all its keys.

    :param level_of: keyword -> the level whose attribute it is.
    """
    level = LEVELS.index(query.QueryRetrieveLevel)
    found = []
    for identity, instances in archive.entities[level].items():
        if all(entity_matches(key, archive, instances, level, level_of) for key in query):
            found.append(identity)
    return found


def entity_matches(
    key: DataElement, archive: Corpus, instances: list[Dataset], level: int, level_of: dict[str, str]
) -> bool:
    keyword = key.keyword
    if keyword == "QueryRetrieveLevel":
        return True
    if keyword in COUNTS:
        number = len({identities(ds)[COUNTS[keyword]] for ds in instances})
        return is_universal(key) or str(number) in texts(key)
    if keyword in ("ModalitiesInStudy", "SOPClassesInStudy"):
        of = identities(instances[0])[1]
        study = archive.entities[1][of]
        attribute = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}[keyword]
        one_of = DataElement(attribute, dictionary_VR(attribute), key.value)
        return is_universal(key) or any(matches(one_of, value_for([ds], attribute)) for ds in study)
    if keyword not in level_of:
        return True
    own = LEVELS.index(level_of[keyword])
    if own <= level:  # the attribute of this entity, or of the one it belongs to
        of = identities(instances[0])[own]
        return matches(key, value_for(archive.entities[own][of], keyword))
    below: dict[tuple[str, ...], list[Dataset]] = {}
    for ds in instances:
        below.setdefault(identities(ds)[own], []).append(ds)
    return any(matches(key, value_for(group, keyword)) for group in below.values())
