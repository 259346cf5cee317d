"""pynetdicom as the requestor of associations with our server: what is negotiated, rejected and identified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import to_thread
from pydicom import Dataset
from pynetdicom import build_context, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

import asyncdicom
from asyncdicom import AssociationRejected, Limits, Services, sop

from .conftest import Certificates
from .material import Archive, sample, study
from .peers import pynetdicom_scu
from .scu import (
    GOOD,
    IDENTIFIER,
    Answers,
    PeerAssociation,
    check_retrieval,
    codes,
    collected,
    find_primitive,
    match,
    peer,
    raw_responses,
    serving,
    storage,
    yields,
)

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

#: pynetdicom logs a rejection as an error, which is right here.
told = pytest.mark.complains("Association Rejected|^Result:|^Reason:")


@on_asyncio
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"called": ["OTHER"]}, (1, 1, 7)),
        ({"calling": ["OTHER"]}, (1, 1, 3)),
        ({"limits": Limits(associations=0)}, (2, 3, 2)),
    ],
)
@told
async def test_pynetdicom_is_told_why_it_is_rejected(options: dict[str, Any], reason: tuple[int, int, int]) -> None:
    async with serving(Services(), **options) as port:
        assert await rejected(port) == [reason]


async def rejected(port: int, **options: Any) -> list[tuple[int, int, int]]:
    """Let pynetdicom associate, and return the result, source and reason of the A-ASSOCIATE-RJ that it received.

    Its association object is no help: now and then it says that it was aborted, though it has received the rejection.
    """
    found: list[tuple[int, int, int]] = []

    def received(event: Any) -> None:
        if event.pdu.pdu_type == 3:
            found.append((event.pdu.result, event.pdu.source, event.pdu.reason_diagnostic))

    def work() -> None:
        handlers = [(evt.EVT_PDU_RECV, received)]
        with pynetdicom_scu(port, [build_context(sop.VERIFICATION)], handlers=handlers, **options) as association:
            assert not association.is_established

    await to_thread.run_sync(work)
    return found


IDENTITIES = [(1, b"ann", b""), (2, b"ann", b"secret"), (3, b"ticket", b""), (4, b"<a/>", b""), (5, b"a.b.c", b"")]


@on_asyncio
@pytest.mark.parametrize("response", [None, b"", b"a token"])
@pytest.mark.parametrize(("kind", "primary", "secondary"), IDENTITIES)
async def test_a_user_is_identified(kind: int, primary: bytes, secondary: bytes, response: bytes | None) -> None:
    services = Services()
    asked = []

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> bytes | None:
        asked.append(request.user_identity)
        return response

    identity: Any = UserIdentityNegotiation()
    identity.user_identity_type = kind
    identity.primary_field = primary
    if secondary:
        identity.secondary_field = secondary
    identity.positive_response_requested = response is not None

    def use(assoc: PeerAssociation) -> bytes | None:
        assert assoc.send_c_echo().Status == 0x0000
        answer = assoc.acceptor.user_identity
        return None if answer is None else answer.server_response

    async with serving(services) as port:
        answer = await peer(port, [sop.VERIFICATION], use, negotiation=[identity])
    assert answer == response
    [found] = asked
    assert found is not None
    assert (found.type, found.primary, found.secondary) == (kind, primary, secondary)
    assert found.positive_response_requested is (response is not None)


@on_asyncio
@told
@pytest.mark.parametrize(
    "error", [AssociationRejected(1, 2, 1), ValueError("a bug in the policy"), None], ids=["refused", "bug", "silent"]
)
async def test_an_identity_that_is_not_known_is_refused(error: Exception | None) -> None:
    services = Services()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        if error is None:
            await anyio.sleep_forever()
        else:
            raise error

    identity: Any = UserIdentityNegotiation()
    identity.user_identity_type = 1
    identity.primary_field = b"eve"
    async with serving(services, timeouts=asyncdicom.Timeouts(associate=0.3)) as port:
        answer = await rejected(port, negotiation=[identity])
    assert answer == [(1, 2, 1)]


@on_asyncio
@pytest.mark.parametrize(
    ("proposed", "ours", "answered"),
    [
        ((4, 2), (16, 16), (4, 2)),
        ((100, 100), (16, 8), (16, 8)),
        ((0, 0), (16, 16), (16, 16)),
        ((0, 0), (0, 0), (0, 0)),
        ((5, 1), (1, 1), (1, 1)),
        (None, (16, 16), (1, 1)),
    ],
)
async def test_the_window_is_negotiated(
    proposed: tuple[int, int] | None, ours: tuple[int, int], answered: tuple[int, int]
) -> None:
    items = []
    if proposed is not None:
        window: Any = AsynchronousOperationsWindowNegotiation()
        window.maximum_number_operations_invoked, window.maximum_number_operations_performed = proposed
        items.append(window)

    def use(assoc: PeerAssociation) -> tuple[int, int]:
        assert assoc.send_c_echo().Status == 0x0000
        invoked, performed = assoc.acceptor.asynchronous_operations
        return invoked, performed

    async with serving(Services(), async_operations=ours) as port:
        assert await peer(port, [sop.VERIFICATION], use, negotiation=items) == answered


@on_asyncio
async def test_many_requests_at_once_are_answered_each() -> None:
    services = Services()

    @services.find(sop.PATIENT_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        for number in range(request.message_id % 5):
            yield match(PatientID=f"{request.message_id}.{number}")
            await anyio.lowlevel.checkpoint()

    window: Any = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8

    def use(assoc: PeerAssociation) -> dict[int, list[int]]:
        primitives = [find_primitive(sop.PATIENT_ROOT_FIND, IDENTIFIER, number) for number in range(1, 9)]
        responses = raw_responses(assoc, primitives, 1)
        found: dict[int, list[int]] = {}
        while sum(statuses[-1] == 0x0000 for statuses in found.values()) < len(primitives):
            response = next(responses)
            found.setdefault(response.MessageIDBeingRespondedTo, []).append(response.Status)
        responses.close()
        return found

    async with serving(services) as port:
        answers = await peer(port, [sop.PATIENT_ROOT_FIND], use, negotiation=[window])
    assert answers == {number: [0xFF00] * (number % 5) + [0x0000] for number in range(1, 9)}


@on_asyncio
async def test_extended_negotiation_is_answered() -> None:
    services = Services()
    services.find(sop.PATIENT_ROOT_FIND)(yields())
    services.store("*")(yields())
    services.extended_negotiation[sop.PATIENT_ROOT_FIND] = lambda proposed: bytes(
        a & b for a, b in zip(proposed, b"\1\0\1", strict=True)
    )
    extended: Any = SOPClassExtendedNegotiation()
    extended.sop_class_uid = sop.PATIENT_ROOT_FIND
    extended.service_class_application_information = b"\1\1\1"
    common: Any = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = sop.CT_IMAGE_STORAGE
    common.service_class_uid = "1.2.840.10008.4.2"

    def use(assoc: PeerAssociation) -> dict[str, bytes]:
        return {str(uid): bytes(answer) for uid, answer in assoc.acceptor.sop_class_extended.items()}

    async with serving(services) as port:
        contexts = [sop.PATIENT_ROOT_FIND, sop.CT_IMAGE_STORAGE]
        answers = await peer(port, contexts, use, negotiation=[extended, common])
    assert answers == {sop.PATIENT_ROOT_FIND: b"\1\0\1"}


@on_asyncio
@pytest.mark.parametrize("max_pdu", [0, 256, 16382, 131072])
async def test_a_peers_maximum_is_kept(max_pdu: int) -> None:
    services = Services()
    items = [sample("waveform_ecg.dcm"), GOOD]
    services.get(sop.PATIENT_ROOT_GET)(yields(2, *(item.instance() for item in items)))
    longest = []
    came = {}

    def pdu_received(event: Any) -> None:
        if event.pdu.__class__.__name__ == "P_DATA_TF":
            longest.append(event.pdu.pdu_length)

    def store(event: Any) -> int:
        came[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0x0000

    def use(assoc: PeerAssociation) -> Answers:
        return collected(assoc.send_c_get(match(), sop.PATIENT_ROOT_GET))

    async with serving(services) as port:
        answers = await peer(
            port,
            [sop.PATIENT_ROOT_GET, *storage(*items)],
            use,
            handlers=[(evt.EVT_C_STORE, store), (evt.EVT_PDU_RECV, pdu_received)],
            roles=[item.sop_class_uid for item in items],
            max_pdu=max_pdu,
        )
    check_retrieval(answers, 0x0000, (2, 0, 0))
    assert came == {item.sop_instance_uid: item.data for item in items}
    assert max_pdu == 0 or max(longest) <= max_pdu


@on_asyncio
async def test_transfer_syntaxes_and_roles_are_negotiated() -> None:
    services = Services()
    services.store("*")(yields())
    services.get(sop.PATIENT_ROOT_GET)(yields(0))
    syntaxes: list[Any] = [sop.JPEG_2000, sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_LITTLE_ENDIAN]
    contexts = [
        build_context(sop.CT_IMAGE_STORAGE, syntaxes),
        build_context(sop.PATIENT_ROOT_GET, syntaxes),
        build_context(sop.VERIFICATION, [sop.IMPLICIT_VR_LITTLE_ENDIAN]),
        build_context("1.2.826.0.1.3680043.9.9999.1"),
        build_context(sop.PATIENT_ROOT_FIND),
        build_context(sop.VERIFICATION, [sop.JPEG_2000]),
    ]

    def use(assoc: PeerAssociation) -> list[tuple[int, str, bool, bool]]:
        accepted = [(cx.context_id, str(cx.transfer_syntax[0]), cx.as_scu, cx.as_scp) for cx in assoc.accepted_contexts]
        refused = [(cx.context_id, "", False, False) for cx in assoc.rejected_contexts]
        assert [(cx.context_id, cx.result) for cx in assoc.rejected_contexts] == [(7, 3), (9, 3), (11, 4)]
        return sorted(accepted + refused)

    async with serving(services) as port:
        answers = await peer(port, contexts, use, roles=[sop.CT_IMAGE_STORAGE])
    assert answers == [
        # Storage: the first proposed; else explicit VR little endian before implicit.
        (1, sop.JPEG_2000, True, True),
        (3, sop.EXPLICIT_VR_LITTLE_ENDIAN, True, False),
        (5, sop.IMPLICIT_VR_LITTLE_ENDIAN, True, False),
        (7, "", False, False),
        (9, "", False, False),
        (11, "", False, False),
    ]


async def test_pynetdicom_talks_tls(certificates: Certificates) -> None:
    archive = Archive(study())

    def use(assoc: PeerAssociation) -> tuple[int, Answers]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        identifier.SOPInstanceUID = ""
        stored = assoc.send_c_store(sample("waveform_ecg.dcm").path).Status
        return stored, collected(assoc.send_c_find(identifier, sop.STUDY_ROOT_FIND))

    async with serving(archive.services(), ssl=certificates.server) as port:
        contexts = [sop.STUDY_ROOT_FIND, *storage(sample("waveform_ecg.dcm"))]
        stored, answers = await peer(port, contexts, use, ssl=certificates.client)
    assert (stored, codes(answers)) == (0x0000, [0xFF00] * len(study()) + [0x0000])


@on_asyncio
async def test_a_peer_that_aborts_cancels_the_handler() -> None:
    services = Services()
    ended = anyio.Event()

    @services.find(sop.PATIENT_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        try:
            yield match()
            await anyio.sleep_forever()
        finally:
            ended.set()

    def use(assoc: PeerAssociation) -> None:
        answers = assoc.send_c_find(match(), sop.PATIENT_ROOT_FIND)
        next(answers)
        assoc.abort()

    async with serving(services) as port:
        await peer(port, [sop.PATIENT_ROOT_FIND], use)
        with anyio.fail_after(5):
            await ended.wait()


async def test_thirty_peers_at_once_are_served() -> None:
    services = Archive(study()).services()

    def use(assoc: PeerAssociation) -> list[int]:
        return [assoc.send_c_echo(msg_id=number).Status for number in range(1, 4)]

    async with serving(services) as port:
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(peer, port, [sop.VERIFICATION], use)
