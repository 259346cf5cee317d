"""Requests: what handlers read of them, and what a C-CANCEL does to who performs them."""

from __future__ import annotations

from typing import Any

import anyio
import pydicom
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.incoming import Oversized
from asyncdicom.protocol.commands import (
    Message,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from asyncdicom.requests import FindRequest, Request
from asyncdicom.responses import Progress
from asyncdicom.testing import (
    Received,
    echo_request,
    find_request,
    n_request,
    retrieve_request,
    store_request,
)

from .harness import GET_ID, MOVE_ID, ct_instance, identifier, request_elements, served

UID = "1.2.3.4"
WORKLIST = sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND


# What every request has.

#: Request -> SOP class, Message ID, priority.
COMMON: list[tuple[Request, tuple[str, int, int]]] = [
    (echo_request(message_id=7), (sop.VERIFICATION, 7, 0)),
    (find_request(PatientID="1", message_id=8, priority=1), (sop.STUDY_ROOT_FIND, 8, 1)),
    (
        find_request(None, WORKLIST, PatientID="1"),
        (WORKLIST, 1, 0),
    ),
    (retrieve_request(PatientID="1", priority=2), (sop.STUDY_ROOT_GET, 1, 2)),
    (retrieve_request(destination="THERE", PatientID="1"), (sop.STUDY_ROOT_MOVE, 1, 0)),
    (store_request(ct_instance(), message_id=65_535), (sop.CT_IMAGE_STORAGE, 65_535, 0)),
    (
        n_request(
            NDeleteRQ(
                message_id=9,
                requested_sop_class_uid=sop.MODALITY_PERFORMED_PROCEDURE_STEP,
                requested_sop_instance_uid=UID,
            )
        ),
        (sop.MODALITY_PERFORMED_PROCEDURE_STEP, 9, 0),
    ),
]


@pytest.mark.parametrize(("request_", "fields"), COMMON, ids=lambda value: type(value).__name__)
def test_a_request_names_its_class_its_number_and_its_priority(request_: Request, fields: tuple[str, int, int]) -> None:
    assert (request_.sop_class_uid, request_.message_id, request_.priority) == fields
    assert request_.transfer_syntax_uid == request_.context.transfer_syntax
    assert (request_.cancelled, request_.responded, request_.responses) == (False, False, 0)
    assert (request_.final_status, request_.refusal) == (None, None)


def test_the_class_of_a_message_goes_before_that_of_its_context() -> None:
    message = NActionRQ(
        message_id=1,
        requested_sop_class_uid=sop.MODALITY_PERFORMED_PROCEDURE_STEP,
        requested_sop_instance_uid=UID,
        action_type_id=1,
    )
    request = n_request(message, context=sop.STORAGE_COMMITMENT_PUSH_MODEL)
    assert request.sop_class_uid == sop.MODALITY_PERFORMED_PROCEDURE_STEP
    assert request.context.abstract_syntax == sop.STORAGE_COMMITMENT_PUSH_MODEL


# Identifiers.


@pytest.mark.parametrize("level", ["STUDY", "STUDY ", " STUDY"])
def test_the_level_of_a_query_is_without_its_padding(level: str) -> None:
    assert find_request(PatientID="1", level=level).level == "STUDY"


def test_a_query_without_a_level_has_an_empty_one() -> None:
    assert find_request(PatientID="1").level == ""


def test_an_identifier_is_decoded_once() -> None:
    request = find_request(PatientID="1")
    assert request.identifier.PatientID == "1"
    assert request.identifier is request.identifier
    assert request.identifier_bytes == identifier("1")


def raw_find(data: bytes | None) -> FindRequest:
    made = find_request(PatientID="1")
    return FindRequest(made.association, made.context, made.message, data)


def test_a_query_without_an_identifier_says_so() -> None:
    request = raw_find(None)
    assert request.has_no_identifier
    assert request.identifier_bytes == b""
    with pytest.raises(asyncdicom.DataSetError, match="has no identifier"):
        request.identifier  # noqa: B018


def test_an_identifier_that_is_too_long_is_out_of_resources() -> None:
    request = raw_find(Oversized())
    assert not request.has_no_identifier
    for look in (lambda: request.identifier, lambda: request.identifier_bytes, lambda: request.level):
        with pytest.raises(asyncdicom.StatusError) as caught:
            look()
        assert caught.value.status == 0xA700


#: What is hostile about it -> the identifier.
HOSTILE = [
    ("cut short", b"\x10\x00\x20\x00LO\x08\x001"),
    ("nested too deep", b"\xfe\xff\x00\xe0\xff\xff\xff\xff".join([b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"] * 40)),
]


@pytest.mark.parametrize("data", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_an_identifier_that_cannot_be_decoded_is_an_error_each_time(data: bytes) -> None:
    request = raw_find(data)
    for _ in range(2):
        with pytest.raises(asyncdicom.DataSetError):
            request.identifier  # noqa: B018
    assert request.identifier_bytes == data


# Retrievals.


def test_a_retrieval_is_a_get_or_a_move_to_its_destination() -> None:
    get, move = retrieve_request(PatientID="1"), retrieve_request(destination="THERE", PatientID="1")
    assert (get.is_move, get.destination, get.total) == (False, None, None)
    assert (move.is_move, move.destination, move.total) == (True, "THERE", None)


def test_what_is_expected_is_kept_once_and_in_order() -> None:
    request = retrieve_request(destination="THERE", PatientID="1")
    request.expect([("1.2", "1.3"), ("1.4", "1.3"), ("1.2", "1.3")])
    request.expect(iter([("1.5", "1.3"), ("1.4", "1.3")]))
    assert list(request._pairs) == [("1.2", "1.3"), ("1.4", "1.3"), ("1.5", "1.3")]


#: Status, progress -> remaining, completed, failed and warning as they are told (PS3.4 C.4.2.1.6).
COUNTERS: list[tuple[int, Progress | None, tuple[int | None, int, int, int]]] = [
    (0xFF00, None, (0, 0, 0, 0)),
    (0xFF00, Progress(4, 3, 2, 1), (4, 3, 2, 1)),
    (0xFF00, Progress(None, 3), (0, 3, 0, 0)),
    (0xFF00, Progress(70_000, 65_536, 65_535, 0), (65_535, 65_535, 65_535, 0)),
    (0xFE00, Progress(4, 3, 2, 1), (4, 3, 2, 1)),
    (0x0000, None, (None, 0, 0, 0)),
    (0x0000, Progress(4, 3, 2, 1), (None, 3, 2, 1)),
    (0xB000, Progress(0, 3, 2, 1), (None, 3, 2, 1)),
    (0xA702, Progress(0, 0, 70_000, 0), (None, 0, 65_535, 0)),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("context_id", "sop_class", "field"),
    [
        (GET_ID, sop.STUDY_ROOT_GET, 0x0010),
        (MOVE_ID, sop.STUDY_ROOT_MOVE, 0x0021),
    ],
)
async def test_counters_are_told_as_the_standard_has_them(context_id: int, sop_class: str, field: int) -> None:
    services = asyncdicom.Services()

    @services.on_association
    async def gateway(association: Any) -> None:
        async for request in association:
            status, progress, _ = COUNTERS[request.message_id - 1]
            await request.respond(status, progress=progress)
            if status == 0xFF00:
                await request.respond(0x0000)

    @services.retrieve(sop.STUDY_ROOT_GET, sop.STUDY_ROOT_MOVE)
    async def unused(request: Any) -> None:
        """Says what is accepted."""

    async with served(services) as peer:
        for message_id, (status, _, counters) in enumerate(COUNTERS, 1):
            elements = request_elements(field, message_id, sop_class)
            if field == 0x0021:
                elements[0x00000600] = "THERE"
            await peer.send_message(context_id, elements, identifier())
            said: Received = await peer.expect_message(field | 0x8000)
            assert said.status == status
            assert tuple(said.number(tag) for tag in range(0x00001020, 0x00001024)) == counters
            if status == 0xFF00:
                assert (await peer.expect_message(field | 0x8000)).status == 0
        await peer.release()


# C-STORE.


def test_a_store_request_knows_where_it_comes_from() -> None:
    direct = store_request(ct_instance())
    assert (direct.sop_instance_uid, direct.has_no_data) == (UID, False)
    assert (direct.move_originator_ae_title, direct.move_originator_message_id) == (None, None)
    moved = store_request(ct_instance(), move_originator=("MOVER", 7))
    assert (moved.move_originator_ae_title, moved.move_originator_message_id) == ("MOVER", 7)


@pytest.mark.anyio
async def test_the_data_set_of_a_request_is_valid_until_its_response() -> None:
    request = store_request(ct_instance())
    request.expire_data()
    with pytest.raises(asyncdicom.LocalProtocolError, match="is over"):
        await request.read()


# N- services.

STEP = sop.MODALITY_PERFORMED_PROCEDURE_STEP

#: Message -> SOP Instance UID, event type, action type, attributes.
NORMALIZED: list[tuple[Message, tuple[str | None, int | None, int | None, tuple[int, ...]]]] = [
    (
        NEventReportRQ(message_id=1, affected_sop_class_uid=STEP, affected_sop_instance_uid=UID, event_type_id=2),
        (UID, 2, None, ()),
    ),
    (NGetRQ(message_id=1, requested_sop_class_uid=STEP, requested_sop_instance_uid=UID), (UID, None, None, ())),
    (
        NGetRQ(
            message_id=1,
            requested_sop_class_uid=STEP,
            requested_sop_instance_uid=UID,
            attribute_identifier_list=(0x00100010, 0x00100020),
        ),
        (UID, None, None, (0x00100010, 0x00100020)),
    ),
    (NSetRQ(message_id=1, requested_sop_class_uid=STEP, requested_sop_instance_uid=UID), (UID, None, None, ())),
    (
        NActionRQ(message_id=1, requested_sop_class_uid=STEP, requested_sop_instance_uid=UID, action_type_id=3),
        (UID, None, 3, ()),
    ),
    (NCreateRQ(message_id=1, affected_sop_class_uid=STEP), (None, None, None, ())),
    (NCreateRQ(message_id=1, affected_sop_class_uid=STEP, affected_sop_instance_uid=UID), (UID, None, None, ())),
    (NDeleteRQ(message_id=1, requested_sop_class_uid=STEP, requested_sop_instance_uid=UID), (UID, None, None, ())),
]


@pytest.mark.parametrize(("message", "fields"), NORMALIZED, ids=[type(row[0]).__name__ for row in NORMALIZED])
def test_what_an_n_request_names(
    message: Message, fields: tuple[str | None, int | None, int | None, tuple[int, ...]]
) -> None:
    request = n_request(message)
    assert fields == (
        request.sop_instance_uid,
        request.event_type_id,
        request.action_type_id,
        request.attribute_identifiers,
    )
    assert (request.data_set_bytes, request.data_set) == (None, None)


def test_the_data_set_of_an_n_request_is_decoded_once() -> None:
    dataset = pydicom.Dataset()
    dataset.PatientID = "1"
    request = n_request(NORMALIZED[3][0], dataset)
    assert request.data_set_bytes == identifier("1")
    assert request.data_set == dataset
    assert request.data_set is request.data_set


# C-CANCEL (PS3.7 9.3.2.3).


@pytest.mark.anyio
async def test_a_cancel_interrupts_a_handler_but_no_message_on_its_way_out() -> None:
    request = find_request(PatientID="1")
    reached: list[str] = []
    with anyio.CancelScope() as scope:
        request._scope = scope
        request.cancel()
        await anyio.lowlevel.checkpoint()
        reached.append("a message went out")
        with request._interruptible():
            request.cancel()
            await anyio.lowlevel.checkpoint()
            reached.append("the handler went on")  # pragma: no cover
    assert request.cancelled
    assert scope.cancelled_caught
    assert reached == ["a message went out"]


def test_a_cancel_before_anybody_performs_a_request_is_remembered() -> None:
    request = find_request(PatientID="1")
    request.cancel()
    assert request.cancelled
