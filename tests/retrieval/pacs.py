"""A peer to retrieve from, that can be told to lack this and that, and remembers what it was asked."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from struct import pack
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

import asyncdicom
from asyncdicom import AssociationRequest, FindRequest, Instance, RetrieveRequest, Server, Services, sop
from asyncdicom.protocol.negotiation import Support

from ..harness import element

__all__ = ["CT", "MR", "Item", "Pacs", "item", "study"]

CT, MR = sop.CT_IMAGE_STORAGE, sop.MR_IMAGE_STORAGE

#: The unique keys, from the top, and the attribute of an item that each is.
_UNIQUE = {
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "uid",
}
_LEVELS = dict(zip(("PATIENT", "STUDY", "SERIES", "IMAGE"), _UNIQUE, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An instance that a peer has; ``is_gone`` if its file is not there any more."""

    uid: str
    series: str
    study: str
    patient: str
    sop_class: str
    syntax: str
    size: int = 100
    is_gone: bool = False

    @property
    def data(self) -> bytes:
        """Its data set, encoded in Explicit VR Little Endian or taken to be."""
        out = b""
        for group, number, value in ((8, 0x16, self.sop_class), (8, 0x18, self.uid)):
            out += element(group, number, "UI", value.encode() + b"\0" * (len(value) % 2))
        out += element(0x10, 0x20, "LO", self.patient.encode() + b" " * (len(self.patient) % 2))
        return out + pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, self.size) + b"x" * self.size

    def instance(self) -> Instance:
        """It as something to send."""
        if self.is_gone:
            return Instance.from_file("/nowhere/gone.dcm", self.sop_class, self.uid, self.syntax)
        return Instance.from_bytes(self.data, self.sop_class, self.uid, self.syntax)


def item(number: int, *, study: int = 1, series: int = 1, **options: Any) -> Item:
    """Make an item: a CT image in Explicit VR Little Endian unless told otherwise."""
    options = {"sop_class": CT, "syntax": sop.EXPLICIT_VR_LITTLE_ENDIAN, **options}
    return Item(
        uid=f"1.2.{study}.{series}.{number}",
        series=f"1.2.{study}.{series}",
        study=f"1.2.{study}",
        patient=f"P{study}",
        **options,
    )


def study(count: int = 3, **options: Any) -> list[Item]:
    """Make a study of one series."""
    return [item(number, **options) for number in range(1, count + 1)]


class Pacs:
    """A peer.

    :param finds: whether it supports C-FIND.
    :param gets: whether it supports C-GET; the same for ``moves``.
    :param classes_in_study: whether its studies say which SOP classes they have.
    :param accepts: which pairs of SOP class and transfer syntax it accepts for storage.
    :param roles: whether it grants the SCP role for C-GET.
    :param models: ``"STUDY_ROOT"`` and the like.

    :ivar asked: the requests that came, as (operation, level, unique keys that have a value).
    :ivar associations: what was proposed, association by association.
    :ivar cancelled: how many handlers were cancelled.
    """

    def __init__(
        self,
        items: Iterable[Item],
        *,
        finds: bool = True,
        gets: bool = True,
        moves: bool = True,
        classes_in_study: bool = False,
        accepts: Callable[[str, str], bool] = lambda sop_class, syntax: True,
        roles: bool = True,
        models: Iterable[str] = ("STUDY_ROOT", "PATIENT_ROOT"),
        retrieve: Callable[[RetrieveRequest], AsyncIterator[Any]] | None = None,
        find: Callable[[FindRequest], AsyncIterator[Any]] | None = None,
        before: Callable[[RetrieveRequest], Awaitable[None]] | None = None,
    ) -> None:
        self.items = {one.uid: one for one in items}
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        self.associations: list[AssociationRequest] = []
        self.destinations: dict[str, Callable[[], asyncdicom.Address | None]] = {}
        self.cancelled = 0
        self._classes_in_study = classes_in_study
        self._before = before
        services = self.services = _Picky(accepts, roles)
        for model in models:
            if finds and hasattr(sop, f"{model}_FIND"):
                services.find(getattr(sop, f"{model}_FIND"))(find or self._find)
            if gets:
                services.get(getattr(sop, f"{model}_GET"))(retrieve or self._retrieve)
            if moves and hasattr(sop, f"{model}_MOVE"):
                services.move(getattr(sop, f"{model}_MOVE"))(retrieve or self._retrieve)
        services.on_associate(self.associations.append)

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator[asyncdicom.Address]:
        """Run it."""
        options = {"drain": 0, **options}
        async with Server(self.services, "PACS@127.0.0.1:0", peers=self.resolve, **options) as server:
            self.server = server
            yield server.addresses[0]

    def knows(self, title: str, retrieval: asyncdicom.Retrieval) -> None:
        """Let it know a retrieval that listens as a destination, without keeping it alive."""
        known = weakref.ref(retrieval)

        def address() -> asyncdicom.Address | None:
            found = known()
            return None if found is None or found.server is None else found.server.addresses[0]

        self.destinations[title] = address

    def resolve(self, title: str) -> asyncdicom.Address | None:
        """Return the address of a destination."""
        found = self.destinations.get(title)
        return None if found is None else found()

    def proposed(self, association: int) -> dict[str, list[tuple[str, ...]]]:
        """The transfer syntaxes that an association proposed, by abstract syntax."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for context in self.associations[association].contexts:
            found.setdefault(str(context.abstract_syntax), []).append(context.transfer_syntaxes)
        return found

    def note(self, request: FindRequest | RetrieveRequest) -> dict[str, list[str]]:
        """Remember a request; return its unique keys."""
        kind = "find" if isinstance(request, FindRequest) else "move" if request.is_move else "get"
        keys = {key: _values(request.identifier, key) for key in _UNIQUE}
        keys = {key: values for key, values in keys.items() if values}
        self.asked.append((kind, request.level, keys))
        return keys

    def matching(self, keys: dict[str, list[str]]) -> list[Item]:
        """The items that unique keys match."""
        return [
            one
            for one in self.items.values()
            if all(getattr(one, _UNIQUE[key]) in values or values == ["*"] for key, values in keys.items())
        ]

    async def _find(self, request: FindRequest) -> AsyncIterator[Dataset]:
        keys = self.note(request)
        level = request.level
        above = list(_UNIQUE)[1 if request.sop_class_uid == sop.STUDY_ROOT_FIND else 0 :]
        if any(key not in keys for key in above[: above.index(_LEVELS[level])]):
            raise asyncdicom.StatusError(0xA900, "a unique key is missing")
        seen = set()
        for one in self.matching(keys):
            unique = getattr(one, _UNIQUE[_LEVELS[level]])
            if unique in seen:
                continue
            seen.add(unique)
            match = Dataset()
            match.QueryRetrieveLevel = level
            for key, name in list(_UNIQUE.items())[: list(_UNIQUE).index(_LEVELS[level]) + 1]:
                setattr(match, key, getattr(one, name))
            if level == "IMAGE":
                match.SOPClassUID = one.sop_class
            if level == "STUDY" and self._classes_in_study:
                match.SOPClassesInStudy = sorted(
                    {other.sop_class for other in self.matching({"StudyInstanceUID": [one.study]})}
                )
            yield match

    async def _retrieve(self, request: RetrieveRequest) -> AsyncIterator[Instance]:
        found = self.matching(self.note(request))
        if self._before is not None:
            await self._before(request)
        request.total = len(found)
        request.expect((one.sop_class, one.syntax) for one in found)
        finished = False
        try:
            for one in found:
                yield one.instance()
            finished = True
        finally:
            self.cancelled += not finished


class _Picky(Services):
    """Services that accept some pairs of SOP class and transfer syntax only."""

    def __init__(self, accepts: Callable[[str, str], bool], roles: bool) -> None:
        super().__init__()
        self._accepts = accepts
        self._roles = roles

    def support(self, sop_class: str) -> Support | None:
        if not sop.is_storage(sop_class):
            return super().support(sop_class)
        syntaxes = tuple(filter(partial(self._accepts, sop_class), map(str, sop.TRANSFER_SYNTAXES)))
        if not syntaxes:
            return None
        return Support(transfer_syntaxes=syntaxes, requestor_scp=self._roles, prefer_proposed_order=True)


def _values(identifier: Dataset, key: str) -> list[str]:
    value = identifier.get(key)
    if not value:
        return []
    return [str(one) for one in value] if isinstance(value, MultiValue) else [str(value)]
