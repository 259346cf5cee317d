"""Retrieving by C-GET: what is proposed, what is asked, what comes, and what is asked for again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import asyncdicom
from asyncdicom import Limits, NoPresentationContext, RetrieveRequest, StatusError, sop

from .pacs import CT, MR, Item, Pacs, item, study

pytestmark = pytest.mark.anyio

NATIVE = (sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN)


async def collect(instances: asyncdicom.Retrieval) -> dict[str, bytes]:
    """Read every instance."""
    async with instances:
        return {instance.sop_instance_uid: await instance.read() async for instance in instances}


def data_of(items: list[Item]) -> dict[str, bytes]:
    return {one.uid: one.data for one in items}


ITEMS = [*study(2), *study(2, series=2, sop_class=MR), *study(1, study=2)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"PatientID": "P1", "level": "PATIENT"}, ITEMS[:4]),
        ({"PatientID": "P1"}, ITEMS[:4]),
        ({"StudyInstanceUID": "1.2.1"}, ITEMS[:4]),
        ({"StudyInstanceUID": ["1.2.1", "1.2.2"]}, ITEMS),
        ({"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.2"}, ITEMS[2:4]),
        ({"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "SOPInstanceUID": "1.2.1.1.2"}, ITEMS[1:2]),
        ({"StudyInstanceUID": "1.2.3"}, []),
        ({"StudyInstanceUID": "1.2.1", "model": sop.PATIENT_ROOT_FIND, "PatientID": "P1"}, ITEMS[:4]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("classes_in_study", [False, True])
@pytest.mark.parametrize("finds", [True, False])
async def test_what_is_asked_for_comes_at_every_level(
    keys: dict[str, Any], expected: list[Item], classes_in_study: bool, finds: bool
) -> None:
    pacs = Pacs(ITEMS, classes_in_study=classes_in_study, finds=finds)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, **keys)
        assert await collect(retrieval) == data_of(expected)
    assert (retrieval.via, retrieval.received, retrieval.missing) == ("get", len(expected), 0)
    assert retrieval.response is not None
    assert retrieval.response.status == 0x0000
    assert len(retrieval.responses) == 1
    assert retrieval.progress.completed == len(expected)
    assert not retrieval.truncated
    if finds and not classes_in_study:
        assert retrieval.expected == len(expected)


async def test_a_bare_loop_does_the_same() -> None:
    pacs = Pacs(study())
    async with pacs.serve() as address:
        received = [one.sop_instance_uid async for one in asyncdicom.retrieve(address, StudyInstanceUID="1.2.1")]
        assert received == list(pacs.items)
        assert not pacs.server.associations


async def test_the_classes_that_are_concerned_are_proposed_with_a_context_for_each_compressed_syntax() -> None:
    pacs = Pacs([*study(1), *study(1, series=2, sop_class=MR)])
    async with pacs.serve() as address:
        await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))
    question, retrieval = pacs.proposed(0), pacs.proposed(1)
    assert sop.STUDY_ROOT_FIND in question
    assert not any(sop.is_storage(uid) for uid in question)
    assert sop.STUDY_ROOT_GET in retrieval
    assert len(pacs.associations[1].contexts) <= 128
    for sop_class in (CT, MR):
        proposed = retrieval[sop_class]
        assert proposed[0] == NATIVE
        single = {syntaxes[0] for syntaxes in proposed if len(syntaxes) == 1}
        assert single >= {sop.JPEG_2000, sop.JPEG_BASELINE_8BIT, sop.RLE_LOSSLESS, sop.HTJ2K}
        assert len(proposed) == len(single) + 1
    roles = {role.sop_class_uid: (role.scu, role.scp) for role in pacs.associations[1].request.user_information.roles}
    assert roles[CT] == (True, True)


async def test_without_an_answer_which_classes_are_concerned_the_common_ones_are_proposed() -> None:
    pacs = Pacs(study(), finds=False)
    async with pacs.serve() as address:
        await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))
    proposed = pacs.proposed(1)
    assert set(sop.STORAGE_COMMON) <= proposed.keys()
    assert all(proposed[uid][0] == NATIVE for uid in sop.STORAGE_COMMON)


@pytest.mark.parametrize("status", [0xA700, 0xC001, 0xA900])
async def test_a_query_that_fails_is_no_reason_not_to_retrieve(status: int) -> None:
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[tuple[int, None]]:
        yield status, None

    pacs = Pacs(study(), find=find)
    async with pacs.serve() as address:
        assert await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1")) == data_of(study())


async def test_a_study_that_says_which_classes_it_has_is_not_asked_for_each_instance() -> None:
    pacs = Pacs(study(), classes_in_study=True)
    async with pacs.serve() as address:
        await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))
    assert [asked[:2] for asked in pacs.asked] == [("find", "STUDY"), ("get", "STUDY")]
    assert len(pacs.proposed(1)[CT]) > 30


@pytest.mark.parametrize("syntax", [sop.JPEG_2000_LOSSLESS, sop.RLE_LOSSLESS, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
async def test_instances_come_in_the_transfer_syntax_that_they_are_stored_in(syntax: str) -> None:
    pacs = Pacs(study(syntax=syntax))
    async with pacs.serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1") as instances:
            async for instance in instances:
                assert instance.transfer_syntax_uid == syntax
                assert await instance.read() == pacs.items[instance.sop_instance_uid].data
        assert instances.received == 3


# What did not come is asked for again.

MIXED = [*study(2), *study(3, series=2, syntax=sop.JPEG_2000), item(9, series=2, syntax=sop.RLE_LOSSLESS)]


@pytest.mark.parametrize("classes_in_study", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        {"StudyInstanceUID": "1.2.1"},
        {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": ["1.2.1.1", "1.2.1.2"]},
        {"PatientID": "P1", "level": "PATIENT"},
    ],
    ids=lambda keys: list(keys)[-1],
)
async def test_what_did_not_fit_in_the_first_association_comes_on_further_ones(
    keys: dict[str, Any], classes_in_study: bool
) -> None:
    pacs = Pacs(MIXED, classes_in_study=classes_in_study)
    async with pacs.serve() as address:
        # Beside the classes of the service there is room for two.
        retrieval = asyncdicom.retrieve(address, **keys, limits=Limits(contexts=4))
        assert await collect(retrieval) == data_of(MIXED)
    assert retrieval.missing == 0
    assert retrieval.progress == asyncdicom.Progress(0, 6, 0, 0)
    again = [asked for asked in pacs.asked if asked[0] == "get"][1:]
    assert {level for _, level, _ in again} == {"IMAGE"}
    assert again[0][2]["SeriesInstanceUID"] == ["1.2.1.2"]
    assert again[0][2]["SOPInstanceUID"] == [one.uid for one in MIXED[2:]]
    assert again[-1][2]["SOPInstanceUID"] == ["1.2.1.2.9"]
    proposed = [set(pacs.proposed(number)[CT]) for number in range(1, len(pacs.associations))]
    assert sum(map(len, proposed)) == len(set.union(*proposed)), "a context was proposed twice"


async def test_instances_that_are_named_are_asked_for_again_with_the_keys_above_them() -> None:
    items = study(3, syntax=sop.RLE_LOSSLESS)
    keys: dict[str, Any] = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"}
    pacs = Pacs(items)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(
            address, keys, SOPInstanceUID=[one.uid for one in items], limits=Limits(contexts=4)
        )
        assert await collect(retrieval) == data_of(items)
    asked = [keys for kind, _, keys in pacs.asked if kind == "get"]
    assert all(one["SeriesInstanceUID"] == ["1.2.1.1"] for one in asked)


async def test_what_cannot_be_located_is_asked_for_with_all_the_rest_and_nothing_comes_twice() -> None:
    items = [*study(2), *study(2, series=2, syntax=sop.JPEG_LOSSLESS_SV1)]
    pacs = Pacs(items, finds=False)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limits=Limits(contexts=101))
        async with retrieval:
            received = [instance.sop_instance_uid async for instance in retrieval]
    assert sorted(received) == sorted(pacs.items)
    assert {level for _, level, _ in pacs.asked} == {"STUDY"}


async def test_a_peer_that_does_not_say_what_failed_is_asked_for_all_that_it_has() -> None:
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        pacs.note(request)
        request.total = 4
        for uid in ("1.2.1.1.1", "1.2.1.1.2"):
            if request.identifier.get("SOPInstanceUID") in (None, uid) and request.level == "STUDY":
                yield pacs.items[uid].instance()
        if request.level == "IMAGE":
            request.total = 2
            for uid in request.identifier.SOPInstanceUID:
                yield pacs.items[uid].instance()

    items = [*study(2), item(3, syntax=sop.JPEG_2000_LOSSLESS), item(4, syntax=sop.JPEG_2000_LOSSLESS)]
    pacs = Pacs(items, retrieve=retrieve)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limits=Limits(contexts=4))
        assert await collect(retrieval) == data_of(items)
    assert [response.status for response in retrieval.responses] == [0xB000, 0x0000]
    assert retrieval.missing == 0


async def test_what_the_peer_has_lost_is_missing_when_nothing_is_left_to_propose() -> None:
    pacs = Pacs([*study(2), item(3, is_gone=True)])
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1")
        assert await collect(retrieval) == data_of(study(2))
    assert (retrieval.missing, retrieval.missing_sop_instance_uids) == (1, ["1.2.1.1.3"])
    assert retrieval.progress.failed == 1
    assert len(pacs.associations) < 5


async def test_associations_that_can_bring_nothing_are_not_used() -> None:
    pacs = Pacs([item(1), item(2, is_gone=True)], accepts=lambda _, syntax: sop.transfer_syntax(syntax) in NATIVE)
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limits=Limits(contexts=12))
        await collect(retrieval)
    assert retrieval.missing == 1
    # The first, and the one that proposes Implicit VR for itself.
    assert len(retrieval.responses) == 2


async def test_what_we_refused_is_not_asked_for_again() -> None:
    pacs = Pacs(study())
    async with pacs.serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1") as instances:
            async for instance in instances:
                instance.status = 0x0000 if instance.sop_instance_uid.endswith(".2") else 0xA700
    assert instances.received == 3
    assert instances.progress.failed == 2
    assert instances.missing == 0
    assert len(instances.responses) == 1


async def test_long_lists_of_uids_are_divided() -> None:
    uids = [f"1.2.1.1.{number:050}" for number in range(1, 3001)]
    pacs = Pacs([])
    async with pacs.serve() as address:
        keys = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "SOPInstanceUID": uids}
        retrieval = asyncdicom.retrieve(address, keys)
        await collect(retrieval)
    asked = [keys["SOPInstanceUID"] for kind, _, keys in pacs.asked if kind == "get"]
    assert len(asked) == 3
    assert [uid for chunk in asked for uid in chunk] == uids
    assert max(len("\\".join(chunk)) for chunk in asked) <= 65534
    assert len(retrieval.responses) == 3


# Failures.


@pytest.mark.parametrize(("status", "error"), [(0xA701, None), (0xA900, "no"), (0xC001, None), (0xFE00, None)])
async def test_a_request_that_fails_raises_and_is_not_repeated(status: int, error: str | None) -> None:
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 3
        yield study()[0].instance()
        yield status, None

    pacs = Pacs(study(), retrieve=retrieve)
    async with pacs.serve() as address:
        with pytest.raises(StatusError) as caught:
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))
        assert not pacs.server.associations
    assert caught.value.status == status
    assert len(pacs.associations) == 2


async def test_a_retrieval_of_which_nothing_came_raises_its_failure() -> None:
    async with Pacs([item(1, is_gone=True)]).serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1")
        with pytest.raises(StatusError) as caught:
            await collect(retrieval)
    assert caught.value.status == 0xA702
    assert retrieval.missing_sop_instance_uids == ["1.2.1.1.1"]


@pytest.mark.parametrize("status", [0xA900, 0xFE00, 0xC001])
@pytest.mark.parametrize("via", ["get", "move"])
async def test_an_unchecked_retrieval_that_fails_just_ends(status: int, via: Any) -> None:
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        yield status, None

    async with Pacs(study(), retrieve=retrieve).serve() as address:
        retrieval = asyncdicom.retrieve(
            address, StudyInstanceUID="1.2.1", check=False, via=via, listen="HERE@127.0.0.1:0"
        )
        with pytest.raises(StopAsyncIteration):
            await anext(retrieval)
    assert retrieval.failure is not None
    assert retrieval.failure.status == (status if via == "get" else 0xA801)


async def test_so_does_one_of_which_nothing_came() -> None:
    async with Pacs([item(1, is_gone=True)]).serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", check=False)
        assert await collect(retrieval) == {}
    assert {response.status for response in retrieval.responses} == {0xA702}
    assert retrieval.failure is not None
    assert retrieval.missing == 1


async def test_an_abort_of_the_peer_ends_it() -> None:
    async def before(request: RetrieveRequest) -> None:
        await request.association.abort()

    pacs = Pacs(study(), before=before)
    async with pacs.serve() as address:
        with pytest.raises(asyncdicom.AssociationAborted):
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1"))


async def test_a_peer_that_is_not_there_is_known_when_the_block_is_entered() -> None:
    with pytest.raises(asyncdicom.ConnectError):
        async with asyncdicom.retrieve("NOBODY@127.0.0.1:1", StudyInstanceUID="1.2.1"):
            raise AssertionError


async def test_limits_that_leave_no_room_for_storage_are_refused() -> None:
    async with Pacs(study()).serve() as address:
        with pytest.raises(asyncdicom.LocalProtocolError, match=r"Limits\.contexts"):
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limits=Limits(contexts=2)))


# Roles.


async def test_a_peer_that_grants_no_role_is_answered_all_the_same() -> None:
    pacs = Pacs(study())

    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        # As Horos does: the sub-operations come on contexts whose role was not negotiated.
        association: Any = request.association
        association._may_invoke = lambda context, *, scp=False: True
        request.total = 3
        for one in pacs.items.values():
            yield one.instance()

    lenient = Pacs(study(), retrieve=retrieve, roles=False)
    async with lenient.serve() as address:
        assert await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1")) == data_of(study())


async def test_with_strict_roles_it_is_not() -> None:
    async with Pacs(study(), roles=False).serve() as address:
        with pytest.raises(NoPresentationContext, match="no storage SOP class"):
            await collect(asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", strict_roles=True, via="get"))


# What the loop does with instances.


@pytest.mark.parametrize(
    ("treat", "expected"),
    [
        ("skip", 0x0000),
        ("accept", 0x0000),
        ("refuse", 0xA900),
        ("fail to save", 0xA700),
    ],
)
@pytest.mark.parametrize("via", ["get", "move"])
async def test_the_loop_decides_how_an_instance_is_answered(
    treat: str, expected: int, via: Any, tmp_path: Path
) -> None:
    pacs = Pacs(study(1))
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(
            address, StudyInstanceUID="1.2.1", via=via, check=False, listen="HERE@127.0.0.1:0"
        )
        pacs.knows("HERE", retrieval)
        async with retrieval:
            async for instance in retrieval:
                if treat == "accept":
                    instance.accept()
                elif treat == "refuse":
                    instance.status = expected
                elif treat == "fail to save":
                    with pytest.raises(OSError, match=r"nowhere|directory"):
                        await instance.save(tmp_path / "nowhere" / "file.dcm")
    progress = retrieval.progress
    assert (progress.completed, progress.failed) == ((1, 0) if not expected else (0, 1))


async def test_an_instance_is_over_when_the_next_one_is_asked_for() -> None:
    async with Pacs(study()).serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1") as instances:
            first = await anext(instances)
            await anext(instances)
            with pytest.raises(asyncdicom.LocalProtocolError):
                await first.read()


async def test_files_are_saved_as_they_are(tmp_path: Path) -> None:
    async with Pacs(study()).serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1") as instances:
            async for instance in instances:
                await instance.save(tmp_path / f"{instance.sop_instance_uid}.dcm")
    for one in study():
        assert (tmp_path / f"{one.uid}.dcm").read_bytes().endswith(one.data)


async def test_progress_is_that_of_all_requests_together() -> None:
    pacs = Pacs(MIXED)
    seen: list[Any] = []
    async with pacs.serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limits=Limits(contexts=4)) as instances:
            async for _ in instances:
                seen.append(instances.progress)
    # What failed at first counts as remaining once it is asked for again.
    assert [(p.remaining, p.completed, p.failed) for p in seen][1:3] == [(5, 1, 0), (4, 2, 0)]
    assert all(p.total in (None, 6) for p in seen)


async def test_limit_is_the_most_that_is_yielded() -> None:
    pacs = Pacs(study(10))
    async with pacs.serve() as address:
        retrieval = asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", limit=2)
        assert len(await collect(retrieval)) == 2
        assert retrieval.truncated
    assert pacs.cancelled == 1


# The models that know instances alone.


async def test_a_study_without_bulk_data_is_asked_for_instance_by_instance() -> None:
    pacs = Pacs(study(), models=["STUDY_ROOT", "COMPOSITE_INSTANCE_WITHOUT_BULK_DATA"])
    model = sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
    async with pacs.serve() as address:
        async with asyncdicom.retrieve(address, StudyInstanceUID="1.2.1", model=model) as instances:
            async for instance in instances:
                assert instance.bulk_data_removed
        assert (instances.received, instances.expected, instances.model) == (3, 3, model)
    assert pacs.asked[-1] == ("get", "IMAGE", {"SOPInstanceUID": list(pacs.items)})


async def test_without_a_query_they_cannot_be_found() -> None:
    pacs = Pacs(study(), finds=False, models=["STUDY_ROOT", "COMPOSITE_INSTANCE_WITHOUT_BULK_DATA"])
    async with pacs.serve() as address:
        with pytest.raises(NoPresentationContext, match="FIND"):
            await collect(
                asyncdicom.retrieve(
                    address, StudyInstanceUID="1.2.1", model=sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
                )
            )
