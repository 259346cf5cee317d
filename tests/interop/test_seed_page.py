"""Every row of the seed page over associations of TCP: pynetdicom's SCU against our SCPs, and its SCP against our SCU.

What our SCU makes of every status is in :mod:`tests.test_seed_page`: pynetdicom's SCP does not give all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import Category, Server, Status, sop
from asyncdicom._quiet import quiet
from asyncdicom.dataset import part10_head

from ..seed_page import CLASSES, FIND, GET, MOVE, ROWS, models, names, row_of, undriven
from .material import Archive, Sample, part10, storage_contexts, study
from .scp import Scp
from .scu import yields
from .seed_cases import CASES, OF_PATIENT, as_usual, of
from .seed_scu import DOSE, HANDLERS, MESSAGE_ID, SHORT, ULTRASOUND, Case, Running, asking, check, running_servers

pytestmark = pytest.mark.interop

_BULK = sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
_KEYWORDS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_LEVELS = {
    "1": tuple(_KEYWORDS),
    "2": tuple(_KEYWORDS)[1:],
    "3": tuple(_KEYWORDS)[:2],
    "4": ("IMAGE",),
    "5": ("IMAGE",),
}
_BY_UID = {item.sop_instance_uid: item for item in study()}
_HEADERS = [item.header() for item in study()]
#: What our archives hold beyond that.
_MORE = [ULTRASOUND.header(), DOSE.header(), SHORT]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def running(request: pytest.FixtureRequest, _scp: Scp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give our servers on one backend."""
    with running_servers(request.param, _scp, tmp_path_factory.mktemp("archives")) as servers:
        yield servers


def test_no_row_is_left_out() -> None:
    driven = {(case.service, status) for case in CASES for status in (case.status, *(case.pending or ()))}
    assert undriven(driven) == []


def test_the_sop_classes_are_those_that_our_names_mean() -> None:
    assert {name: str(getattr(sop, name)) for name in names()} == names()
    assert (set(sop.FIND), set(sop.MOVE), set(sop.GET)) == tuple(set(models(service)) for service in (FIND, MOVE, GET))


# Statuses


def _marked(case: Case) -> Any:
    marks = [] if case.complains is None else [pytest.mark.complains(case.complains)]
    return pytest.param(case, id=str(case).replace(" ", "_"), marks=marks)


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_a_status_is_given_under_its_condition(running: Running, case: Case) -> None:
    with asking(running, case, sop.STUDY_ROOT_FIND) as asked:
        case.send(asked)
    check(asked)
    row = row_of(case.service, case.status)
    assert row is not None
    assert Status(case.status).category is row.category
    if case.service == MOVE and asked.stored:
        # The requestor of the C-MOVE, not we (PS3.4 C.4.2.3.1).
        assert asked.originators == {("PYNETDICOM", MESSAGE_ID)}


@pytest.mark.parametrize(("model", "service"), CLASSES, ids=[model.keyword for model, _ in CLASSES])
def test_each_sop_class_has_every_status_of_its_service(running: Running, model: str, service: str) -> None:
    first = _giving(service, model, 0x0000)
    with asking(running, first) as asked:
        for code in dict.fromkeys(code for row in ROWS if row.service == service for code in (row.first, row.last)):
            asked.begin(_giving(service, model, code))
            as_usual(asked)
            check(asked)
            assert {answer.command.AffectedSOPClassUID for answer in asked.answers} == {model}


def _giving(service: str, model: str, code: int) -> Case:
    """Return a case whose handler gives a status, and nothing else."""
    name = f"{service} {code:04X}"
    pending = Status(code).category is Category.PENDING
    item = (code, of("STUDY", StudyInstanceUID="1.2")) if pending and service == FIND else (code, None)
    HANDLERS.setdefault(name, yields(_data_set(item), total=None if service == FIND else 0))
    return Case(
        service=service,
        status=0x0000 if pending else code,
        when="the handler gives it",
        model=model,
        keys=of("STUDY", PatientID=name),
        send=as_usual,
        pending=(code,) if pending else (),
        remaining=0 if code == 0xFE00 and service != FIND else None,
    )


def _data_set(item: tuple[int, dict[str, Any] | None]) -> tuple[int, Dataset | None]:
    status, values = item
    if values is None:
        return status, None
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return status, made


# SOP classes, with instances of pydicom's files in our archive


def _levels(model: str) -> tuple[str, ...]:
    return _LEVELS[model.split(".")[-2]]


def _asked_at(
    level: str, levels: tuple[str, ...], *, find: bool, among: Sequence[Dataset] = _HEADERS
) -> tuple[dict[str, Any], list[Dataset]]:
    """Return keys that lead down to a level for one instance, and the headers of all that they select."""
    header = OF_PATIENT[0].header()
    way = levels[: levels.index(level) + (0 if find else 1)]
    values = {_KEYWORDS[name]: str(header[_KEYWORDS[name]].value) for name in way}
    selected = [h for h in among if all(str(h[keyword].value) == value for keyword, value in values.items())]
    return values | ({_KEYWORDS[level]: ""} if find else {}), selected


def _archive_case(service: str, model: str, level: str) -> tuple[Case, list[Dataset]]:
    keys, selected = _asked_at(level, _levels(model), find=service == FIND, among=[*_HEADERS, *_MORE])
    found = {str(header[_KEYWORDS[level]].value) for header in selected}
    case = Case(
        service=service,
        status=0x0000,
        when=f"archive: {level}",
        at="archive",
        model=model,
        keys=of(level, **keys),
        send=as_usual,
        proposed=study(),
        pending=(0xFF00,) * len(found) if service == FIND else (0xFF00,) * len(selected),
        counters=(len(selected), 0, 0),
    )
    return case, selected


@pytest.mark.parametrize("model", models(FIND), ids=lambda model: model.keyword)
def test_each_find_class_finds_files_at_each_level(running: Running, model: str) -> None:
    cases = [(level, *_archive_case(FIND, model, level)) for level in _levels(model)]
    with asking(running, cases[0][1]) as asked:
        for level, case, selected in cases:
            asked.begin(case)
            as_usual(asked)
            check(asked)
            matches = [asked.decoded(answer) for answer in asked.answers[:-1]]
            keyword = _KEYWORDS[level]
            assert {str(found[keyword].value) for found in matches} == {str(h[keyword].value) for h in selected}
            assert {(found.QueryRetrieveLevel, found.RetrieveAETitle) for found in matches} == {(level, "ARCHIVE")}


@pytest.mark.parametrize("model", [*models(GET), *models(MOVE)], ids=lambda model: model.keyword)
def test_each_get_and_move_class_sends_files_at_each_level(running: Running, model: str) -> None:
    service = GET if model in models(GET) else MOVE
    cases = [_archive_case(service, model, level) for level in _levels(model)]
    with asking(running, cases[0][0]) as asked:
        for case, selected in cases:
            asked.begin(case)
            as_usual(asked)
            check(asked)
            expected = {str(header.SOPInstanceUID): _BY_UID[str(header.SOPInstanceUID)] for header in selected}
            assert asked.stored.keys() == expected.keys()
            for uid, data in asked.stored.items():
                assert data == _without_bulk_data(expected[uid]) if model == _BULK else expected[uid].on_the_wire


def _without_bulk_data(item: Sample) -> bytes:
    """Take Pixel Data of Explicit VR Little Endian out of a data set (PS3.4 Z.1.3)."""
    before, _, rest = item.on_the_wire.partition(b"\xe0\x7f\x10\x00OW\0\0")
    return before + rest[4 + int.from_bytes(rest[:4], "little") :]


@pytest.mark.parametrize("model", [sop.COMPOSITE_INSTANCE_ROOT_GET, sop.COMPOSITE_INSTANCE_ROOT_MOVE])
def test_frames_of_a_file_come_as_a_new_instance(running: Running, model: str) -> None:
    case = Case(
        service=GET if model in models(GET) else MOVE,
        status=0x0000,
        when="archive: frames",
        at="archive",
        model=model,
        keys=of("FRAME", SOPInstanceUID=ULTRASOUND.sop_instance_uid, SimpleFrameList=[2, 30]),
        send=as_usual,
        proposed=(ULTRASOUND,),
        pending=(0xFF00,),
        counters=(1, 0, 0),
    )
    with asking(running, case) as asked:
        as_usual(asked)
    check(asked)
    ((uid, data),) = asked.stored.items()
    head = part10_head(ULTRASOUND.sop_class_uid, uid, ULTRASOUND.transfer_syntax_uid)
    with quiet():
        made, whole = pydicom.dcmread(BytesIO(head + data)), part10(ULTRASOUND)
        frames = [
            list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=n)) for ds, n in ((made, 2), (whole, 30))
        ]
    assert uid != ULTRASOUND.sop_instance_uid
    assert (made.SOPInstanceUID, made.NumberOfFrames) == (uid, 2)
    assert frames[0] == [frames[1][1], frames[1][29]]
    (extraction,) = made.FrameExtractionSequence
    assert extraction.MultiFrameSourceSOPInstanceUID == ULTRASOUND.sop_instance_uid


# SOP classes, with instances of pydicom's files behind pynetdicom's SCP


@pytest.fixture
def files(scp: Scp) -> Scp:
    """Give an SCP of pynetdicom's that serves the files."""
    archive = Archive(study())

    def find(event: Any) -> Iterator[Any]:
        keyword = _KEYWORDS[event.identifier.QueryRetrieveLevel]
        for value in sorted({str(header[keyword].value) for header in archive.matching(event.identifier)}):
            yield 0xFF00, _data_set((0, {"QueryRetrieveLevel": event.identifier.QueryRetrieveLevel, keyword: value}))[1]

    def send(event: Any) -> Iterator[Any]:
        headers = archive.matching(event.identifier)
        yield len(headers)
        for header in headers:
            data_set = part10(_BY_UID[str(header.SOPInstanceUID)])
            if event.request.AffectedSOPClassUID == _BULK:
                del data_set.PixelData
            yield 0xFF00, data_set

    scp.handlers |= {"find": find, "get": send}
    return scp


@pytest.mark.anyio
@pytest.mark.parametrize("model", models(FIND), ids=lambda model: model.keyword)
async def test_our_scu_finds_with_each_class(files: Scp, model: str) -> None:
    async with files.connect([model]) as assoc:
        for level in _levels(model):
            keys, selected = _asked_at(level, _levels(model), find=True)
            matches = [match async for match in assoc.find(level=level, **keys)]
            keyword = _KEYWORDS[level]
            assert {str(match[keyword].value) for match in matches} == {str(h[keyword].value) for h in selected}
    assert {event.request.AffectedSOPClassUID for event in files.requests} == {model}


@pytest.mark.anyio
@pytest.mark.parametrize("model", models(GET), ids=lambda model: model.keyword)
async def test_our_scu_gets_with_each_class(files: Scp, model: str) -> None:
    async with files.connect([model, *storage_contexts(study())]) as assoc:
        for level in _levels(model):
            keys, selected = _asked_at(level, _levels(model), find=False)
            async with assoc.get(level=level, **keys) as got:
                received = {one.sop_instance_uid: (one.bulk_data_removed, await one.read()) async for one in got}
            _check_response(got.response, len(selected))
            assert received == {
                str(header.SOPInstanceUID): (model == _BULK, _kept(_BY_UID[str(header.SOPInstanceUID)], model))
                for header in selected
            }
    assert {event.request.AffectedSOPClassUID for event in files.requests} == {model}


@pytest.mark.anyio
@pytest.mark.parametrize("model", models(MOVE), ids=lambda model: model.keyword)
async def test_our_scu_moves_with_each_class(files: Scp, model: str) -> None:
    from pynetdicom import build_context

    contexts = [build_context(*pair) for pair in {(item.sop_class_uid, item.transfer_syntax_uid) for item in study()}]
    arrived = Archive(patience=0.03)
    async with Server(arrived.services(), "HERE@127.0.0.1:0") as server:
        send, port = files.handlers["get"], server.addresses[0].port

        def move(event: Any) -> Iterator[Any]:
            yield "127.0.0.1", port, {"contexts": contexts}
            yield from send(event)

        files.handlers["move"] = move
        async with files.connect([model]) as assoc:
            for level in _levels(model):
                arrived.data.clear()
                keys, selected = _asked_at(level, _levels(model), find=False)
                moving = assoc.move(level=level, destination="HERE", **keys)
                assert [progress.completed async for progress in moving] == list(range(1, len(selected) + 1))
                _check_response(moving.response, len(selected))
                uids = [str(header.SOPInstanceUID) for header in selected]
                assert arrived.data == {uid: _BY_UID[uid].on_the_wire for uid in uids}


def _kept(item: Sample, model: str) -> bytes:
    return _without_bulk_data(item) if model == _BULK else item.on_the_wire


def _check_response(response: asyncdicom.Response | None, completed: int) -> None:
    assert response is not None
    progress = response.progress
    assert (response.status, progress.completed, progress.failed, progress.warning) == (0x0000, completed, 0, 0)
