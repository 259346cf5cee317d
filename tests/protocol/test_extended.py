"""Service-class-application-information by name: PS3.4 Tables B.3-1, C.5-1 and C.5-3, byte by byte."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncdicom
from asyncdicom import FindNegotiation, RetrieveNegotiation, StorageNegotiation, sop
from asyncdicom.protocol.extended import read_information
from asyncdicom.testing import ScriptedPeer

from ..harness import finish, scripted

FIND_FLAGS = (
    "relational",
    "combined_date_time",
    "fuzzy",
    "timezone",
    "enhanced_conversion",
    "empty_value",
    "multiple_value",
)

#: The field, and its bytes on the wire.
FIELDS: list[tuple[bytes, bytes]] = [
    (FindNegotiation(), b"\0"),
    *((FindNegotiation(**{name: True}), bytes(place) + b"\1") for place, name in enumerate(FIND_FLAGS)),
    (FindNegotiation(relational=True, fuzzy=True), b"\1\0\1"),
    (FindNegotiation(**dict.fromkeys(FIND_FLAGS, True)), b"\1" * 7),
    (RetrieveNegotiation(), b"\0"),
    (RetrieveNegotiation(relational=True), b"\1"),
    (RetrieveNegotiation(enhanced_conversion=True), b"\0\1"),
    (RetrieveNegotiation(relational=True, enhanced_conversion=True), b"\1\1"),
    (StorageNegotiation(), b"\3\0\0\0\2\0"),
    (StorageNegotiation(level=2, digital_signature=3, element_coercion=1), b"\2\0\3\0\1\0"),
    (StorageNegotiation(level=0, element_coercion=0), bytes(6)),
]


@pytest.mark.parametrize(("field", "encoded"), FIELDS, ids=[repr(field) for field, _ in FIELDS])
def test_a_field_is_its_bytes_and_reads_back(field: Any, encoded: bytes) -> None:
    assert bytes(field) == encoded
    assert field == encoded
    again = type(field).read(encoded)
    assert repr(again) == repr(field)
    assert repr(pickle.loads(pickle.dumps(field))) == repr(field)


@given(st.binary(max_size=10))
def test_any_bytes_can_be_read(information: bytes) -> None:
    find = FindNegotiation.read(information)
    padded = information.ljust(7, b"\0")
    assert [getattr(find, name) for name in FIND_FLAGS] == [byte == 1 for byte in padded[:7]]
    retrieve = RetrieveNegotiation.read(information)
    assert (retrieve.relational, retrieve.enhanced_conversion) == (padded[0] == 1, padded[1] == 1)
    storage = StorageNegotiation.read(information)
    default = information + b"\3\0\0\0\2\0"[len(information) :]
    assert (storage.level, storage.digital_signature, storage.element_coercion) == (default[0], default[2], default[4])
    assert bytes(find) == bytes(retrieve) == bytes(storage) == information


@pytest.mark.parametrize("options", [{"level": 4}, {"level": -1}, {"digital_signature": 4}, {"element_coercion": 3}])
def test_a_level_that_does_not_exist_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        StorageNegotiation(**options)


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        *((uid, FindNegotiation) for uid in sop.FIND),
        *((uid, RetrieveNegotiation) for uid in (*sop.MOVE, *sop.GET)),
        (sop.CT_IMAGE_STORAGE, StorageNegotiation),
        (sop.VERIFICATION, bytes),
        ("1.2.3", bytes),
    ],
)
def test_the_sop_class_says_how_a_field_is_read(sop_class: str, kind: type) -> None:
    found = read_information(sop_class, b"\1\1")
    assert type(found) is kind
    assert found == b"\1\1"


@pytest.mark.anyio
async def test_a_requestor_proposes_by_name_and_reads_the_answer_by_name() -> None:
    answer = {sop.STUDY_ROOT_FIND: b"\1\0\0", sop.CT_IMAGE_STORAGE: b"\2\0\3\0\0\0"}
    seen: list[Any] = []

    async def script(peer: ScriptedPeer) -> None:
        assert peer.request is not None
        seen.extend(peer.request.user_information.extended_negotiation)
        await finish(peer)

    async with scripted(
        script,
        extended_negotiation={
            sop.STUDY_ROOT_FIND: FindNegotiation(relational=True, fuzzy=True),
            sop.STUDY_ROOT_GET: RetrieveNegotiation(relational=True),
            sop.CT_IMAGE_STORAGE: StorageNegotiation(),
        },
        accept={"extended_negotiation": answer},
    ) as assoc:
        agreed = assoc.extended_negotiation
        assert agreed == answer
        find, storage = agreed[sop.STUDY_ROOT_FIND], agreed[sop.CT_IMAGE_STORAGE]
        assert isinstance(find, FindNegotiation)
        assert (find.relational, find.fuzzy) == (True, False)
        assert isinstance(storage, StorageNegotiation)
        assert (storage.level, storage.digital_signature, storage.element_coercion) == (2, 3, 0)
        await assoc.echo()
    assert {item.sop_class_uid: item.information for item in seen} == {
        sop.STUDY_ROOT_FIND: b"\1\0\1",
        sop.STUDY_ROOT_GET: b"\1",
        sop.CT_IMAGE_STORAGE: b"\3\0\0\0\2\0",
    }


@pytest.mark.anyio
async def test_an_acceptor_answers_by_name() -> None:
    proposed: list[bytes] = []
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> None:
        agreed = request.association.extended_negotiation[sop.STUDY_ROOT_FIND]
        assert isinstance(agreed, FindNegotiation)
        assert agreed.relational

    def answer(information: bytes) -> bytes:
        proposed.append(information)
        return FindNegotiation(relational=isinstance(information, FindNegotiation) and information.relational)

    services.extended_negotiation[sop.STUDY_ROOT_FIND] = answer
    asked = FindNegotiation(relational=True, timezone=True)
    async with asyncdicom.testing.connected(
        services, [sop.STUDY_ROOT_FIND], extended_negotiation={sop.STUDY_ROOT_FIND: asked}
    ) as assoc:
        assert assoc.extended_negotiation == {sop.STUDY_ROOT_FIND: b"\1"}
        assert [match async for match in assoc.find(PatientID="1")] == []
    assert proposed == [asked]
