"""The archive over associations: every level of every model, found, got and moved."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydicom.dataset import Dataset

from asyncdicom import Association, StatusError, StoreRequest, sop
from asyncdicom.archive import Archive
from asyncdicom.dataset import decode_data_set, encode_data_set
from asyncdicom.status import CANCEL

from ..harness import C_FIND_RQ, C_FIND_RSP, C_GET_RQ, C_GET_RSP, cancel_pdus, final, request_elements, served
from .corpus import family, instance
from .serving import QUERY_RETRIEVE, Destination, archived, associated, fill, got, instance_files, store

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def _family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    datasets = family()
    for dataset in datasets:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    fill(folder, datasets)
    return folder


@pytest.fixture
async def archive(_family: Path, tmp_path: Path) -> AsyncIterator[Archive]:
    """Give an archive of 13 instances of 8 patients."""
    folder = tmp_path / "archive"
    shutil.copytree(_family, folder)
    async with archived(folder) as opened:
        yield opened


def uid(*parts: int) -> str:
    return ".".join(map(str, (1, 2, 3, *parts)))


async def found(association: Association, model: str, keyword: str, **keys: object) -> list[str]:
    """Return the sorted values of a key in the matches of a C-FIND."""
    query: dict[str, object] = {keyword: "", **keys}
    return sorted([str(match[keyword].value or "") async for match in association.find(query, model)])


# C-FIND

FIND: list[tuple[str, str, dict[str, Any], list[str]]] = [
    (sop.PATIENT_ROOT_FIND, "PATIENT", {}, ["", "", "P1", "P1", "P2", "P8", "P9", "p1"]),
    (sop.PATIENT_ROOT_FIND, "PATIENT", {"PatientName": "doe*"}, ["P1", "p1"]),
    (sop.PATIENT_ROOT_FIND, "STUDY", {"PatientID": "P1"}, [uid(1), uid(2), uid(7)]),
    (sop.PATIENT_ROOT_FIND, "SERIES", {"PatientID": "P1", "StudyInstanceUID": uid(1)}, [uid(1, n) for n in (1, 2, 3)]),
    (
        sop.PATIENT_ROOT_FIND,
        "IMAGE",
        {"PatientID": "P1", "StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1)},
        [uid(1, 1, 1), uid(1, 1, 2)],
    ),
    (sop.STUDY_ROOT_FIND, "STUDY", {}, [uid(n) for n in (1, 1, 2, 3, 4, 5, 6, 7, 8)]),
    (sop.STUDY_ROOT_FIND, "STUDY", {"StudyInstanceUID": [uid(2), uid(4), uid(99)]}, [uid(2), uid(4)]),
    (sop.STUDY_ROOT_FIND, "STUDY", {"StudyDate": "20240101-20240201"}, [uid(1)]),
    (sop.STUDY_ROOT_FIND, "STUDY", {"PatientName": "YAMADA*"}, [uid(4)]),
    (sop.STUDY_ROOT_FIND, "SERIES", {"StudyInstanceUID": uid(1)}, [uid(1, n) for n in (1, 2, 3, 9)]),
    (sop.STUDY_ROOT_FIND, "SERIES", {"StudyInstanceUID": uid(1), "Modality": "SR"}, [uid(1, 2)]),
    (
        sop.STUDY_ROOT_FIND,
        "IMAGE",
        {"StudyInstanceUID": uid(8), "SeriesInstanceUID": uid(8, 1)},
        [uid(8, 1, 1), uid(8, 1, 2)],
    ),
    (sop.PATIENT_STUDY_ONLY_FIND, "PATIENT", {"PatientID": "P8"}, ["P8"]),
    (sop.PATIENT_STUDY_ONLY_FIND, "STUDY", {"PatientID": "P8"}, [uid(8)]),
    (sop.STUDY_ROOT_FIND, "STUDY", {"PatientID": "nobody"}, []),
    (sop.PATIENT_ROOT_FIND, "SERIES", {"PatientID": "P1", "StudyInstanceUID": uid(99)}, []),
]
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@pytest.mark.parametrize(
    ("model", "level", "keys", "expected"),
    FIND,
    ids=[f"{sop.lookup(model).keyword[:12]}-{level}-{number}" for number, (model, level, *_) in enumerate(FIND)],
)
async def test_each_entity_of_a_level_is_found_once(
    archive: Archive, model: str, level: str, keys: dict[str, Any], expected: list[str]
) -> None:
    async with associated(archive) as association:
        assert await found(association, model, UNIQUE[level], QueryRetrieveLevel=level, **keys) == expected


async def test_a_response_says_what_it_is_and_where_from(archive: Archive) -> None:
    async with associated(archive) as association:
        (match,) = [
            match
            async for match in association.find(
                {"PatientID": "P8", "PatientName": "", "NumberOfStudyRelatedInstances": "", "ModalitiesInStudy": ""},
                sop.STUDY_ROOT_FIND,
                level="STUDY",
            )
        ]
    assert match.QueryRetrieveLevel == "STUDY"
    assert match.RetrieveAETitle == "ARCHIVE"
    assert match.InstanceAvailability == "ONLINE"
    assert (match.PatientName, match.NumberOfStudyRelatedInstances, match.ModalitiesInStudy) == ("O'Brien^Pat", 2, "CT")


async def test_a_response_has_the_character_set_that_it_needs(archive: Archive) -> None:
    async with associated(archive) as association:
        names = {
            str(match.PatientID): (match.get("SpecificCharacterSet", ""), str(match.PatientName))
            async for match in association.find({"PatientID": "", "PatientName": ""}, level="STUDY")
        }
    assert names["P2"] == ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert names["P8"] == ("", "O'Brien^Pat")


async def refused(association: Association, model: str, identifier: bytes) -> StatusError:
    """Return what an operation fails with before anything else comes."""
    operation: AsyncIterator[object]
    if model in sop.FIND:
        operation = association.find(identifier, model)
    elif model in sop.GET:
        operation = association.get(identifier, model)
    else:
        operation = association.move(identifier, model, destination="DEST")
    with pytest.raises(StatusError) as raised:
        await anext(operation)
    return raised.value


def query(**keys: object) -> bytes:
    """Encode an identifier in Explicit VR Little Endian."""
    ds = Dataset()
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN)


SUPPORTED = query(QueryRetrieveLevel="STUDY", PatientID="P8", StudyInstanceUID="", StudyDescription="")
UNSUPPORTED = query(QueryRetrieveLevel="STUDY", PatientID="P8", StudyInstanceUID="", PixelAspectRatio="")


@pytest.mark.parametrize(("identifier", "pending"), [(SUPPORTED, 0xFF00), (UNSUPPORTED, 0xFF01)])
async def test_a_pending_status_tells_whether_all_keys_are_supported(
    archive: Archive, identifier: bytes, pending: int
) -> None:
    async with served(archive.services, sop.STUDY_ROOT_FIND) as peer:
        await peer.send_message(1, request_elements(C_FIND_RQ, 7, sop.STUDY_ROOT_FIND), identifier)
        responses, last = await final(peer, C_FIND_RSP)
        await peer.release()
    assert [response.status for response in responses] == [pending]
    assert (last.status, last.data_set, last.message_id) == (0, None, 7)
    match = decode_data_set(responses[0].data_set or b"", sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert match.StudyInstanceUID == uid(8)
    assert match.get("PixelAspectRatio", "none") in (None, "none", "")


# What is wrong with an identifier

#: The model, the keys, and the element that is to blame.
MISMATCHES: list[tuple[str, dict[str, Any], int]] = [
    (sop.PATIENT_ROOT_FIND, {"PatientID": "P1"}, 0x00080052),
    (sop.PATIENT_ROOT_FIND, {"QueryRetrieveLevel": "", "PatientID": "P1"}, 0x00080052),
    (sop.PATIENT_ROOT_FIND, {"QueryRetrieveLevel": "WORLD", "PatientID": "P1"}, 0x00080052),
    (sop.PATIENT_ROOT_FIND, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, 0x00100020),
    (sop.PATIENT_ROOT_FIND, {"QueryRetrieveLevel": "STUDY", "PatientID": "P*"}, 0x00100020),
    (sop.PATIENT_ROOT_FIND, {"QueryRetrieveLevel": "SERIES", "PatientID": "P1"}, 0x0020000D),
    (
        sop.PATIENT_ROOT_FIND,
        {"QueryRetrieveLevel": "SERIES", "PatientID": "P1", "StudyInstanceUID": "1.2.*"},
        0x0020000D,
    ),
    (sop.STUDY_ROOT_FIND, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P1"}, 0x00080052),
    (sop.STUDY_ROOT_FIND, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": uid(1)}, 0x0020000E),
    (sop.STUDY_ROOT_FIND, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": [uid(1), uid(2)]}, 0x0020000D),
    (sop.STUDY_ROOT_FIND, {"QueryRetrieveLevel": "FRAME", "StudyInstanceUID": uid(1)}, 0x00080052),
    (
        sop.PATIENT_STUDY_ONLY_FIND,
        {"QueryRetrieveLevel": "SERIES", "PatientID": "P1", "StudyInstanceUID": uid(1)},
        0x00080052,
    ),
    (sop.PATIENT_ROOT_GET, {"QueryRetrieveLevel": "PATIENT", "PatientID": ""}, 0x00100020),
    (sop.PATIENT_ROOT_GET, {"QueryRetrieveLevel": "PATIENT", "PatientID": "*"}, 0x00100020),
    (sop.PATIENT_ROOT_GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid(1)}, 0x00100020),
    (sop.STUDY_ROOT_GET, {"QueryRetrieveLevel": "STUDY"}, 0x0020000D),
    (sop.STUDY_ROOT_GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.*"}, 0x0020000D),
    (sop.STUDY_ROOT_GET, {"StudyInstanceUID": uid(1)}, 0x00080052),
    (sop.STUDY_ROOT_GET, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": uid(1, 1)}, 0x0020000D),
    (
        sop.PATIENT_STUDY_ONLY_GET,
        {"QueryRetrieveLevel": "IMAGE", "PatientID": "P1", "SOPInstanceUID": uid(1, 1, 1)},
        0x00080052,
    ),
    (sop.COMPOSITE_INSTANCE_ROOT_GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid(1)}, 0x00080052),
    (sop.COMPOSITE_INSTANCE_ROOT_GET, {"QueryRetrieveLevel": "IMAGE"}, 0x00080018),
    (
        sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
        {"QueryRetrieveLevel": "FRAME", "SOPInstanceUID": uid(1, 1, 1)},
        0x00080052,
    ),
]


@pytest.mark.parametrize(("model", "keys", "tag"), MISMATCHES, ids=[f"{n}" for n in range(len(MISMATCHES))])
async def test_an_identifier_that_does_not_fit_the_model_is_a900_and_says_why(
    archive: Archive, model: str, keys: dict[str, Any], tag: int
) -> None:
    async with associated(archive) as association:
        failure = await refused(association, model, query(**keys))
        assert failure.status == 0xA900
        assert failure.comment
        assert failure.offending_elements == (tag,)
        await association.echo()


GARBAGE = [b"\x08\x00\x52\x00CS\xff\x7fSTUDY", b"\x00" * 9, b"\xfe\xff\x00\xe0" * 50, bytes(range(256))]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize(
    ("model", "status"), [(sop.STUDY_ROOT_FIND, 0xC310), (sop.STUDY_ROOT_GET, 0xC410), (sop.STUDY_ROOT_MOVE, 0xC510)]
)
async def test_an_identifier_that_cannot_be_decoded_has_its_status(
    archive: Archive, garbage: bytes, model: str, status: int
) -> None:
    peers = {"DEST": "DEST@127.0.0.1:9"}
    async with associated(archive, server_options={"peers": peers}) as association:
        assert (await refused(association, model, garbage)).status == status
        await association.echo()


# C-GET and C-MOVE

ALL_OF_1 = [uid(1, 1, 1), uid(1, 1, 2), uid(1, 2, 3), uid(1, 3, 4)]
RETRIEVE: list[tuple[str, dict[str, Any], list[str]]] = [
    ("PATIENT_ROOT", {"level": "PATIENT", "PatientID": "P8"}, [uid(8, 1, 1), uid(8, 1, 2)]),
    ("PATIENT_ROOT", {"level": "STUDY", "PatientID": "P1", "StudyInstanceUID": uid(1)}, ALL_OF_1),
    (
        "PATIENT_ROOT",
        {"level": "SERIES", "PatientID": "P1", "StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1)},
        ALL_OF_1[:2],
    ),
    (
        "PATIENT_ROOT",
        {
            "level": "IMAGE",
            "PatientID": "P1",
            "StudyInstanceUID": uid(1),
            "SeriesInstanceUID": uid(1, 1),
            "SOPInstanceUID": [uid(1, 1, 2), uid(9, 9, 9)],
        },
        [uid(1, 1, 2)],
    ),
    (
        "STUDY_ROOT",
        {"level": "STUDY", "StudyInstanceUID": [uid(2), uid(8)]},
        [uid(2, 1, 1), uid(8, 1, 1), uid(8, 1, 2)],
    ),
    (
        "STUDY_ROOT",
        {"level": "SERIES", "StudyInstanceUID": uid(1), "SeriesInstanceUID": [uid(1, 2), uid(1, 3)]},
        ALL_OF_1[2:],
    ),
    (
        "STUDY_ROOT",
        {
            "level": "IMAGE",
            "StudyInstanceUID": uid(8),
            "SeriesInstanceUID": uid(8, 1),
            "SOPInstanceUID": uid(8, 1, 2),
        },
        [uid(8, 1, 2)],
    ),
    ("PATIENT_STUDY_ONLY", {"level": "PATIENT", "PatientID": "P9"}, [uid(1, 9, 9)]),
    ("PATIENT_STUDY_ONLY", {"level": "STUDY", "PatientID": "P1", "StudyInstanceUID": uid(2)}, [uid(2, 1, 1)]),
    (
        "COMPOSITE_INSTANCE_ROOT",
        {"level": "IMAGE", "SOPInstanceUID": [uid(1, 1, 1), uid(4, 1, 1)]},
        [uid(1, 1, 1), uid(4, 1, 1)],
    ),
    ("STUDY_ROOT", {"level": "STUDY", "StudyInstanceUID": uid(99)}, []),
    ("COMPOSITE_INSTANCE_ROOT", {"level": "IMAGE", "SOPInstanceUID": uid(9, 9, 9)}, []),
]
retrievals = pytest.mark.parametrize(
    ("model", "keys", "expected"), RETRIEVE, ids=[f"{model}-{keys['level']}-{len(e)}" for model, keys, e in RETRIEVE]
)


@retrievals
async def test_what_a_get_names_is_got(archive: Archive, model: str, keys: dict[str, Any], expected: list[str]) -> None:
    async with associated(archive) as association:
        instances, response = await got(association, getattr(sop, f"{model}_GET"), **keys)
    assert sorted(instances) == expected
    assert response.status == 0
    assert (response.progress.completed or 0) == len(expected)
    for syntax, data in instances.values():
        assert syntax == sop.EXPLICIT_VR_LITTLE_ENDIAN
        assert decode_data_set(data, syntax).SOPInstanceUID in expected


@retrievals
async def test_what_a_move_names_is_moved(
    archive: Archive, model: str, keys: dict[str, Any], expected: list[str]
) -> None:
    destination = Destination()
    async with destination.serving() as options, associated(archive, **options) as association:
        move = association.move(model=getattr(sop, f"{model}_MOVE"), destination="DEST", **keys)
        assert all([progress.failed == 0 async for progress in move])
    assert move.response is not None
    assert move.response.status == 0
    assert (move.response.progress.completed or 0) == len(expected)
    assert sorted(destination.instances) == expected
    assert {request.move_originator_ae_title for request in destination.requests} <= {"ASYNCDICOM"}


async def test_a_move_to_nowhere_is_a801(archive: Archive) -> None:
    async with associated(archive) as association:
        with pytest.raises(StatusError) as raised:
            await association.move(StudyInstanceUID=uid(8), level="STUDY", destination="NOWHERE").__anext__()
        assert raised.value.status == 0xA801
        await association.echo()


# What is missing


async def test_a_missing_file_fails_and_is_listed_and_the_rest_is_got(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in instance_files(tmp_path / "archive"):
        if f"{uid(8, 1, 1)}-" in path.name:
            path.unlink()
    async with associated(archive) as association:
        instances, response = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID=uid(8))
        assert response.status == 0xB000
        assert response.data_set is not None
        assert response.data_set.FailedSOPInstanceUIDList == uid(8, 1, 1)
        assert (response.progress.completed, response.progress.failed) == (1, 1)
        await association.echo()
    assert list(instances) == [uid(8, 1, 2)]
    assert uid(8, 1, 1) in caplog.text


@pytest.mark.parametrize("damage", ["shorter", "longer", "empty", "other"])
async def test_a_torn_file_is_reported_and_never_served(archive: Archive, tmp_path: Path, damage: str) -> None:
    for path in instance_files(tmp_path / "archive"):
        if f"{uid(2, 1, 1)}-" in path.name:
            whole = path.read_bytes()
            path.write_bytes({"shorter": whole[:-2], "longer": whole + b"\0\0", "empty": b"", "other": b"x"}[damage])
    async with associated(archive) as association:
        instances, response = await got(
            association, sop.STUDY_ROOT_GET, check=False, level="STUDY", StudyInstanceUID=uid(2)
        )
        assert response.status == 0xA702
        assert response.data_set is not None
        assert response.data_set.FailedSOPInstanceUIDList == uid(2, 1, 1)
        await association.echo()
    assert instances == {}


async def test_a_move_lists_what_is_missing(archive: Archive, tmp_path: Path) -> None:
    for path in instance_files(tmp_path / "archive"):
        if f"{uid(1, 1, 1)}-" in path.name:
            path.unlink()
    destination = Destination()
    async with destination.serving() as options, associated(archive, **options) as association:
        move = association.move(
            model=sop.PATIENT_ROOT_MOVE, destination="DEST", level="STUDY", PatientID="P1", StudyInstanceUID=uid(1)
        )
        async for _ in move:
            pass
    assert move.response is not None
    assert move.response.status == 0xB000
    assert move.response.data_set is not None
    assert move.response.data_set.FailedSOPInstanceUIDList == uid(1, 1, 1)
    assert sorted(destination.instances) == ALL_OF_1[1:]


# C-CANCEL


@pytest.fixture(scope="module")
def _many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    fill(folder, [instance(number, study=number // 10, series=number % 10 + 1) for number in range(200)])
    return folder


@pytest.fixture
async def many(_many: Path, tmp_path: Path) -> AsyncIterator[Archive]:
    """Give an archive of 200 instances in 20 studies of a patient."""
    folder = tmp_path / "archive"
    shutil.copytree(_many, folder)
    async with archived(folder) as opened:
        yield opened


async def test_a_find_that_is_left_is_cancelled_and_the_association_lives(many: Archive) -> None:
    async with associated(many, max_buffer=1024) as association:
        async with association.find(level="STUDY", StudyInstanceUID="") as matches:
            async for _ in matches:
                break
        assert matches.response is not None
        assert matches.response.status in (CANCEL, 0)
        await association.echo()
        assert len([match async for match in association.find(level="STUDY", StudyInstanceUID="")]) == 20


async def test_a_get_that_is_left_is_cancelled_and_the_association_lives(many: Archive) -> None:
    async with associated(many) as association:
        async with association.get(model=sop.PATIENT_ROOT_GET, level="PATIENT", PatientID="P1") as instances:
            async for _ in instances:
                break
        assert instances.response is not None
        assert instances.response.status == CANCEL
        progress = instances.response.progress
        assert (progress.completed or 0) + (progress.failed or 0) + (progress.remaining or 0) == 200
        await association.echo()


async def test_a_move_that_is_left_is_cancelled_and_the_association_lives(many: Archive) -> None:
    class Slow(Destination):
        async def _store(self, request: StoreRequest) -> None:
            await super()._store(request)
            if len(self.instances) > 3:
                await anyio.sleep_forever()

    destination = Slow()
    async with destination.serving() as options, associated(many, **options) as association:
        move = association.move(model=sop.PATIENT_ROOT_MOVE, destination="DEST", level="PATIENT", PatientID="P1")
        async with move:
            async for progress in move:
                if progress.completed == 3:
                    break
        assert move.response is not None
        assert move.response.status == CANCEL
        assert move.response.progress.completed == 3
        await association.echo()


@pytest.mark.parametrize("kept", [10, 150, 1000])
async def test_a_retrieval_of_more_than_is_kept_in_mind_is_complete(
    many: Archive, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("asyncdicom.archive.provider._ROWS", kept)
    async with associated(many) as association:
        instances, response = await got(association, sop.PATIENT_ROOT_GET, level="PATIENT", PatientID="P1")
    assert len(instances) == response.progress.completed == 200


async def test_what_is_stored_during_a_retrieval_is_no_part_of_it(
    many: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncdicom.archive.provider._ROWS", 10)
    async with associated(many) as association, associated(many) as other:
        count = 0
        async with association.get(model=sop.PATIENT_ROOT_GET, level="PATIENT", PatientID="P1") as instances:
            async for _ in instances:
                count += 1
                if count == 1:
                    await store(other, *(instance(1000 + number, study=99) for number in range(5)))
        assert instances.response is not None
        assert (instances.response.status, count) == (0, 200)


async def test_an_index_that_fails_is_out_of_resources_and_nothing_of_a_patient_is_logged(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connection = sqlite3.connect(tmp_path / "archive" / "index.sqlite")
    connection.execute("DROP TABLE patients")
    connection.close()
    async with associated(archive) as association:
        keys = query(QueryRetrieveLevel="PATIENT", PatientID="SECRET")
        assert (await refused(association, sop.PATIENT_ROOT_FIND, keys)).status == 0xA700
        assert (await refused(association, sop.PATIENT_ROOT_GET, keys)).status == 0xA701
        assert await store(association, instance(5, PatientID="SECRET"), check=False) == [0xA700]
        await association.echo()
    assert "SECRET" not in caplog.text
    assert len(instance_files(tmp_path / "archive")) == 13


@pytest.mark.parametrize(("command", "answer"), [(C_FIND_RQ, C_FIND_RSP), (C_GET_RQ, C_GET_RSP)])
async def test_a_cancel_in_the_same_segment_ends_the_operation(many: Archive, command: int, answer: int) -> None:
    model = sop.PATIENT_ROOT_FIND if command == C_FIND_RQ else sop.PATIENT_ROOT_GET
    identifier = query(QueryRetrieveLevel="PATIENT", PatientID="P1")
    async with served(many.services, model, sop.CT_IMAGE_STORAGE) as peer:
        for message_id in (3, 4):
            request = peer.message(1, request_elements(command, message_id, model), identifier)
            await peer.send(request, cancel_pdus(1, message_id))
            pending, last = await final(peer, answer)
            assert (pending, last.status, last.message_id) == ([], 0xFE00, message_id)
        await peer.release()


def test_the_models_of_all_twelve_classes_are_served(tmp_path: Path) -> None:
    services = Archive(tmp_path).services
    assert len(QUERY_RETRIEVE) - 3 == 12
    assert all(services.support(model) is not None for model in (*sop.FIND, *sop.MOVE, *sop.GET))
