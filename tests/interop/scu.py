"""pynetdicom's SCU against our server: what its tests share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, TypeVar

from anyio import to_thread
from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_FIND, C_MOVE, C_STORE

from asyncdicom import Server, Services, sop
from asyncdicom._quiet import quiet

from .material import Sample, sample
from .peers import pynetdicom_scu

ADDRESS = "ASYNCDICOM@127.0.0.1:0"
PATIENT = "77654033"

#: pynetdicom's own types have unions of all primitives for what is one of them: here they would only be in the way.
PeerAssociation = Any

T = TypeVar("T")
Handler = Callable[[Any], Any]


@asynccontextmanager
async def serving(services: Services, **options: Any) -> AsyncIterator[int]:
    """Run a server; gives its port."""
    async with Server(services, ADDRESS, **options) as server:
        yield server.addresses[0].port


async def peer(port: int, contexts: Iterable[Any], use: Callable[[PeerAssociation], T], **options: Any) -> T:
    """Associate with pynetdicom in a thread and use the association there."""

    def work() -> T:
        made = [build_context(item) if isinstance(item, str) else item for item in contexts]
        with quiet(), pynetdicom_scu(port, made, **options) as association:
            assert association.is_established, "pynetdicom was not let in"
            return use(association)

    return await to_thread.run_sync(work)


def yields(*items: Any, total: int | None = None) -> Handler:
    """Return a handler that yields some items; an exception among them is raised."""

    async def handler(request: Any) -> AsyncIterator[Any]:
        if total is not None:
            request.total = total
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return handler


def match(**values: str) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = "PATIENT"
    found.PatientID = "1"
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def with_status(code: int | None, **values: Any) -> Dataset:
    """Return a status data set, without a status if ``code`` is ``None``."""
    status = Dataset()
    with quiet():
        if code is not None:
            status.add_new(0x00000900, "US", code)
        if "comment" in values:
            status.add_new(0x00000902, "LO", values["comment"])
        if "offending" in values:
            status.add_new(0x00000901, "AT", values["offending"])
    return status


def unencodable() -> Dataset:
    broken = match()
    with quiet():
        broken.add_new(0x00280010, "US", "not a number")
    return broken


Answers = list[tuple[int, Dataset | None, Dataset]]


def codes(answers: Answers) -> list[int]:
    return [status for status, _, _ in answers]


def collected(answers: Iterable[tuple[Dataset, Dataset | None]]) -> Answers:
    """Collect the responses that a pynetdicom generator gives: their statuses, identifiers, and status data sets."""
    return [
        # An identifier that was not there is an empty data set at the end of a retrieval.
        (status.Status if "Status" in status else -1, identifier or None, status)
        for status, identifier in answers
    ]


IDENTIFIER = b"\x08\x00\x52\x00\x08\x00\x00\x00PATIENT "


def reads(request: Any) -> Any:
    return yields(*[match() for element in request.identifier], total=0)(request)


def store_primitive(uid: str, data: bytes | None) -> Any:
    primitive: Any = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = sop.CT_IMAGE_STORAGE
    primitive.AffectedSOPInstanceUID = uid
    primitive.Priority = 2
    if data is not None:
        primitive.DataSet = BytesIO(data)
    return primitive


def find_primitive(model: str, identifier: bytes | None, message_id: int = 7) -> Any:
    primitive: Any = C_FIND()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = model
    primitive.Priority = 2
    primitive.Identifier = None if identifier is None else BytesIO(identifier)
    return primitive


def retrieve_primitive(kind: type[Any], model: str, identifier: bytes | None, destination: str = "NOBODY") -> Any:
    primitive = kind()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = model
    primitive.Priority = 2
    if kind is C_MOVE:
        primitive.MoveDestination = destination
    primitive.Identifier = None if identifier is None else BytesIO(identifier)
    return primitive


def raw(assoc: PeerAssociation, primitive: Any, context_id: int) -> Any:
    """Send a primitive as it is, which pynetdicom's own methods would not, and return the response."""
    return next(raw_responses(assoc, [primitive], context_id))


def raw_responses(assoc: PeerAssociation, primitives: Iterable[Any], context_id: int) -> Generator[Any, None, None]:
    """Send primitives as they are, all at once, and return what yields the responses; close it after the last.

    From now on pynetdicom's reactor takes none of them away, be it to a request that somebody else sends.
    """
    checkpoint: Any = assoc._reactor_checkpoint
    checkpoint.clear()
    # That its reactor "is paused" is also said when it is about to go on, and then it takes the response away.
    while not checkpoint._cond._waiters:
        time.sleep(0.0001)
    for primitive in primitives:
        assoc.dimse.send_msg(primitive, context_id)
    return _responses(assoc)


def _responses(assoc: PeerAssociation) -> Generator[Any, None, None]:
    try:
        while True:
            _, response = assoc.dimse.get_msg(block=True)
            assert response is not None, "there was no response"
            yield response
    finally:
        assoc._reactor_checkpoint.set()


GOOD = sample("MR_small.dcm")
OTHER = sample("CT_small.dcm")
COMPRESSED = sample("MR_small_RLE.dcm")
UNPROPOSED = sample("rtplan.dcm")


def check_retrieval(answers: Answers, status: int, counters: tuple[int, int, int] | None) -> None:
    """Check the responses of a C-GET or C-MOVE against PS3.4 C.4.2.1 and C.4.3.1."""
    assert set(codes(answers[:-1])) <= {0xFF00}
    *pendings, (final, identifier, last) = answers
    assert f"{final:04X}" == f"{status:04X}"
    for _, nothing, pending in pendings:
        assert nothing is None
        assert len(counters_of(pending, remaining=True)) == 4
    assert ("NumberOfRemainingSuboperations" in last) is (final == 0xFE00)
    if counters is not None:
        assert counters_of(last) == counters
    assert identifier is None or (identifier.FailedSOPInstanceUIDList and final != 0x0000)


def counters_of(status: Dataset, *, remaining: bool = False) -> tuple[int, ...]:
    names = ("Remaining",) * remaining + ("Completed", "Failed", "Warning")
    return tuple(status[f"NumberOf{name}Suboperations"].value for name in names)


def storage(*items: Sample) -> list[Any]:
    return [
        build_context(*pair) for pair in dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    ]
