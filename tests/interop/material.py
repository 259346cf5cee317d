"""What the tests store, query and retrieve: pydicom's own files, and an SCP that keeps them in memory."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pydicom
from pydicom import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.multival import MultiValue

import asyncdicom
from asyncdicom import Instance, PresentationContext, RetrieveRequest, Services, StoreRequest, sop
from asyncdicom._quiet import quiet

from ..conftest import TEST_FILES

__all__ = ["Archive", "Sample", "association_profile", "data_set_of", "sample", "samples", "storage_contexts", "study"]

#: Levels of the Study Root and Patient Root models, with their unique keys.
_UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of pydicom's that holds a storable instance, read by pydicom alone.

    :ivar data: its data set as it is in the file, without the meta header.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes = field(repr=False)

    @property
    def on_the_wire(self) -> bytes:
        """The data set as it is sent: of even length (PS3.5 7.1.1 and A.5)."""
        return self.data + b"\0" * (len(self.data) % 2)

    @property
    def name(self) -> str:
        """The file's path below the folder of test files."""
        return str(self.path.relative_to(TEST_FILES))

    def instance(self) -> Instance:
        """Return it as something to send."""
        return Instance.from_bytes(self.data, self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid)

    def header(self) -> Dataset:
        """Return the data set without pixel data."""
        with quiet():
            return pydicom.dcmread(self.path, stop_before_pixels=True)


def _read(path: Path) -> Sample | None:
    with path.open("rb") as file, quiet():
        try:
            read_preamble(file, force=False)
        except pydicom.errors.InvalidDicomError:
            return None
        meta = _read_file_meta_info(file)
        data = file.read()
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found = header.get("SOPClassUID"), header.get("SOPInstanceUID"), meta.get("TransferSyntaxUID")
    if not all(found):
        return None
    sop_class, sop_instance, syntax = map(str, found)
    return Sample(path, sop_class, sop_instance, syntax, data)


@cache
def samples() -> tuple[Sample, ...]:
    """Return every storable instance among pydicom's test files."""
    paths = sorted(path for path in TEST_FILES.rglob("*") if path.is_file())
    return tuple(found for path in paths if (found := _read(path)) is not None)


def sample(name: str) -> Sample:
    """Return one of them by its name."""
    return next(item for item in samples() if item.name == name)


@cache
def study() -> tuple[Sample, ...]:
    """Return the instances of a small archive: two patients, several studies, 31 CR, CT and MR instances."""
    return tuple(item for item in samples() if item.name.startswith(("dicomdirtests/7", "dicomdirtests/9")))


def storage_contexts(items: Iterable[Sample]) -> list[str | PresentationContext]:
    """Return one context for each (SOP class, transfer syntax) pair, in both roles."""
    pairs = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    return [
        PresentationContext(abstract_syntax=uid, transfer_syntaxes=(syntax,), scu_role=True, scp_role=True)
        for uid, syntax in pairs
    ]


def association_profile(items: Iterable[Sample]) -> str:
    """Return a DCMTK association profile "Any" that accepts exactly the classes and transfer syntaxes of some instances."""
    items = list(items)
    classes = dict.fromkeys(item.sop_class_uid for item in items)
    syntaxes = dict.fromkeys(item.transfer_syntax_uid for item in items)
    lines = ["[[TransferSyntaxes]]", "[Theirs]"]
    lines += [f"TransferSyntax{number} = {uid}" for number, uid in enumerate(syntaxes, 1)]
    lines += ["[[PresentationContexts]]", "[Theirs]", f"PresentationContext1 = {sop.VERIFICATION}\\Default"]
    lines[1:1] = ["[Default]", f"TransferSyntax1 = {sop.IMPLICIT_VR_LITTLE_ENDIAN}"]
    lines += [f"PresentationContext{number} = {uid}\\Theirs" for number, uid in enumerate(classes, 2)]
    lines += ["[[Profiles]]", "[Any]", "PresentationContexts = Theirs"]
    return "\n".join(lines)


def data_set_of(path: Path) -> bytes:
    """Return the data set of a Part 10 file, undecoded."""
    with path.open("rb") as file, quiet():
        read_preamble(file, force=False)
        _read_file_meta_info(file)
        return file.read()


class Archive:
    """Instances in memory, by SOP Instance UID, and the services that store, find and send them.

    :param patience: seconds before a C-STORE is answered. The thread that pynetdicom's C-MOVE SCP pauses for each
        sub-operation may look for messages once more before it sees that, and takes an answer away that comes at once.
    """

    def __init__(self, items: Iterable[Sample] = (), *, patience: float = 0.0) -> None:
        self._patience = patience
        self.instances = {item.sop_instance_uid: item.instance() for item in items}
        self.data = {item.sop_instance_uid: item.on_the_wire for item in items}
        self.headers = {item.sop_instance_uid: item.header() for item in items}
        self.requests: list[asyncdicom.Request] = []

    def services(self) -> Services:
        """Return the handlers of an SCP over these instances."""
        services = Services()
        services.store("*")(self._store)
        services.find(*sop.FIND)(self._find)
        services.retrieve(*sop.GET, *sop.MOVE)(self._retrieve)
        return services

    async def _store(self, request: StoreRequest) -> None:
        self.requests.append(request)
        data = await request.read()
        await anyio.sleep(self._patience)
        uid = request.sop_instance_uid
        self.data[uid] = data
        self.instances[uid] = Instance.from_bytes(data, request.sop_class_uid, uid, request.transfer_syntax_uid)

    async def _find(self, request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        self.requests.append(request)
        identifier, level = request.identifier, request.level
        if level not in _UNIQUE:
            raise asyncdicom.StatusError(0xA900, "no Query/Retrieve Level")
        seen = set()
        for header in self.matching(identifier):
            key = header.get(_UNIQUE[level])
            if key not in seen:
                seen.add(key)
                yield _response(identifier, header)

    async def _retrieve(self, request: RetrieveRequest) -> AsyncIterator[Instance]:
        self.requests.append(request)
        uids = [str(header.SOPInstanceUID) for header in self.matching(request.identifier)]
        request.total = len(uids)
        request.expect((item.sop_class_uid, item.transfer_syntax_uid) for item in map(self.instances.__getitem__, uids))
        for uid in uids:
            yield self.instances[uid]

    def matching(self, identifier: Dataset) -> list[Dataset]:
        """Return the headers of the instances that match an identifier: single values, lists of UIDs and wildcards."""
        keys = {
            element.keyword: element.value
            for element in identifier
            if element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet") and element.VR != "SQ"
        }
        return [header for header in self.headers.values() if all(_matches(header, *key) for key in keys.items())]


def _matches(header: Dataset, keyword: str, value: Any) -> bool:
    wanted = list(value) if isinstance(value, MultiValue) else [value]
    found = str(header.get(keyword) or "")
    return not any(wanted) or any(fnmatchcase(found, str(item)) for item in wanted)


def _response(identifier: Dataset, header: Dataset) -> Dataset:
    response = Dataset()
    for element in identifier:
        value = element.value if element.keyword == "QueryRetrieveLevel" else header.get(element.keyword)
        response.add_new(element.tag, element.VR, value)
    return response


def part10(sample_: Sample) -> Dataset:
    """Return the whole data set of a sample."""
    with quiet():
        return pydicom.dcmread(io.BytesIO(sample_.path.read_bytes()))
