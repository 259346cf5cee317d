"""What each field of a PeerProfile does, seen on the wire: as requestor, as acceptor, and towards C-MOVE destinations."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import (
    AssociationAborted,
    AssociationRequest,
    FindRequest,
    LocalProtocolError,
    NoPresentationContext,
    PeerProfile,
    PresentationContext,
    RetrieveRequest,
    Server,
    Services,
    StoreRequest,
    Timeouts,
    sop,
)
from asyncdicom.dataset import decode_data_set
from asyncdicom.protocol import pdu
from asyncdicom.testing import ScriptedPeer, connected

from .harness import (
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_GET_RSP,
    C_STORE_RQ,
    C_STORE_RSP,
    CONTEXTS,
    CT_ID,
    ct_bytes,
    ct_instance,
    expect_abort,
    finish,
    identifier,
    request_elements,
    scripted,
    served,
    store_elements,
)
from .retrieval.pacs import Pacs, study

pytestmark = pytest.mark.anyio

CT = sop.CT_IMAGE_STORAGE
WITH_GET = (sop.VERIFICATION, sop.STUDY_ROOT_GET, CT)


async def proposal(**options: Any) -> pdu.AssociateRQ:
    """Return what a requestor proposes."""
    seen: list[pdu.AssociateRQ] = []

    async def script(peer: ScriptedPeer) -> None:
        assert peer.request is not None
        seen.append(peer.request)
        await finish(peer)

    async with scripted(script, **options) as assoc:
        await assoc.echo()
    return seen[0]


def two_instances() -> Services:
    """Serve two CT images by C-GET and C-MOVE."""
    services = Services()

    @services.retrieve(sop.STUDY_ROOT_GET, sop.STUDY_ROOT_MOVE)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        yield 2
        yield ct_instance(uid="1.2.1")
        yield ct_instance(uid="1.2.2")

    return services


@asynccontextmanager
async def moving(profile: PeerProfile | None) -> AsyncIterator[tuple[asyncdicom.Association, list[AssociationRequest]]]:
    """Give an association with a server that knows a destination, and what was proposed to that."""
    proposed: list[AssociationRequest] = []
    receiver = Services()
    receiver.on_associate(proposed.append)

    @receiver.store(CT)
    async def store(request: StoreRequest) -> None:
        await request.discard()

    async with Server(receiver, "DEST@127.0.0.1:0", drain=0) as there:
        options = {"peers": {"DEST": there.addresses[0]}, "profiles": None if profile is None else {"DEST": profile}}
        async with connected(two_instances(), [sop.STUDY_ROOT_MOVE], server_options=options) as assoc:
            yield assoc, proposed


async def moved(profile: PeerProfile | None) -> list[AssociationRequest]:
    """Have two instances moved; return the associations that it took."""
    async with moving(profile) as (assoc, proposed):
        move = assoc.move(StudyInstanceUID="1.2", level="STUDY", destination="DEST")
        assert [progress.failed async for progress in move][-1] == 0
    assert move.progress.completed == 2
    return proposed


async def answer_to(profile: PeerProfile | None, *contexts: Any, **associate: Any) -> pdu.AssociateAC:
    """Return how a server answers a peer, whose AE title is SCRIPTED."""
    profiles = None if profile is None else {"SCRIPTED": profile, "OTHER": PeerProfile(maximum_length=1000)}
    async with served(two_instances(), *(contexts or WITH_GET), associate=associate, profiles=profiles) as peer:
        assert peer.answer is not None
        await peer.release()
        return peer.answer


# The asynchronous operations window.


async def test_no_window_is_proposed_to_who_cannot_take_it() -> None:
    request = await proposal(async_operations=(8, 2))
    assert request.user_information.async_operations == pdu.AsyncOperationsWindow(invoked=8, performed=2)
    request = await proposal(async_operations=(8, 2), profile=PeerProfile(async_window=False))
    assert request.user_information.async_operations is None


async def test_no_window_is_granted_to_who_cannot_take_it() -> None:
    answer = await answer_to(None, window=(5, 5))
    assert answer.user_information.async_operations == pdu.AsyncOperationsWindow(invoked=5, performed=5)
    answer = await answer_to(PeerProfile(async_window=False), window=(5, 5))
    assert answer.user_information.async_operations == pdu.AsyncOperationsWindow(invoked=1, performed=1)


@pytest.mark.parametrize(("window", "proposed"), [(True, 8), (False, None)])
async def test_no_window_is_proposed_to_such_a_destination(window: bool, proposed: int | None) -> None:
    (association,) = await moved(PeerProfile(async_window=window))
    item = association.request.user_information.async_operations
    assert (None if item is None else item.invoked) == proposed


# Roles.


@pytest.mark.parametrize(
    ("roles", "proposed"), [("both", {CT: (True, True)}), ("scp", {CT: (False, True)}), ("none", {})]
)
async def test_the_roles_that_are_proposed_for_storage(roles: Any, proposed: dict[str, tuple[bool, bool]]) -> None:
    request = await proposal(contexts=WITH_GET, profile=PeerProfile(storage_roles=roles))
    assert {r.sop_class_uid: (r.scu, r.scp) for r in request.user_information.roles} == proposed


async def test_roles_that_a_context_states_are_proposed_whatever_the_profile_says() -> None:
    own = PresentationContext(abstract_syntax=CT, scu_role=True, scp_role=True)
    request = await proposal(
        contexts=[sop.VERIFICATION, sop.STUDY_ROOT_GET, own], profile=PeerProfile(storage_roles="none")
    )
    assert [(r.scu, r.scp) for r in request.user_information.roles] == [(True, True)]


@pytest.mark.parametrize(
    ("profile", "status"),
    [(PeerProfile(), 0x0000), (PeerProfile(storage_roles="none"), 0x0000), (PeerProfile(strict_roles=True), 0x0122)],
)
async def test_sub_operations_without_a_negotiated_role_are_refused_if_the_profile_says_so(
    profile: PeerProfile, status: int
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await peer.send_message(CT_ID, store_elements(7, "1.2.1"), ct_bytes(100, "1.2.1"))
        assert (await peer.expect_message(C_STORE_RSP)).status == status
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, accept={"roles": False}, profile=profile) as assoc:
        assert assoc.strict_roles is profile.strict_roles
        got = [instance.sop_instance_uid async for instance in assoc.get(identifier())]
        assert got == ([] if status else ["1.2.1"])
        await assoc.echo()


async def test_a_role_that_was_not_granted_is_assumed_if_the_profile_says_so() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.respond(await peer.expect_message(C_STORE_RQ), 0x0000)
        await finish(peer)

    scp_only = {"roles": (False, True)}
    async with scripted(script, accept=scp_only, profile=PeerProfile(assume_roles=True)) as assoc:
        await assoc.store(ct_instance())
        await assoc.echo()
    async with scripted(finish, accept=scp_only) as assoc:
        with pytest.raises(NoPresentationContext, match=r"role for CT Image Storage .* PeerProfile.assume_roles"):
            await assoc.store(ct_instance())
        await assoc.echo()


@pytest.mark.parametrize("assume", [True, False])
async def test_a_requestor_that_negotiates_no_role_gets_instances_all_the_same_if_its_profile_says_so(
    assume: bool,
) -> None:
    profiles = {"SCRIPTED": PeerProfile(assume_roles=assume)}
    stored: list[str | None] = []
    contexts = [PresentationContext(abstract_syntax=CT), sop.STUDY_ROOT_GET]
    async with served(two_instances(), *contexts, profiles=profiles) as peer:
        await peer.send_message(3, request_elements(C_GET_RQ, 5, sop.STUDY_ROOT_GET), identifier())
        while True:
            message = await peer.expect_message()
            if message.command_field == C_STORE_RQ:
                stored.append(message.text(0x00001000))
                await peer.respond(message, 0x0000)
            elif message.status != 0xFF00:
                break
        await peer.release()
    assert message.command_field == C_GET_RSP
    assert (message.status, stored) == ((0x0000, ["1.2.1", "1.2.2"]) if assume else (0xA702, []))


# The maximum length.


@pytest.mark.parametrize(
    ("asked", "most", "announced"),
    [(65_536, None, 65_536), (65_536, 16_384, 16_384), (0, 16_384, 16_384), (0, None, 0)],
)
async def test_the_maximum_length_that_is_announced(asked: int, most: int | None, announced: int) -> None:
    profile = PeerProfile(maximum_length=most)
    request = await proposal(maximum_length=asked, profile=profile)
    assert request.user_information.maximum_length == announced


async def test_the_maximum_length_that_an_acceptor_and_a_mover_announce() -> None:
    profile = PeerProfile(maximum_length=28_672)
    assert (await answer_to(profile)).user_information.maximum_length == 28_672
    assert (await answer_to(None)).user_information.maximum_length == 131_072
    (association,) = await moved(profile)
    assert association.request.user_information.maximum_length == 28_672


# Operations of an association.


async def test_no_more_operations_are_begun_than_an_association_takes() -> None:
    async with scripted(finish, profile=PeerProfile(operations=1)) as assoc:
        assert assoc.operations_left == 1
        await assoc.echo()
        assert assoc.operations_left == 0
        for operation in (assoc.echo(), assoc.store(ct_instance()), anext(assoc.find(PatientID="1"))):
            with pytest.raises(LocalProtocolError, match="allows 1 operations on an association"):
                await operation


async def test_a_query_that_takes_more_requests_than_are_left_is_refused_before_anything_is_sent() -> None:
    profile = PeerProfile(operations=2, uid_lists=False)
    async with scripted(finish, profile=profile) as assoc:
        with pytest.raises(LocalProtocolError, match="takes 3 requests"):
            await anext(assoc.find(StudyInstanceUID=["1", "2", "3"], level="STUDY"))
        await assoc.echo()


async def test_a_pool_associates_again_when_an_association_takes_no_more() -> None:
    services = Services()
    associations: list[AssociationRequest] = []
    services.on_associate(associations.append)
    async with Server(services, "PEER@127.0.0.1:0", drain=0) as server:
        options: dict[str, Any] = {"contexts": [sop.VERIFICATION], "size": 1, "profile": PeerProfile(operations=2)}
        async with asyncdicom.AssociationPool(server.addresses[0], **options) as pool:
            for _ in range(5):
                await pool.echo()
    assert len(associations) == 3


async def test_a_mover_associates_again_when_an_association_takes_no_more() -> None:
    assert len(await moved(PeerProfile(operations=1))) == 2
    assert len(await moved(PeerProfile(operations=2))) == 1
    assert len(await moved(None)) == 1


class OnePerAssociation(Pacs):
    """A peer that remembers on which association each request came."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.numbers: list[int] = []

    def note(self, request: FindRequest | RetrieveRequest) -> dict[str, list[str]]:
        self.numbers.append(request.association.number)
        return super().note(request)


@pytest.mark.parametrize("via", ["get", "move"])
@pytest.mark.parametrize("lists", [True, False])
async def test_a_retrieval_associates_again_for_each_request(via: Any, lists: bool) -> None:
    items = study(3)
    pacs = OnePerAssociation(items)
    options: dict[str, Any] = {"listen": "HERE@127.0.0.1:0"} if via == "move" else {}
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(
            address,
            SOPInstanceUID=[one.uid for one in items],
            StudyInstanceUID=items[0].study,
            SeriesInstanceUID=items[0].series,
            via=via,
            profile=PeerProfile(operations=1, uid_lists=lists),
            **options,
        )
        pacs.knows("HERE", retrieval)
        async with retrieval:
            received = {instance.sop_instance_uid: await instance.read() async for instance in retrieval}
    assert received == {one.uid: one.data for one in items}
    assert retrieval.missing == 0
    assert len(pacs.numbers) == len(set(pacs.numbers)) > 0
    requests = [keys["SOPInstanceUID"] for kind, _, keys in pacs.asked if kind == via]
    each = [[one.uid] for one in items]
    assert requests == ([[one.uid for one in items]] if lists else each)


# C-CANCEL.


async def leave(assoc: asyncdicom.Association) -> asyncdicom.Find:
    found = assoc.find(PatientID="1", limit=1)
    assert [match.PatientID async for match in found] == ["1"]
    return found


async def test_an_operation_is_drained_where_it_cannot_be_cancelled() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        for number in range(5):
            await peer.respond(request, 0xFF00, identifier(str(number + 1)))
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, profile=PeerProfile(cancel=False)) as assoc:
        found = await leave(assoc)
        assert found.response is not None
        assert (found.response.status, found.truncated) == (0x0000, True)
        await assoc.echo()


async def test_an_iterator_that_was_dropped_is_drained_where_it_cannot_be_cancelled() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, identifier("1"))
        await peer.respond(request, 0xFF00, identifier("2"))
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, profile=PeerProfile(cancel=False)) as assoc:
        async for _ in assoc.find(PatientID="1"):
            break
        await assoc.echo()


async def test_what_is_not_drained_in_time_is_aborted() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, identifier("1"))
        await expect_abort(peer)

    async with scripted(script, profile=PeerProfile(cancel=False), timeouts=Timeouts(cancel=0.05)) as assoc:
        await leave(assoc)
        with pytest.raises(AssociationAborted, match="did not end in time"):
            await assoc.echo()


# Queries.


async def asked(profile: PeerProfile, **keys: Any) -> list[Dataset]:
    """Return the identifiers that a query is asked by."""
    seen: list[Dataset] = []

    async def script(peer: ScriptedPeer) -> None:
        while (request := await peer.expect_message()).command_field == C_FIND_RQ:
            assert request.data_set is not None
            seen.append(decode_data_set(request.data_set, sop.EXPLICIT_VR_LITTLE_ENDIAN))
            await peer.respond(request, 0x0000)
        assert request.command_field == C_ECHO_RQ
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(script, profile=profile) as assoc:
        assert [match async for match in assoc.find(level="STUDY", **keys)] == []
        await assoc.echo()
    return seen


#: A profile, keys, and the values that are asked by in turn.
QUERIES: list[tuple[PeerProfile, dict[str, Any], list[tuple[Any, ...]]]] = [
    (PeerProfile(), {"StudyInstanceUID": ["1.2", "1.3"]}, [(["1.2", "1.3"],)]),
    (PeerProfile(uid_lists=False), {"StudyInstanceUID": ["1.2", "1.3"]}, [("1.2",), ("1.3",)]),
    (PeerProfile(), {"StudyDate": "20240101-20240102"}, [("20240101-20240102",)]),
    (PeerProfile(date_ranges=False), {"StudyDate": "20240101-20240102"}, [("20240101",), ("20240102",)]),
    (PeerProfile(), {"StudyDate": "*", "PatientID": "*"}, [("*", "*")]),
    (PeerProfile(date_wildcards=False), {"StudyDate": "*", "PatientID": "*"}, [("", "*")]),
    (PeerProfile(date_wildcards=False), {"StudyDate": "202402*"}, [("20240201-20240229",)]),
    (PeerProfile(universal_wildcard=False), {"StudyDate": "*", "PatientID": "*"}, [("", "")]),
]


@pytest.mark.parametrize(("profile", "keys", "values"), QUERIES)
async def test_a_query_is_said_as_the_peer_understands_it(
    profile: PeerProfile, keys: dict[str, Any], values: list[tuple[Any, ...]]
) -> None:
    found = [tuple(identifier[key].value or "" for key in keys) for identifier in await asked(profile, **keys)]
    assert found == values


# Profiles of a server, and values that make no sense.


async def test_profiles_may_be_given_by_a_function_that_awaits() -> None:
    titles: list[str] = []

    async def profiles(title: str) -> PeerProfile | None:
        await anyio.lowlevel.checkpoint()
        titles.append(title)
        return PeerProfile(maximum_length=4096) if title == "SCRIPTED" else None

    async with served(two_instances(), *CONTEXTS, profiles=profiles) as peer:
        assert peer.answer is not None
        assert peer.answer.user_information.maximum_length == 4096
        await peer.release()
    assert titles == ["SCRIPTED"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_peer_whose_profile_cannot_be_told_is_rejected(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def profiles(title: str) -> PeerProfile:
        if hangs:
            await anyio.sleep_forever()
        raise RuntimeError(title)

    options: dict[str, Any] = {"server_options": {"profiles": profiles}}
    if hangs:
        options["server_timeouts"] = Timeouts(associate=0.05)
    with pytest.raises(asyncdicom.AssociationRejected) as caught:
        async with connected(two_instances(), [sop.STUDY_ROOT_MOVE], **options):
            raise AssertionError
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 1)
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == ["ERROR"]


def test_a_profile_is_a_value_and_its_defaults_are_those_of_who_keeps_to_the_standard() -> None:
    assert PeerProfile() == PeerProfile(storage_roles="both") != PeerProfile(cancel=False)
    assert len({PeerProfile(), PeerProfile(), PeerProfile(operations=1)}) == 2
    assert pickle.loads(pickle.dumps(PeerProfile(operations=1))) == PeerProfile(operations=1)
    with pytest.raises(TypeError):
        PeerProfile(False)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        PeerProfile().cancel = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"storage_roles": "scu"}, "storage_roles"),
        ({"strict_roles": True, "assume_roles": True}, "strict_roles"),
        ({"strict_roles": True, "storage_roles": "none"}, "strict_roles"),
        ({"maximum_length": 0}, "maximum_length"),
        ({"maximum_length": 7}, "maximum_length"),
        ({"operations": 0}, "operations"),
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PeerProfile(**options)
