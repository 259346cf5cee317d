"""Extended negotiation: answered with what is supported, and honoured (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncdicom import Association, StatusError, StorageNegotiation, sop
from asyncdicom.archive import Archive

from .corpus import instance
from .serving import QUERY_RETRIEVE, archived, associated, fill, got

pytestmark = pytest.mark.anyio

RELATIONAL, COMBINED, FUZZY, TIMEZONE = (bytes(int(place == n) for place in range(4)) for n in range(4))


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    """Give an archive of four studies, one instance each."""

    def study(number: int, name: str, when: str, **values: Any) -> Any:
        date, time = when.split()
        values |= {"SpecificCharacterSet": "ISO_IR 192", "StudyDate": date, "StudyTime": time}
        return instance(1, study=number, patient=f"P{number}", PatientName=name, **values)

    fill(
        tmp_path,
        [
            study(1, "Müller^Jörg", "20231231 235959"),
            study(2, "Doe^John", "20240131 103015.5"),
            study(3, "Doe^Jane", "20240229 100000"),
            study(4, "Roe^Richard", "20240301 003000", TimezoneOffsetFromUTC="+0100"),
        ],
    )
    async with archived(tmp_path) as opened:
        yield opened


#: SOP classes, what is proposed, and what is answered; ``None`` is no answer.
ANSWERS: list[tuple[tuple[str, ...], bytes, bytes | None]] = [
    (sop.FIND, b"\x01", b"\x01"),
    (sop.FIND, b"\x00", b"\x00"),
    (sop.FIND, b"\x00\x01", b"\x00\x01"),
    (sop.FIND, b"\x01\x01\x01", b"\x01\x01\x01"),
    (sop.FIND, b"\x01\x01\x01\x01\x01", b"\x01\x01\x01\x01\x00"),
    (sop.FIND, b"\x01\x00\x01\x00\x01\x01\x01", b"\x01\x00\x01\x00\x00\x01\x00"),
    (sop.FIND, b"\x01\x00\x00\x00\x00\x00\x00\x01\x01", b"\x01\x00\x00\x00\x00\x00\x00"),
    (sop.FIND, b"\x02\xff", b"\x00\x00"),
    ((*sop.MOVE, *sop.GET), b"\x01", b"\x01"),
    ((*sop.MOVE, *sop.GET), b"\x01\x01", b"\x01\x00"),
    ((*sop.MOVE, *sop.GET), b"\x00", b"\x00"),
    ((*sop.MOVE, *sop.GET), b"\x01\x01\x01", b"\x01\x00"),
]
#: They have a single level, and nothing to be relational about.
COMPOSITE = {
    sop.COMPOSITE_INSTANCE_ROOT_MOVE,
    sop.COMPOSITE_INSTANCE_ROOT_GET,
    sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
}


@pytest.mark.parametrize(("classes", "proposed", "answer"), ANSWERS, ids=[proposed.hex() for _, proposed, _ in ANSWERS])
async def test_what_is_proposed_and_supported_is_answered(
    archive: Archive, classes: tuple[str, ...], proposed: bytes, answer: bytes
) -> None:
    async with associated(archive, extended_negotiation=dict.fromkeys(classes, proposed)) as association:
        assert association.extended_negotiation == {uid: answer for uid in classes if uid not in COMPOSITE}


async def test_it_says_that_all_is_stored_and_comes_back_as_it_was(archive: Archive) -> None:
    classes = (sop.CT_IMAGE_STORAGE, sop.BASIC_TEXT_SR_STORAGE)
    proposed = dict.fromkeys(classes, StorageNegotiation())
    async with associated(archive, extended_negotiation=proposed) as association:
        answers = association.extended_negotiation
        assert answers == dict.fromkeys(classes, StorageNegotiation(level=2, digital_signature=3, element_coercion=0))


async def test_what_is_not_proposed_is_not_answered(archive: Archive) -> None:
    async with associated(archive) as association:
        assert association.extended_negotiation == {}


async def studies(association: Association, **keys: str) -> list[str]:
    query = {"StudyInstanceUID": "", **keys}
    return sorted([str(match.StudyInstanceUID) async for match in association.find(query, level="STUDY")])


async def test_a_relational_query_needs_no_keys_of_the_levels_above(archive: Archive) -> None:
    keys = {"SOPInstanceUID": "", "PatientName": "Doe*"}
    async with associated(archive) as association:
        with pytest.raises(StatusError) as raised:
            await anext(association.find(keys, level="IMAGE"))
        assert raised.value.status == 0xA900
    async with associated(archive, extended_negotiation={sop.STUDY_ROOT_FIND: RELATIONAL}) as association:
        found = [str(match.SOPInstanceUID) async for match in association.find(keys, level="IMAGE")]
    assert sorted(found) == ["1.2.3.2.1.1", "1.2.3.3.1.1"]


async def test_what_was_negotiated_for_one_class_says_nothing_of_another(archive: Archive) -> None:
    async with associated(archive, extended_negotiation={sop.PATIENT_ROOT_FIND: RELATIONAL}) as association:
        with pytest.raises(StatusError):
            await anext(association.find({"SOPInstanceUID": ""}, sop.STUDY_ROOT_FIND, level="IMAGE"))


async def test_a_relational_retrieval_needs_no_keys_of_the_levels_above(archive: Archive) -> None:
    keys: dict[str, Any] = {"level": "IMAGE", "SOPInstanceUID": ["1.2.3.2.1.1", "1.2.3.4.1.1"]}
    async with associated(archive) as association:
        assert (await got(association, sop.STUDY_ROOT_GET, check=False, **keys))[1].status == 0xA900
    async with associated(archive, extended_negotiation={sop.STUDY_ROOT_GET: RELATIONAL}) as association:
        instances, _ = await got(association, sop.STUDY_ROOT_GET, **keys)
    assert sorted(instances) == keys["SOPInstanceUID"]


async def test_a_combined_range_is_one_of_moments(archive: Archive) -> None:
    keys = {"StudyDate": "20231231-20240229", "StudyTime": "100000-110000"}
    async with associated(archive) as association:
        assert await studies(association, **keys) == ["1.2.3.2", "1.2.3.3"]
    async with associated(archive, extended_negotiation={sop.STUDY_ROOT_FIND: COMBINED}) as association:
        assert await studies(association, **keys) == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


async def test_fuzzy_matching_finds_names_that_sound_alike(archive: Archive) -> None:
    async with associated(archive) as association:
        assert await studies(association, PatientName="MULLER^JORG") == []
    async with associated(archive, extended_negotiation={sop.STUDY_ROOT_FIND: FUZZY}) as association:
        assert await studies(association, PatientName="MULLER^JORG") == ["1.2.3.1"]


async def test_dates_and_times_are_those_of_the_time_zone_of_the_query(archive: Archive) -> None:
    keys = {"StudyDate": "20240229", "StudyTime": "", "TimezoneOffsetFromUTC": "+0000"}
    async with associated(archive, extended_negotiation={sop.STUDY_ROOT_FIND: TIMEZONE}) as association:
        found = {
            str(match.StudyInstanceUID): (match.StudyDate, match.StudyTime, match.TimezoneOffsetFromUTC)
            async for match in association.find({"StudyInstanceUID": "", **keys}, level="STUDY")
        }
    assert found == {
        "1.2.3.3": ("20240229", "100000", "+0000"),  # which does not say where it is
        "1.2.3.4": ("20240229", "233000", "+0000"),
    }


def test_nothing_is_claimed_for_what_has_no_levels(tmp_path: Path) -> None:
    claimed = set(Archive(tmp_path).services.extended_negotiation) - set(sop.STORAGE)
    assert claimed == {*sop.FIND, *sop.MOVE, *sop.GET} - COMPOSITE
    assert set(QUERY_RETRIEVE) >= claimed
