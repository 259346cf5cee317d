"""Every row of the seed page against our SCU: a scripted peer gives each status over TCP, and our SCU says what it was.

The peer's command sets and identifiers are encoded by pydicom. Conditions under which our SCPs give these statuses are in
:mod:`tests.interop.test_seed_page`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

import asyncdicom
from asyncdicom import Category, Progress, Status, StatusError, sop
from asyncdicom import status as tables
from asyncdicom.testing import Received, ScriptedPeer, message_pdus

from .harness import C_STORE_RQ, C_STORE_RSP, PATIENCE, ct_bytes, finish
from .seed_page import FIND, GET, MOVE, REQUESTS, ROWS, TABLES, Row, models, row_of, undriven

pytestmark = pytest.mark.anyio

_COUNTERS = ("Remaining", "Completed", "Failed", "Warning")
_OURS = "1.2.826.0.1.3680043.9.9999"

Counters = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a peer answers, and how our SCU should take it.

    :ivar status: of the final response.
    :ivar pending: the statuses of the pending responses before it.
    :ivar full: the final response has all that PS3.7 and PS3.4 let it have, else only what they want.
    """

    service: str
    status: int
    pending: tuple[int, ...] = ()
    full: bool = False

    def __str__(self) -> str:
        before = "".join(f"{code:04X}-" for code in self.pending)
        return f"{self.service}-{before}{self.status:04X}" + ("-full" if self.full else "")

    @property
    def failed(self) -> list[str]:
        """The Failed SOP Instance UID List: only a Warning, a Failure and a Cancel have one."""
        none = not self.full or self.service == FIND or self.status == 0x0000
        return [] if none else [f"{_OURS}.1", f"{_OURS}.22"][: 1 + self.status % 2]

    @property
    def counters(self) -> Counters | None:
        """The counters of the final response."""
        if not self.full or self.service == FIND:
            return None
        return (7 if self.status == 0xFE00 else 0, 5, len(self.failed), 2)

    @property
    def expected_progress(self) -> Progress:
        if self.counters is None:
            return Progress()
        remaining, *rest = self.counters
        return Progress(remaining if self.status == 0xFE00 else None, *rest)

    @property
    def raises(self) -> bool:
        """Whether it is an exception to those who want statuses checked; nobody asked for the Cancel."""
        return Status(self.status).category in (Category.FAILURE, Category.CANCEL)


def _cases() -> Iterator[Case]:
    for row in ROWS:
        if row.category is Category.PENDING:
            yield Case(service=row.service, status=0x0000, pending=(row.first, row.first))
            continue
        for code in dict.fromkeys((row.first, row.last)):
            yield Case(service=row.service, status=code)
            yield Case(service=row.service, status=code, pending=(0xFF00,), full=True)


CASES = list(_cases())


def test_no_row_is_left_out() -> None:
    assert undriven((case.service, code) for case in CASES for code in (case.status, *case.pending)) == []


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_our_tables_have_each_row(row: Row) -> None:
    known = [
        entry for entry in tables.TABLES[TABLES[row.service]] if entry.first <= row.first and row.last <= entry.last
    ]
    assert known
    assert {entry.category for entry in known} == {row.category}
    # A code with a row of its own has a meaning of its own.
    meaning = Status(row.first).describe(TABLES[row.service])
    assert (known[0].first, known[0].last, known[0].meaning) == (row.first, row.last, meaning)


# The peer


def encoded(data_set: Dataset, *, implicit: bool = False) -> bytes:
    """Encode a data set by pydicom."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, implicit
    write_dataset(file, data_set)
    return file.getvalue()


def command(**values: Any) -> bytes:
    """Encode a command set by pydicom, its group length included."""
    elements = Dataset()
    for keyword, value in values.items():
        setattr(elements, keyword, value)
    body = encoded(elements, implicit=True)
    length = Dataset()
    length.CommandGroupLength = len(body)
    return encoded(length, implicit=True) + body


def response(request: Received, status: int, data: bytes | None = None, **values: Any) -> bytes:
    """Return the PDUs of a response."""
    elements = command(
        AffectedSOPClassUID=request.text(0x00000002),
        CommandField=0x8000 | request.command_field,
        MessageIDBeingRespondedTo=request.message_id,
        CommandDataSetType=0x0101 if data is None else 0x0001,
        Status=status,
        **values,
    )
    return message_pdus(request.context_id, elements, data)


def counted(counters: Counters, *, remaining: bool = True) -> dict[str, int]:
    return {
        f"NumberOf{name}Suboperations": value
        for name, value in zip(_COUNTERS, counters, strict=True)
        if remaining or name != "Remaining"
    }


def match_of(number: int) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = "STUDY"
    found.PatientName = f"Match^{number}"
    return found


async def answer(peer: ScriptedPeer, case: Case, model: str, storage_id: int) -> None:
    """Receive a request, and answer it as the case says."""
    request = await peer.expect_message(REQUESTS[case.service])
    assert request.text(0x00000002) == model
    assert request.data_set
    assert (request.text(0x00000600) == "DEST") is (case.service == MOVE)
    for number, status in enumerate(case.pending, 1):
        if case.service == FIND:
            await peer.send(response(request, status, encoded(match_of(number))))
            continue
        if case.service == GET:
            await send_instance(peer, storage_id, number)
        await peer.send(response(request, status, None, **counted((len(case.pending) - number, number, 0, 0))))
    data, values = None, dict[str, Any]()
    if case.failed:
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = case.failed
        data = encoded(identifier)
    if case.full:
        values = {"ErrorComment": "why", "OffendingElement": [0x00100020, 0x0020000D], "ErrorID": 77}
    if case.counters is not None:
        values |= counted(case.counters, remaining=case.status == 0xFE00)
    await peer.send(response(request, case.status, data, **values))


async def send_instance(peer: ScriptedPeer, storage_id: int, number: int) -> None:
    elements = command(
        AffectedSOPClassUID=sop.CT_IMAGE_STORAGE,
        CommandField=C_STORE_RQ,
        MessageID=number,
        Priority=0,
        CommandDataSetType=1,
        AffectedSOPInstanceUID=f"{_OURS}.{number}",
    )
    await peer.send(message_pdus(storage_id, elements, ct_bytes(uid=f"{_OURS}.{number}")))
    assert (await peer.expect_message(C_STORE_RSP)).status == 0x0000


@asynccontextmanager
async def associated(
    script: Callable[[ScriptedPeer], Any], contexts: list[Any]
) -> AsyncIterator[asyncdicom.Association]:
    """Associate over TCP with a peer that plays a script to its end."""

    async def play(stream: SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream)
            await peer.accept()
            await script(peer)
            await finish(peer)
        listening.cancel_scope.cancel()

    with anyio.fail_after(PATIENCE):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            address = asyncdicom.Address("PEER", "127.0.0.1", listener.extra(SocketAttribute.local_port))
            async with anyio.create_task_group() as listening:
                listening.start_soon(listener.serve, play)
                async with asyncdicom.connect(address, contexts=contexts) as association:
                    yield association
                    await association.echo()


# Our side


async def ask(association: asyncdicom.Association, case: Case, model: str, *, check: bool) -> tuple[Any, list[Any]]:
    """Ask with a model; return the operation, and what it gave."""
    keys: dict[str, Any] = {"model": model, "level": "STUDY", "StudyInstanceUID": "1.2", "check": check}
    operation: Any
    if case.service == MOVE:
        operation = association.move(destination="DEST", **keys)
    else:
        operation = association.find(**keys) if case.service == FIND else association.get(**keys)
    given: list[Any] = []

    async def iterate() -> None:
        async for item in operation:
            given.append((item.sop_instance_uid, await item.read()) if case.service == GET else item)

    if not (check and case.raises):
        await iterate()
        return operation, given
    with pytest.raises(StatusError, match=f"{case.status:#06x}") as caught:
        await iterate()
    assert caught.value.response is operation.response
    assert (caught.value.status, caught.value.comment) == (case.status, "why" if case.full else None)
    assert caught.value.offending_elements == ((0x00100020, 0x0020000D) if case.full else ())
    return operation, given


def check_items(case: Case, given: list[Any]) -> None:
    """Check what an operation gave for the pending responses."""
    numbers = range(1, len(case.pending) + 1)
    if case.service == FIND:
        assert given == [match_of(number) for number in numbers]
    elif case.service == GET:
        assert given == [(f"{_OURS}.{number}", ct_bytes(uid=f"{_OURS}.{number}")) for number in numbers]
    else:
        assert given == [Progress(len(case.pending) - number, number, 0, 0) for number in numbers]


def check_response(case: Case, operation: Any) -> None:
    """Check what is to be seen of the final response."""
    final: asyncdicom.Response = operation.response
    row = row_of(case.service, case.status)
    assert row is not None
    assert (final.status, final.status.category) == (case.status, row.category)
    assert final.status.meaning
    assert final.progress == case.expected_progress
    assert final.failed_sop_instance_uids == case.failed
    assert (final.data_set is None) is (not case.failed)
    wanted = ("why", (0x00100020, 0x0020000D), 77) if case.full else (None, (), None)
    assert (final.error_comment, final.offending_element, final.error_id) == wanted
    assert not operation.truncated
    if case.service != FIND:
        assert operation.progress == final.progress


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_status_is_what_it_is_with_each_sop_class(case: Case) -> None:
    classes = models(case.service)
    storage = asyncdicom.PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, scu_role=True, scp_role=True)
    ways = [(model, check) for model in classes for check in (True, False)]

    async def script(peer: ScriptedPeer) -> None:
        for model, _ in ways:
            await answer(peer, case, model, 2 * len(classes) + 3)

    async with associated(script, [sop.VERIFICATION, *classes, storage]) as association:
        for model, check in ways:
            operation, given = await ask(association, case, model, check=check)
            check_items(case, given)
            check_response(case, operation)
