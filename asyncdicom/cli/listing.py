"""Ask a peer, by C-FIND, what a retrieval concerns: which SOP classes, and where its instances are.

What comes of it is help, not truth: a peer may not answer, or not all of it, and the retrieval goes on without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from .. import sop
from ..dataset import safe_uid
from ..exceptions import AssociationError, DataSetError, NoPresentationContext, StatusError
from .keys import LEVELS, Query
from .screen import Bar

if TYPE_CHECKING:
    from pydicom import Dataset

    from .. import Association

__all__ = ["Listing", "list_instances", "models"]

#: Seconds that asking may take, unless each instance has to be known.
_PATIENCE = 15.0

Place = dict[str, str]


@dataclass(slots=True)
class Listing:
    """What a peer says it has.

    :ivar classes: the SOP classes that are concerned, as far as they are known.
    :ivar places: the unique keys above an instance, by SOP Instance UID.
    :ivar complete: whether the places are those of all instances.
    """

    classes: list[str] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    complete: bool = False


def models(query: Query) -> list[str]:
    """Return the FIND classes to propose for a query, the best one first."""
    return list(dict.fromkeys([query.sop_class("FIND"), str(sop.STUDY_ROOT_FIND), str(sop.PATIENT_ROOT_FIND)]))


async def list_instances(association: Association, query: Query, bar: Bar, *, each: bool = False) -> Listing:
    """List what a query for a retrieval concerns.

    :param each: list every instance, also where the classes of a study are given.
    """
    listing = Listing()
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    model = next((uid for uid in models(query) if uid in accepted), None)
    if model is None:
        return listing
    asking = _Asking(association, model, listing, bar, each=each)
    try:
        with anyio.move_on_after(None if each else _PATIENCE) as scope:
            await asking.ask(query)
        listing.complete = not scope.cancelled_caught and not asking.skipped
    except (StatusError, DataSetError, NoPresentationContext):
        if each:
            raise
    except AssociationError:
        if each:
            raise
    return listing


class _Asking:
    """The questions, from the level of the query down."""

    def __init__(self, association: Association, model: str, listing: Listing, bar: Bar, *, each: bool) -> None:
        self._association = association
        self._model = model
        self._listing = listing
        self._bar = bar
        self._each = each
        self.skipped = False  # an instance was not listed

    async def ask(self, query: Query) -> None:
        place = {keyword: query.value(keyword) for keyword in LEVELS.values() if query.value(keyword)}
        if query.level in ("PATIENT", "STUDY"):
            await self._studies(place)
        elif query.level == "SERIES":
            async for series in self._find("SERIES", place, "SeriesInstanceUID"):
                await self._images({**place, "SeriesInstanceUID": _text(series, "SeriesInstanceUID")})
        else:
            await self._images(place)

    async def _find(self, level: str, place: Place, *wanted: str) -> AsyncIterator[Dataset]:
        keys: Mapping[str, object] = {**dict.fromkeys(wanted, ""), **place}
        for match in [match async for match in self._association.find(keys, self._model, level=level)]:
            yield match

    async def _studies(self, place: Place) -> None:
        async for study in self._find("STUDY", place, "PatientID", "StudyInstanceUID", "SOPClassesInStudy"):
            classes = study.get("SOPClassesInStudy") or []
            here = {**place, "StudyInstanceUID": _text(study, "StudyInstanceUID")}
            if self._model == sop.PATIENT_ROOT_FIND and _text(study, "PatientID"):
                here["PatientID"] = _text(study, "PatientID")
            if classes and not self._each:
                self._add([classes] if isinstance(classes, str) else classes)
                self.skipped = True
                continue
            async for series in self._find("SERIES", here, "SeriesInstanceUID"):
                await self._images({**here, "SeriesInstanceUID": _text(series, "SeriesInstanceUID")})

    async def _images(self, place: Place) -> None:
        async for image in self._find("IMAGE", place, "SOPInstanceUID", "SOPClassUID"):
            uid = _text(image, "SOPInstanceUID")
            if safe_uid(uid):
                self._listing.places[uid] = {key: value for key, value in place.items() if key != "SOPInstanceUID"}
                self._bar.update(len(self._listing.places))
            self._add([image.get("SOPClassUID")])

    def _add(self, classes: list[object]) -> None:
        for uid in map(str, classes):
            if safe_uid(uid) and uid not in self._listing.classes:
                self._listing.classes.append(uid)


def _text(match: Dataset, keyword: str) -> str:
    return str(match.get(keyword) or "").strip()
