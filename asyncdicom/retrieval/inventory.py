"""Ask a peer by C-FIND what a retrieval concerns: which SOP classes, and where its instances are (PS3.4 C.4.1).

What comes of it is help, not truth: a peer may not answer, or not all of it, and the retrieval goes on without.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from .. import sop
from ..dataset import safe_uid
from ..exceptions import DicomNetworkError, LocalProtocolError
from .query import Place, Query

if TYPE_CHECKING:
    from pydicom import Dataset

    from ..association import Association
    from ..operations import Find

__all__ = ["Inventory"]

logger = logging.getLogger("asyncdicom.retrieval")

#: Seconds that asking may take, unless every instance has to be known.
_PATIENCE = 15.0
#: Most instances and SOP classes that are remembered.
_MOST = 1_000_000
_MOST_CLASSES = 1000

_Keys = Mapping[str, "str | list[str]"]


class Inventory:
    """What a peer says it has.

    :ivar classes: the SOP classes that are concerned, as far as they are known.
    :ivar places: the unique keys above an instance, by SOP Instance UID.
    :ivar is_complete: whether the places are those of all instances.
    :ivar knows_classes: whether the classes are those of all instances, too.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.places: dict[str, Place] = {}
        self.is_complete = False
        self.knows_classes = False

    async def take(
        self,
        association: Association,
        model: str,
        query: Query,
        *,
        each: bool = False,
        renew: Callable[[Association], Awaitable[Association]] | None = None,
    ) -> None:
        """Ask, from the level of the query down.

        :param model: the C-FIND SOP class, which was accepted.
        :param renew: called before each question: gives the association to ask on.
        :param each: list every instance, also where a study says which classes it has, however long it takes.
        :raises DicomNetworkError: with ``each``: the peer did not answer.
        """
        asking = _Asking(association, model, self, each=each, renew=renew)
        try:
            with anyio.move_on_after(None if each else _PATIENCE) as scope:
                for keys in query.places():
                    await asking.ask(query.level, keys)
            self.is_complete = not scope.cancelled_caught and not asking.skipped
            self.knows_classes = self.is_complete and not asking.classless
        except LocalProtocolError:
            raise
        except DicomNetworkError as exc:
            if each:
                raise
            logger.debug("the peer did not say which SOP classes are concerned: %s", exc)


class _Asking:
    """The questions."""

    def __init__(
        self,
        association: Association,
        model: str,
        inventory: Inventory,
        *,
        each: bool,
        renew: Callable[[Association], Awaitable[Association]] | None,
    ) -> None:
        self._association = association
        self._renew = renew
        self._model = model
        self._inventory = inventory
        self._each = each
        self.skipped = False  # an instance was not listed
        self.classless = False  # the class of an instance was not given

    async def ask(self, level: str, keys: _Keys) -> None:
        if level in ("PATIENT", "STUDY"):
            await self._studies(keys)
        elif level == "SERIES":
            await self._series(keys)
        else:
            await self._images(keys)

    async def _find(self, level: str, keys: _Keys, *wanted: str) -> Find:
        if self._renew is not None:
            self._association = await self._renew(self._association)
        return self._association.find({**dict.fromkeys(wanted, ""), **keys}, self._model, level=level)

    async def _studies(self, keys: _Keys) -> None:
        found: list[tuple[str, str]] = []
        async with await self._find("STUDY", keys, "PatientID", "StudyInstanceUID", "SOPClassesInStudy") as studies:
            async for study in studies:
                classes: Any = study.get("SOPClassesInStudy")
                if classes and not self._each:
                    self._add([classes] if isinstance(classes, str) else classes)
                    self.skipped = True
                else:
                    found.append((_text(study, "StudyInstanceUID"), _text(study, "PatientID")))
        for uid, patient in found:
            here = {**keys, "StudyInstanceUID": uid}
            if self._model != sop.STUDY_ROOT_FIND and patient:
                here["PatientID"] = patient
            await self._series(here)

    async def _series(self, keys: _Keys) -> None:
        if self._model == sop.PATIENT_STUDY_ONLY_FIND:
            self.skipped = True
            return
        async with await self._find("SERIES", keys, "SeriesInstanceUID") as matches:
            found = [_text(match, "SeriesInstanceUID") async for match in matches]
        for uid in found:
            await self._images({**keys, "SeriesInstanceUID": uid})

    async def _images(self, keys: _Keys) -> None:
        places = self._inventory.places
        place = {key: value for key, value in keys.items() if key != "SOPInstanceUID" and isinstance(value, str)}
        async with await self._find("IMAGE", keys, "SOPInstanceUID", "SOPClassUID") as images:
            async for image in images:
                uid = _text(image, "SOPInstanceUID")
                if len(places) >= _MOST or not safe_uid(uid):
                    self.skipped = True
                else:
                    places[uid] = place
                self._add([image.get("SOPClassUID")])

    def _add(self, classes: Iterable[object]) -> None:
        known = self._inventory.classes
        for uid in map(str, classes):
            if uid in known:
                continue
            if safe_uid(uid) and len(known) < _MOST_CLASSES:
                known.append(uid)
            else:
                self.classless = True


def _text(match: Dataset, keyword: str) -> str:
    return str(match.get(keyword) or "").strip()
