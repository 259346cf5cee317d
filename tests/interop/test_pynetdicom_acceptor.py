"""pynetdicom as the acceptor of our client's associations: what is negotiated, rejected, and how associations end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio import to_thread
from pynetdicom import AE

import asyncdicom
from asyncdicom import (
    AssociationAborted,
    AssociationClosed,
    AssociationRejected,
    DicomNetworkError,
    NoPresentationContext,
    OperationTimeout,
    PresentationContext,
    Timeouts,
    UserIdentity,
    sop,
)
from asyncdicom.protocol.pdu import CommonExtendedNegotiation

from .conftest import Certificates
from .material import part10, sample, storage_contexts
from .peers import pynetdicom_scp
from .scp import Scp, running_scp
from .scu import match

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

GOOD = sample("MR_small.dcm")


# Rejections.


def _set(name: str, value: Any) -> Callable[[AE], None]:
    return lambda ae: setattr(ae, name, value)


@on_asyncio
@pytest.mark.parametrize(
    ("configure", "reason"),
    [
        (_set("require_called_aet", True), (1, 1, 7)),
        (_set("require_calling_aet", ["SOMEBODY"]), (1, 1, 3)),
        (_set("maximum_associations", 1), (2, 3, 2)),
    ],
)
async def test_a_rejection_says_why(configure: Callable[[AE], None], reason: tuple[int, int, int]) -> None:
    with pynetdicom_scp(configure=configure) as port:
        async with AsyncExitStack() as stack:

            async def associate(calling: str, called: str) -> None:
                address = f"{called}@127.0.0.1:{port}"
                await stack.enter_async_context(
                    asyncdicom.connect(address, calling=calling, contexts=[sop.VERIFICATION])
                )

            await associate("SOMEBODY", "PYNETDICOM")
            with pytest.raises(AssociationRejected) as caught:
                await associate("ANYBODY", "STRANGER")
    error = caught.value
    assert (error.result, error.source, error.reason) == reason
    assert str(error)


# User identity.

IDENTITIES = [
    (UserIdentity.username("ann"), (1, b"ann", b"")),
    (UserIdentity.password("ann", "secret"), (2, b"ann", b"secret")),
    (UserIdentity.kerberos(b"ticket"), (3, b"ticket", b"")),
    (UserIdentity.saml(b"<assertion/>"), (4, b"<assertion/>", b"")),
    (UserIdentity.jwt(b"a.b.c"), (5, b"a.b.c", b"")),
]


@on_asyncio
@pytest.mark.parametrize(("identity", "expected"), IDENTITIES, ids=lambda value: str(getattr(value, "type", "")))
async def test_a_user_identity_arrives(scp: Scp, identity: UserIdentity, expected: tuple[int, bytes, bytes]) -> None:
    seen = []

    def check(event: Any) -> tuple[bool, bytes | None]:
        seen.append((event.user_id_type, event.primary_field, event.secondary_field))
        return True, b"a token"

    scp.handlers["user_identity"] = check
    async with scp.connect([sop.VERIFICATION], user_identity=identity) as assoc:
        await assoc.echo()
        token = b"a token" if identity.positive_response_requested else None
        assert assoc.negotiated.user_identity_response == token
    assert seen == [expected]


@on_asyncio
@pytest.mark.complains("")
async def test_an_identity_that_is_refused(scp: Scp) -> None:
    scp.handlers["user_identity"] = lambda event: (False, None)
    with pytest.raises(AssociationRejected) as caught:
        async with scp.connect([sop.VERIFICATION], user_identity=UserIdentity.password("eve", "guess")):
            pass
    assert (caught.value.source, caught.value.reason) == (2, 1)
    assert "eve" not in str(caught.value)
    assert "guess" not in repr(caught.value)


# The window, extended negotiation, roles and transfer syntaxes.


@on_asyncio
@pytest.mark.parametrize("proposed", [(8, 2), (1, 8), (0, 0)])
@pytest.mark.parametrize("answered", [True, False])
async def test_the_window_is_what_the_acceptor_answers(scp: Scp, proposed: tuple[int, int], answered: bool) -> None:
    # pynetdicom answers (1, 1) to any window, or not at all: then too it is one operation at a time.
    if not answered:

        def refuse(event: Any) -> None:
            raise NotImplementedError

        scp.handlers["window"] = refuse
    async with scp.connect([sop.VERIFICATION], async_operations=proposed) as assoc:
        assert assoc.async_operations == (1, 1)
        ids: list[int] = []

        async def echo() -> None:
            ids.append((await assoc.echo()).message_id)

        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(echo)
        assert ids == list(range(1, 13))


async def test_tasks_take_turns_on_an_association(scp: Scp) -> None:
    scp.answers("find", *((0xFF00, match(PatientID=str(number))) for number in range(10)))
    contexts = [sop.PATIENT_ROOT_FIND, sop.VERIFICATION, *storage_contexts([GOOD])]
    async with scp.connect(contexts) as assoc:
        found: list[int] = []

        async def find() -> None:
            found.append(len([item async for item in assoc.find(PatientID="", level="PATIENT")]))

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(find)
                tasks.start_soon(assoc.echo)
                tasks.start_soon(assoc.store, GOOD.path)
        assert found == [10] * 4


@on_asyncio
async def test_extended_negotiation_both_ways(scp: Scp) -> None:
    seen: list[Any] = []

    def extended(event: Any) -> dict[Any, bytes]:
        seen.append({str(uid): bytes(information) for uid, information in event.app_info.items()})
        return {sop.PATIENT_ROOT_FIND: b"\1\0\1"}

    def common(event: Any) -> Any:
        seen.append([(str(uid), str(item.service_class_uid)) for uid, item in event.items.items()])
        return event.items

    scp.handlers |= {"extended": extended, "common": common}
    async with scp.connect(
        [sop.PATIENT_ROOT_FIND, sop.CT_IMAGE_STORAGE],
        extended_negotiation={sop.PATIENT_ROOT_FIND: b"\1\1\1", sop.CT_IMAGE_STORAGE: b"\2\0\0\0\0\0"},
        common_extended_negotiation=(
            CommonExtendedNegotiation(
                sop_class_uid=sop.CT_IMAGE_STORAGE,
                service_class_uid="1.2.840.10008.4.2",
                related_sop_class_uids=(sop.ENHANCED_CT_IMAGE_STORAGE,),
            ),
        ),
    ) as assoc:
        assert assoc.extended_negotiation == {sop.PATIENT_ROOT_FIND: b"\1\0\1"}
    assert {sop.PATIENT_ROOT_FIND: b"\1\1\1", sop.CT_IMAGE_STORAGE: b"\2\0\0\0\0\0"} in seen
    assert [(sop.CT_IMAGE_STORAGE, "1.2.840.10008.4.2")] in seen


@on_asyncio
@pytest.mark.parametrize(
    ("supported", "may_store", "may_get"),
    [
        ((True, True), True, True),
        ((True, False), True, False),
        ((False, True), False, True),
        ((None, None), True, False),
    ],
)
async def test_roles_are_what_the_acceptor_grants(
    supported: tuple[bool | None, bool | None], may_store: bool, may_get: bool
) -> None:
    def configure(ae: AE) -> None:
        scu, scp = supported
        ae.add_supported_context(GOOD.sop_class_uid, GOOD.transfer_syntax_uid, scu_role=scu, scp_role=scp)

    with pynetdicom_scp(configure=configure) as port:
        async with asyncdicom.connect(f"PEER@127.0.0.1:{port}", contexts=storage_contexts([GOOD])) as assoc:
            [context] = assoc.accepted_contexts
            assert (context.requestor_is_scu, context.requestor_is_scp) == (may_store, may_get)
            if not may_store:
                with pytest.raises(NoPresentationContext, match="role"):
                    await assoc.store(GOOD.path)


@on_asyncio
async def test_each_context_is_answered_for_itself(scp: Scp) -> None:
    contexts = [
        PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(sop.JPEG_2000,)),
        PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(sop.RLE_LOSSLESS,)),
        PresentationContext(abstract_syntax=sop.VERIFICATION, transfer_syntaxes=(sop.JPEG_2000,)),
        PresentationContext(abstract_syntax="1.2.826.0.1.3680043.9.9999.1"),
        PresentationContext(abstract_syntax=sop.PATIENT_ROOT_FIND),
    ]
    async with scp.connect(contexts) as assoc:
        accepted = {context.context_id: context.transfer_syntax for context in assoc.accepted_contexts}
        assert (accepted[1], accepted[3]) == (sop.JPEG_2000, sop.RLE_LOSSLESS)
        assert set(accepted) == {1, 3, 9}
        assert assoc.negotiated.rejected == {sop.VERIFICATION: 4, "1.2.826.0.1.3680043.9.9999.1": 3}
        with pytest.raises(NoPresentationContext, match="transfer syntaxes not supported"):
            await assoc.echo()
        assert assoc.peer.ae_title == "PYNETDICOM"
        assert (assoc.peer.implementation_version_name or "").startswith("PYNETDICOM")


@on_asyncio
@pytest.mark.parametrize("maximum_length", [0, 64, 1024, 131_072])
async def test_our_maximum_length_is_kept_by_the_peer(scp: Scp, maximum_length: int) -> None:
    waveform = sample("waveform_ecg.dcm")
    scp.answers("get", 1, (0xFF00, part10(waveform if maximum_length > 64 else GOOD)))
    contexts = [sop.PATIENT_ROOT_GET, *storage_contexts([waveform, GOOD])]
    async with scp.connect(contexts, maximum_length=maximum_length) as assoc:
        async with assoc.get(PatientID="1", level="PATIENT") as got:
            sizes = [len(await instance.read()) async for instance in got]
        assert got.response is not None
        assert got.response.status == 0x0000
    assert sizes == [len((waveform if maximum_length > 64 else GOOD).data)]


# How associations end.


@on_asyncio
async def test_a_peer_that_aborts_an_operation(scp: Scp) -> None:
    def find(event: Any) -> Iterator[Any]:
        yield 0xFF00, match()
        event.assoc.abort()
        yield 0x0000, None

    scp.handlers["find"] = find

    async def use() -> None:
        async with scp.connect([sop.PATIENT_ROOT_FIND]) as assoc:
            async for _ in assoc.find(PatientID="1", level="PATIENT"):
                pass

    with pytest.raises(AssociationAborted):
        await use()


@on_asyncio
async def test_a_peer_that_releases_is_noticed(scp: Scp) -> None:
    async with scp.connect([sop.VERIFICATION]) as assoc:
        await assoc.echo()
        [event] = scp.requests
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, event.assoc.release)
            with anyio.fail_after(10):
                await assoc.wait_closed()
        with pytest.raises(AssociationClosed, match="released"):
            await assoc.echo()


@on_asyncio
async def test_a_peer_that_does_not_answer_is_given_up(scp: Scp) -> None:
    over = threading.Event()

    def echo(event: Any) -> int:
        over.wait(10)
        return 0x0000

    scp.handlers["echo"] = echo
    try:
        with pytest.raises(OperationTimeout) as caught:
            async with scp.connect([sop.VERIFICATION], timeouts=Timeouts(response=0.2)) as assoc:
                await assoc.echo()
    finally:
        over.set()
    assert caught.value.kind == "response"


# TLS.


async def test_pynetdicom_talks_tls(certificates: Certificates) -> None:
    waveform = sample("waveform_ecg.dcm")
    with running_scp(ssl=certificates.server) as scp:
        scp.answers("find", *((0xFF00, match(PatientID=str(number))) for number in range(30)))
        async with scp.connect(
            [sop.PATIENT_ROOT_FIND, sop.VERIFICATION, *storage_contexts([waveform])],
            ssl=certificates.client,
            server_hostname="localhost",
        ) as assoc:
            await assoc.echo()
            await assoc.store(waveform.path)
            assert len([item async for item in assoc.find(PatientID="", level="PATIENT")]) == 30
        stored = [event for event in scp.requests if event.event.name == "EVT_C_STORE"]
        assert [event.request.DataSet.getvalue() for event in stored] == [waveform.data]


@on_asyncio
@pytest.mark.complains("")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_without_a_certificate_the_association_does_not_come_about(certificates: Certificates) -> None:
    with running_scp(ssl=certificates.server) as scp:
        with pytest.raises(DicomNetworkError):
            async with scp.connect(
                [sop.VERIFICATION], ssl=certificates.anonymous, server_hostname="localhost"
            ) as assoc:
                await assoc.echo()
