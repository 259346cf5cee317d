"""pynetdicom's SCU against our server: every operation with one answer and C-FIND, and every status of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
)

import asyncdicom
from asyncdicom import Services, StatusError, sop

from .material import Archive, Sample, part10, sample, samples
from .peers import free_port
from .scu import (
    IDENTIFIER,
    Answers,
    Handler,
    PeerAssociation,
    codes,
    collected,
    find_primitive,
    match,
    peer,
    raw,
    raw_responses,
    reads,
    retrieve_primitive,
    serving,
    store_primitive,
    unencodable,
    with_status,
    yields,
)

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

# C-ECHO.

ECHOES: list[tuple[Handler | None, int]] = [
    (None, 0x0000),
    (lambda request: None, 0x0000),
    (lambda request: 0x0122, 0x0122),
    (lambda request: with_status(0x0210), 0x0210),
    (lambda request: with_status(None), 0xC001),
    (lambda request: "0000", 0xC002),
    (lambda request: 1 // 0, 0x0110),
]


@pytest.mark.parametrize(("handler", "status"), ECHOES)
@pytest.mark.complains("Unknown status")
async def test_an_echo_is_answered(handler: Handler | None, status: int) -> None:
    services = Services()
    if handler is not None:
        services.echo()(handler)
    async with serving(services) as port:
        answer = await peer(port, [sop.VERIFICATION], lambda assoc: assoc.send_c_echo(msg_id=65535))
    assert answer.Status == status


# C-STORE.


class _Asked:
    """What a C-STORE handler may do with its request."""

    @staticmethod
    async def decode(request: asyncdicom.StoreRequest) -> int:
        await request.dataset()
        return 0x0000

    @staticmethod
    async def fail_midway(request: asyncdicom.StoreRequest) -> int:
        async for _ in request.iter_data():
            raise ValueError("a bug")
        return 0x0000

    @staticmethod
    def raises(error: Exception) -> Handler:
        async def handler(request: asyncdicom.StoreRequest) -> int:
            raise error

        return handler

    @staticmethod
    def answers(value: Any) -> Handler:
        async def handler(request: asyncdicom.StoreRequest) -> Any:
            return value

        return handler


STORES: list[tuple[Handler, int]] = [
    (_Asked.answers(None), 0x0000),
    (_Asked.decode, 0x0000),
    (_Asked.answers(0x0111), 0x0111),
    (_Asked.answers(0x0117), 0x0117),
    (_Asked.answers(0x0122), 0x0122),
    (_Asked.answers(0x0124), 0x0124),
    (_Asked.answers(0x0210), 0x0210),
    (_Asked.answers(0x0211), 0x0211),
    (_Asked.answers(0x0212), 0x0212),
    (_Asked.answers(0xA700), 0xA700),
    (_Asked.answers(0xA900), 0xA900),
    (_Asked.answers(0xB000), 0xB000),
    (_Asked.answers(0xB006), 0xB006),
    (_Asked.answers(0xB007), 0xB007),
    (_Asked.answers(0xC123), 0xC123),
    (_Asked.answers(with_status(0xB000)), 0xB000),
    (_Asked.answers(with_status(None)), 0xC001),
    (_Asked.answers("0000"), 0xC002),
    (_Asked.answers(-1), 0xC002),
    (_Asked.raises(ValueError("a bug")), 0xC211),
    (_Asked.fail_midway, 0xC211),
    (_Asked.raises(OSError(28, "No space left on device")), 0xA700),
    (_Asked.raises(MemoryError()), 0xA700),
    (_Asked.raises(StatusError(0xA900, "wrong")), 0xA900),
]


@on_asyncio
@pytest.mark.parametrize(
    ("handler", "status"), STORES, ids=[f"{number}-{row[1]:04X}" for number, row in enumerate(STORES)]
)
async def test_a_store_is_answered(handler: Handler, status: int) -> None:
    services = Services()
    services.store("*")(handler)
    item = sample("MR_small.dcm")
    context = build_context(item.sop_class_uid, item.transfer_syntax_uid)

    def use(assoc: PeerAssociation) -> tuple[Dataset, Dataset]:
        # The association is usable after whatever the handler did.
        return assoc.send_c_store(part10(item)), assoc.send_c_store(part10(item), msg_id=2)

    async with serving(services) as port:
        for answer in await peer(port, [context], use):
            assert answer.Status == status


async def test_a_data_set_that_cannot_be_decoded_is_c210() -> None:
    services = Services()
    services.store("*")(_Asked.decode)

    def use(assoc: PeerAssociation) -> int:
        return int(raw(assoc, store_primitive("1.2.3", bytes(range(256))), 1).Status)

    async with serving(services) as port:
        assert await peer(port, [sop.CT_IMAGE_STORAGE], use) == 0xC210


@pytest.mark.filterwarnings("ignore:.*UI")
@pytest.mark.complains("Affected SOP Instance UID|AffectedSOPInstanceUID|standard_dimse_sent_handler")
@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1..2", "1.2.x", ".1.2", "1.2.", ""])
async def test_a_sop_instance_uid_that_is_none_is_0117(uid: str) -> None:
    services = Services()
    called: list[Any] = []
    services.store("*")(called.append)

    def use(assoc: PeerAssociation) -> int:
        primitive = store_primitive("1.2.3", b"\x08\x00\x60\x00\x02\x00\x00\x00CT")
        primitive._AffectedSOPInstanceUID = uid
        return int(raw(assoc, primitive, 1).Status)

    async with serving(services) as port:
        assert await peer(port, [sop.CT_IMAGE_STORAGE], use) == 0x0117
    assert called == []


async def test_a_store_without_a_data_set_is_0212() -> None:
    services = Services()
    services.store("*")(_Asked.decode)

    def use(assoc: PeerAssociation) -> tuple[int, int]:
        return raw(assoc, store_primitive("1.2.3", None), 1).Status, assoc.send_c_echo().Status

    async with serving(services) as port:
        assert await peer(port, [sop.CT_IMAGE_STORAGE, sop.VERIFICATION], use) == (0x0212, 0x0000)


async def test_every_sample_is_stored_byte_by_byte() -> None:
    # pynetdicom writes a data set anew: what it sends of a file is what it would write into one.
    items = [item for item in samples() if "truncated" not in item.name][::4]
    archive = Archive()
    pairs = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)

    def use(assoc: PeerAssociation) -> list[tuple[Sample, int]]:
        return [(item, assoc.send_c_store(item.path).Status) for item in items]

    async with serving(archive.services()) as port:
        answers = await peer(port, [build_context(*pair) for pair in pairs], use)
    assert {status for _, status in answers} == {0x0000}
    assert len(archive.requests) == len(items)


# C-FIND.

#: What is not on the seed page, whose own tests have the rest.
FINDS: list[tuple[Handler, list[int]]] = [
    (yields((0xB001, None)), [0xB001]),
    (yields((with_status(0xFF01), match())), [0xFF01, 0x0000]),
    (yields(0xA700), [0xA700]),
    (yields((0x1234, None)), [0x1234]),
]


@pytest.mark.parametrize(
    ("handler", "expected"), FINDS, ids=[f"{number}-{row[1][-1]:04X}" for number, row in enumerate(FINDS)]
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_find_is_answered(handler: Handler, expected: list[int]) -> None:
    services = Services()
    services.find(sop.PATIENT_ROOT_FIND)(handler)

    def use(assoc: PeerAssociation) -> tuple[Answers, int]:
        answers = collected(assoc.send_c_find(match(PatientID="*"), sop.PATIENT_ROOT_FIND))
        return answers, assoc.send_c_echo().Status

    async with serving(services) as port:
        answers, echo = await peer(port, [sop.PATIENT_ROOT_FIND, sop.VERIFICATION], use)
    assert (codes(answers), echo) == (expected, 0x0000)
    for status, identifier, _ in answers:
        assert (identifier is not None) is (status in (0xFF00, 0xFF01))


async def test_the_elements_of_a_status_arrive() -> None:
    services = Services()
    status = with_status(0xC123, comment="what is wrong: " + "é" * 80, offending=[0x00100020, 0x00080052])
    services.find(sop.PATIENT_ROOT_FIND)(yields((status, None)))

    def use(assoc: PeerAssociation) -> Answers:
        return collected(assoc.send_c_find(match(), sop.PATIENT_ROOT_FIND))

    async with serving(services) as port:
        [(code, _, answer)] = await peer(port, [sop.PATIENT_ROOT_FIND], use)
    assert code == 0xC123
    assert answer.ErrorComment.startswith("what is wrong: ")
    assert len(answer.ErrorComment) == 64
    assert [int(tag) for tag in answer.OffendingElement] == [0x00100020, 0x00080052]


JUNK = [bytes(range(256)), b"\xff\xff\xff\xff" * 3, b"\x08\x00\x52\x00\xff\xff\xff\x7f"]


OPERATIONS: list[tuple[sop.SOPClass, Callable[[str, bytes | None], Any], int]] = [
    (sop.PATIENT_ROOT_FIND, find_primitive, 0xC310),
    (sop.PATIENT_ROOT_GET, partial(retrieve_primitive, C_GET), 0xC410),
    (sop.PATIENT_ROOT_MOVE, partial(retrieve_primitive, C_MOVE), 0xC510),
]


@on_asyncio
@pytest.mark.parametrize("identifier", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize(("model", "make", "status"), OPERATIONS, ids=["find", "get", "move"])
async def test_an_identifier_that_cannot_be_decoded_is_cx10(
    model: sop.SOPClass, make: Callable[[str, bytes | None], Any], status: int, identifier: bytes
) -> None:
    services = Services()
    services.find(model)(reads)
    services.retrieve(model)(reads)

    def use(assoc: PeerAssociation) -> tuple[int, int]:
        return raw(assoc, make(model, identifier), 1).Status, assoc.send_c_echo().Status

    async with serving(services, peers={"NOBODY": f"NOBODY@127.0.0.1:{free_port()}"}) as port:
        assert await peer(port, [model, sop.VERIFICATION], use) == (status, 0x0000)


@on_asyncio
@pytest.mark.parametrize("model", [sop.PATIENT_ROOT_FIND, sop.PATIENT_ROOT_GET, sop.PATIENT_ROOT_MOVE])
async def test_an_operation_that_a_class_does_not_have_is_0211(model: sop.SOPClass) -> None:
    services = Services()
    services.find(sop.PATIENT_ROOT_FIND)(reads)
    services.retrieve(sop.PATIENT_ROOT_GET, sop.PATIENT_ROOT_MOVE)(reads)

    def use(assoc: PeerAssociation) -> tuple[int, int]:
        primitive = store_primitive("1.2.3", IDENTIFIER)
        primitive.AffectedSOPClassUID = model
        return raw(assoc, primitive, 1).Status, assoc.send_c_echo().Status

    async with serving(services) as port:
        assert await peer(port, [model, sop.VERIFICATION], use) == (0x0211, 0x0000)


@on_asyncio
@pytest.mark.parametrize(("model", "make", "status"), OPERATIONS, ids=["find", "get", "move"])
async def test_a_message_id_that_is_outstanding_is_0210(
    model: sop.SOPClass, make: Callable[[str, bytes | None], Any], status: int
) -> None:
    services = Services()
    gate = anyio.Event()

    async def wait(request: Any) -> AsyncIterator[Any]:
        await gate.wait()
        yield (0x0000, None)

    services.find(model)(wait)
    services.retrieve(model)(wait)

    def use(assoc: PeerAssociation) -> list[int]:
        responses = raw_responses(assoc, [make(model, IDENTIFIER), make(model, IDENTIFIER)], 1)
        first = next(responses).Status
        anyio.from_thread.run_sync(gate.set)
        second = next(responses).Status
        responses.close()
        return [first, second]

    window: Any = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 4
    peers = {"NOBODY": f"NOBODY@127.0.0.1:{free_port()}"}
    async with serving(services, peers=peers) as port:
        statuses = await peer(port, [model], use, negotiation=[window])
    assert statuses == [0x0210, 0x0000]


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_find_is_cancelled(after: int) -> None:
    services = Services()
    closed = []

    @services.find(sop.PATIENT_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        try:
            for number in range(after):
                yield match(PatientID=str(number))
            await anyio.sleep_forever()
        finally:
            closed.append(request.cancelled)

    def use(assoc: PeerAssociation) -> tuple[list[int], int]:
        answers = assoc.send_c_find(match(), sop.PATIENT_ROOT_FIND, msg_id=12)
        found = [next(answers)[0].Status for _ in range(after)]
        assoc.send_c_cancel(12, query_model=sop.PATIENT_ROOT_FIND)
        found += codes(collected(answers))
        return found, assoc.send_c_echo().Status

    async with serving(services) as port:
        statuses, echo = await peer(port, [sop.PATIENT_ROOT_FIND, sop.VERIFICATION], use)
    assert (statuses, echo) == ([0xFF00] * after + [0xFE00], 0x0000)
    # A C-CANCEL that comes together with its request ends it before the handler has begun.
    assert closed in ([True], []) if after == 0 else closed == [True]


async def test_a_cancel_for_nothing_is_ignored() -> None:
    def use(assoc: PeerAssociation) -> list[int]:
        found = []
        for message_id in (1, 12, 65535):
            assoc.send_c_cancel(message_id, query_model=sop.PATIENT_ROOT_FIND)
            found.append(assoc.send_c_echo(msg_id=message_id).Status)
        return found

    services = Services()
    services.find(sop.PATIENT_ROOT_FIND)(yields())
    async with serving(services) as port:
        assert await peer(port, [sop.PATIENT_ROOT_FIND, sop.VERIFICATION], use) == [0, 0, 0]


# N services.


def report(**values: Any) -> Dataset:
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


STORAGE_COMMITMENT = sop.STORAGE_COMMITMENT_PUSH_MODEL
MPPS = sop.MODALITY_PERFORMED_PROCEDURE_STEP


@pytest.mark.parametrize(
    ("value", "status", "has_data"),
    [
        (None, 0x0000, False),
        (0x0107, 0x0107, False),
        (0x0110, 0x0110, False),
        ((0x0000, report(PatientID="1")), 0x0000, True),
        ((0x0116, report(PatientID="1")), 0x0116, True),
        (report(PatientID="1"), 0x0000, True),
        (with_status(None), 0x0000, False),
        ("0000", 0xC002, False),
        (ValueError("a bug"), 0x0110, False),
        (StatusError(0x0112), 0x0112, False),
        ((0x0000, unencodable()), 0x0110, False),
    ],
)
@on_asyncio
async def test_the_normalised_services_are_answered(value: Any, status: int, has_data: bool) -> None:
    services = Services()
    asked: list[asyncdicom.NRequest] = []

    async def handler(request: asyncdicom.NRequest) -> Any:
        asked.append(request)
        if request.data_set is not None:
            assert request.data_set.PatientID == "7"
        if isinstance(value, Exception):
            raise value
        return value

    for register in (
        services.n_create,
        services.n_set,
        services.n_get,
        services.n_action,
        services.n_delete,
        services.n_event_report,
    ):
        register(MPPS)(handler)

    def use(assoc: PeerAssociation) -> list[tuple[Dataset, Dataset | None]]:
        data = report(PatientID="7")
        found = [
            assoc.send_n_create(data, MPPS, "1.2.3", msg_id=1),
            assoc.send_n_set(data, MPPS, "1.2.3", msg_id=2),
            assoc.send_n_get([(0x0010, 0x0020), (0x0010, 0x0010)], MPPS, "1.2.3", msg_id=3),
            assoc.send_n_action(data, 5, MPPS, "1.2.3", msg_id=4),
            assoc.send_n_event_report(data, 6, MPPS, "1.2.3", msg_id=5),
        ]
        deleted = assoc.send_n_delete(MPPS, "1.2.3", msg_id=6)
        return [*found, (deleted, None)]

    async with serving(services) as port:
        answers = await peer(port, [MPPS], use)
    assert [answer.Status for answer, _ in answers] == [status] * 6
    if has_data:
        assert [data.PatientID for _, data in answers[:-1] if data is not None] == ["1"] * 5
    assert [request.sop_instance_uid for request in asked] == ["1.2.3"] * 6
    assert asked[2].attribute_identifiers == (0x00100020, 0x00100010)
    assert (asked[3].action_type_id, asked[4].event_type_id) == (5, 6)
