"""The clients of DCMTK and pynetdicom against the archive; none of them may print a warning about us."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import evt

from asyncdicom import Server, sop
from asyncdicom.archive import Archive

from ..archive.crash import archive_process
from ..archive.serving import fill, instance_files
from .material import Sample, data_set_of, sample, samples, study
from .peers import DcmtkServer, free_port, pynetdicom_scp, requires_dcmtk, run
from .scu import PeerAssociation, codes, collected, peer, storage
from .test_dcmtk_scu import (
    PROPOSALS,
    UNREADABLE,
    about_files,
    assert_same_instance,
    client,
    kept,
    kept_in,
    keys,
    shown,
)

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

_KEYWORDS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_HEADERS = {item.sop_instance_uid: item.header() for item in study()}
_ROOT = Path(__file__).parents[2]
#: A CR study of three series, one of which has the CR image that is asked for.
PATIENT, STUDY = "77654033", "1.3.6.1.4.1.5962.1.1.0.0.0.1196533885.18148.0.1"


def of(**values: str) -> list[Dataset]:
    """Return the headers of the instances of the small archive that have these values."""
    return [h for h in _HEADERS.values() if all(str(h[keyword].value) == value for keyword, value in values.items())]


def one(patient: str) -> dict[str, str]:
    """Return the unique keys of an instance of a patient, from the top."""
    header = of(PatientID=patient)[-1]
    return {keyword: str(header[keyword].value) for keyword in _KEYWORDS.values()}


@pytest.fixture(scope="module")
def _study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    fill(folder, (item.instance() for item in study()))
    return folder


@asynccontextmanager
async def archiving(folder: Path, **options: Any) -> AsyncIterator[int]:
    """Serve the archive in a folder; gives its port."""
    archive_options = {key: options.pop(key) for key in ("on_duplicate",) if key in options}
    async with Archive(folder, sync="never", **archive_options) as archive:
        async with Server(archive.services, "ARCHIVE@127.0.0.1:0", **options) as server:
            yield server.addresses[0].port


@pytest.fixture
def folder(_study: Path, tmp_path: Path) -> Path:
    """Give an archive of 31 instances of two patients."""
    made = tmp_path / "archive"
    shutil.copytree(_study, made)
    return made


def complete(items: Iterable[Sample]) -> dict[str, Sample]:
    """Return those that can be archived, one of each SOP Instance UID."""
    found: dict[str, Sample] = {}
    for item in items:
        header = item.header()
        if header.get("StudyInstanceUID") and header.get("SeriesInstanceUID"):
            found.setdefault(item.sop_instance_uid, item)
    return found


#: Options of DCMTK's and pynetdicom's programs, and the levels of each model.
MODELS = [
    ("-P", ("PATIENT", "STUDY", "SERIES", "IMAGE")),
    ("-S", ("STUDY", "SERIES", "IMAGE")),
    ("-O", ("PATIENT", "STUDY")),
]
LEVELS = [(option, levels, level) for option, levels in MODELS for level in levels]
each_level = pytest.mark.parametrize(
    ("option", "levels", "level"), LEVELS, ids=[f"{o}-{level}" for o, _, level in LEVELS]
)


def query_for(levels: tuple[str, ...], level: str, *, find: bool) -> tuple[dict[str, str], list[Dataset]]:
    """Return keys that lead to what lies on the way to one instance, and the instances below it.

    :param find: leave the unique key of the level itself to be found.
    """
    values = one(PATIENT)
    above = {_KEYWORDS[name]: values[_KEYWORDS[name]] for name in levels[: levels.index(level)]}
    wanted = above if find else above | {_KEYWORDS[level]: values[_KEYWORDS[level]]}
    query = {"QueryRetrieveLevel": level, **wanted}
    if find:
        query[_KEYWORDS[level]] = ""
    return query, of(**wanted)


def as_options(query: dict[str, str]) -> list[str]:
    return keys(*(f"{keyword}={value}" if value else keyword for keyword, value in query.items()))


# DCMTK


@requires_dcmtk
async def test_echoscu_is_answered(folder: Path) -> None:
    async with archiving(folder) as port:
        (await client("echoscu", port)).check()


@requires_dcmtk
@each_level
async def test_findscu_finds_each_entity_of_each_level(
    folder: Path, option: str, levels: tuple[str, ...], level: str
) -> None:
    query, below = query_for(levels, level, find=True)
    keyword = _KEYWORDS[level]
    async with archiving(folder) as port:
        ran = await client("findscu", port, option, *as_options(query))
    ran.check()
    responses = ran.output.partition("Find Response: 1 ")[2]
    expected = sorted({str(header[keyword].value) for header in below})
    assert sorted(value.rstrip("\0") for value in shown(responses, keyword)) == expected
    assert ran.output.count("(Pending)") == len(expected)
    assert "Received Final Find Response (Success)" in ran.output
    assert shown(responses, "RetrieveAETitle") == ["ARCHIVE"] * len(expected)


@requires_dcmtk
@on_asyncio
@pytest.mark.parametrize("option", ["-xe", "-xb", "-xi", "-xd"])
async def test_findscu_finds_in_each_native_transfer_syntax(folder: Path, option: str) -> None:
    async with archiving(folder) as port:
        query = keys("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName", "ModalitiesInStudy")
        ran = await client("findscu", port, "-S", option, *query)
    ran.check()
    assert ran.output.count("(Pending)") == len({str(h.StudyInstanceUID) for h in of()}) == 6


@requires_dcmtk
@on_asyncio
async def test_findscu_is_told_what_is_not_supported_and_what_does_not_fit(folder: Path) -> None:
    async with archiving(folder) as port:
        unknown = await client("findscu", port, "-S", *keys("QueryRetrieveLevel=STUDY", "StudyID", "PixelAspectRatio"))
        wrong = await client("findscu", port, "-S", *keys("QueryRetrieveLevel=IMAGE", "SOPInstanceUID"))
    assert unknown.output.count("(Pending: WarningUnsupportedOptionalKeys)") == 6
    assert re.search(r"Find Response \(.*(IdentifierDoesNotMatch|DataSetDoesNotMatch)", wrong.output), wrong.output


@requires_dcmtk
@on_asyncio
async def test_findscu_cancels(folder: Path) -> None:
    async with archiving(folder) as port:
        ran = await client("findscu", port, "-S", "--cancel", 1, *keys("QueryRetrieveLevel=STUDY", "StudyInstanceUID"))
    assert ran.returncode == 0, ran.output
    assert re.search(r"Received Final Find Response \((Success|Cancel)", ran.output), ran.output


def expected_data(headers: Iterable[Dataset]) -> dict[str, bytes]:
    wanted = {str(header.SOPInstanceUID) for header in headers}
    return {item.sop_instance_uid: item.on_the_wire for item in study() if item.sop_instance_uid in wanted}


@requires_dcmtk
@on_asyncio
@each_level
async def test_getscu_gets_each_level_bit_by_bit(
    folder: Path, tmp_path: Path, option: str, levels: tuple[str, ...], level: str
) -> None:
    query, below = query_for(levels, level, find=False)
    (tmp_path / "out").mkdir()
    async with archiving(folder) as port:
        ran = await client("getscu", port, option, "+B", "-od", tmp_path / "out", *as_options(query))
    ran.check()
    assert "Received C-GET Response (Success)" in ran.output
    assert kept_in(tmp_path / "out") == expected_data(below)


@requires_dcmtk
@on_asyncio
@each_level
async def test_movescu_moves_each_level_to_storescp(
    folder: Path, storescp: DcmtkServer, option: str, levels: tuple[str, ...], level: str
) -> None:
    query, below = query_for(levels, level, find=False)
    async with archiving(folder, peers={"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}) as port:
        ran = await client("movescu", port, option, "-aem", "DCMTK", *as_options(query))
    ran.check()
    assert "Received Final Move Response (Success)" in ran.output
    assert kept(storescp.files()) == expected_data(below)


@requires_dcmtk
@on_asyncio
async def test_movescu_moves_to_itself(folder: Path, tmp_path: Path) -> None:
    port_of_movescu = free_port()
    out = tmp_path / "out"
    out.mkdir()
    async with archiving(folder, peers={"MOVESCU": f"MOVESCU@127.0.0.1:{port_of_movescu}"}) as port:
        query = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
        ran = await client("movescu", port, "-P", "+B", "+P", port_of_movescu, *query, cwd=out)
    ran.check()
    assert kept_in(out) == expected_data(of(PatientID=PATIENT))


@requires_dcmtk
@on_asyncio
async def test_getscu_and_movescu_are_told_that_there_is_nothing(folder: Path, storescp: DcmtkServer) -> None:
    query = keys("QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3.4.5")
    async with archiving(folder, peers={"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}) as port:
        (await client("getscu", port, "-S", "-od", folder.parent, *query)).check()
        (await client("movescu", port, "-S", "-aem", "DCMTK", *query)).check()
        lost = await client("movescu", port, "-S", "-aem", "NOBODY", *query)
    assert "Refused: MoveDestinationUnknown" in lost.output


#: getscu 3.6.7 does not read the identifier of the final response, where the failed instances are listed (PS3.4
#: C.4.3.1.4.2), and releases in front of it; after what its own dcmqrscp answers, too.
_LEFT_UNREAD = "E: Association Release Failed: 0006:0316 DUL P-Data PDU arrived"


@requires_dcmtk
@on_asyncio
@pytest.mark.parametrize(("option", "levels"), MODELS)
@pytest.mark.parametrize(
    ("lost", "said"),
    [(1, "Warning: SubOperationsCompleteOneOrMoreFailures"), (7, "Refused: OutOfResourcesSubOperations")],
)
async def test_getscu_and_movescu_complain_of_nothing_but_the_status_when_files_are_lost(
    folder: Path, storescp: DcmtkServer, option: str, levels: tuple[str, ...], lost: int, said: str
) -> None:
    top = levels[0]
    query, below = query_for(levels, top, find=False)
    wanted = {str(header.SOPInstanceUID) for header in below}
    files = [path for path in instance_files(folder) if path.name.partition("-")[0] in wanted]
    failed = min(lost, len(files))
    for path in files[:lost]:
        path.unlink()
    async with archiving(folder, peers={"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}) as port:
        got = await client("getscu", port, option, "-od", folder.parent, *as_options(query))
        moved = await client("movescu", port, option, "-aem", "DCMTK", *as_options(query))
    assert re.fullmatch(rf"[WE]: DIMSE status is: {said}", got.complaints[0])
    assert got.complaints[1:] in ([], [_LEFT_UNREAD])
    assert f"Number of Failed Suboperations    : {failed}" in got.output
    (complaint,) = moved.complaints
    assert re.fullmatch(rf"W: Move response with \w+ status \({said}\)", complaint)


@requires_dcmtk
@on_asyncio
async def test_storescp_gets_every_kind_of_instance_bit_by_bit(tmp_path: Path, storescp: DcmtkServer) -> None:
    chosen = complete(samples())
    fill(tmp_path, (item.instance() for item in chosen.values()))
    studies = sorted({str(item.header().StudyInstanceUID) for item in chosen.values()})
    async with archiving(tmp_path, peers={"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}) as port:
        query = keys("QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies))
        ran = await client("movescu", port, "-S", "-aem", "DCMTK", *query)
    ran.check()
    assert kept(storescp.files()) == {uid: item.on_the_wire for uid, item in chosen.items()}


def readable(syntax: str) -> dict[str, Sample]:
    """Return the instances of a transfer syntax that storescu can read."""
    found = complete(item for item in samples() if item.transfer_syntax_uid == syntax)
    return {uid: item for uid, item in found.items() if not re.search(UNREADABLE, item.name)}


PROPOSED = [(option, syntax) for option, syntax in PROPOSALS if readable(syntax)]


@requires_dcmtk
@on_asyncio
@pytest.mark.parametrize(("option", "syntax"), PROPOSED, ids=[syntax.keyword for _, syntax in PROPOSED])
async def test_storescu_stores_each_transfer_syntax_and_again(tmp_path: Path, option: str, syntax: str) -> None:
    chosen = readable(syntax)
    async with archiving(tmp_path) as port:
        for _ in range(2):  # the second time it is all there
            ran = await client("storescu", port, "-R", option, files=tuple(item.path for item in chosen.values()))
            assert ran.returncode == 0, ran.output
            assert [line for line in ran.complaints if not about_files(line)] == [], ran.output
            assert ran.output.count("Received Store Response (Success)") == len(chosen)
    files = {path.name.partition("-")[0]: path for path in instance_files(tmp_path)}
    assert files.keys() == chosen.keys()
    for uid, item in chosen.items():
        assert_same_instance(data_set_of(files[uid]), item)


@requires_dcmtk
@on_asyncio
async def test_dcmsend_sends_a_whole_folder(tmp_path: Path, test_files: Path) -> None:
    async with archiving(tmp_path, on_duplicate="keep") as port:
        ran = await client("dcmsend", port, "-nuc", "-nh", "+sd", "+r", files=(test_files,))
    summary = dict(re.findall(r"^I: (?:- |  \* )?(.*?) *: (\d+)$", ran.output, re.MULTILINE))
    sent, success = int(summary["sent to the peer"]), int(summary["with status SUCCESS"])
    assert sent == 146, ran.output
    others = {key: int(value) for key, value in summary.items() if key.startswith("with status")}
    assert sum(others.values()) == sent, others
    assert success > 120
    assert len(instance_files(tmp_path)) > 60


# pynetdicom


@each_level
async def test_pynetdicom_finds_each_entity_of_each_level(
    folder: Path, option: str, levels: tuple[str, ...], level: str
) -> None:
    query, below = query_for(levels, level, find=True)
    model = _model(option, "FIND")

    def use(association: PeerAssociation) -> Any:
        return collected(association.send_c_find(as_data_set(query), model))

    async with archiving(folder) as port:
        answers = await peer(port, [model], use, called="ARCHIVE")
    keyword = _KEYWORDS[level]
    expected = sorted({str(header[keyword].value) for header in below})
    assert codes(answers) == [0xFF00] * len(expected) + [0]
    assert sorted(str(match[keyword].value) for _, match, _ in answers if match) == expected


def _model(option: str, service: str) -> str:
    name = {"-P": "PATIENT_ROOT", "-S": "STUDY_ROOT", "-O": "PATIENT_STUDY_ONLY"}[option]
    return str(getattr(sop, f"{name}_{service}"))


def as_data_set(query: dict[str, str]) -> Dataset:
    ds = Dataset()
    for keyword, value in query.items():
        setattr(ds, keyword, value)
    return ds


@each_level
async def test_pynetdicom_gets_and_moves_each_level(
    folder: Path, option: str, levels: tuple[str, ...], level: str
) -> None:
    query, below = query_for(levels, level, find=False)
    get, move = _model(option, "GET"), _model(option, "MOVE")
    came: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        came[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0

    def use(association: PeerAssociation) -> Any:
        got = collected(association.send_c_get(as_data_set(query), get))
        first = dict(came)
        came.clear()
        return got, first, collected(association.send_c_move(as_data_set(query), "PYNETDICOM", move))

    contexts = [get, move, *storage(*study())]
    roles = {item.sop_class_uid for item in study()}
    handlers = [(evt.EVT_C_STORE, keep)]
    with pynetdicom_scp(handlers=handlers, storage=True) as destination:
        peers = {"PYNETDICOM": f"PYNETDICOM@127.0.0.1:{destination}"}
        async with archiving(folder, peers=peers) as port:
            got, first, moved = await peer(port, contexts, use, called="ARCHIVE", roles=roles, handlers=handlers)
    expected = expected_data(below)
    assert codes(got)[-1] == codes(moved)[-1] == 0
    assert first == came == expected


@pytest.mark.complains("write_dataset|With tag|[Ff]ailed to encode")
async def test_pynetdicom_stores_what_it_reads(tmp_path: Path) -> None:
    chosen = list(complete(samples()).values())

    def use(association: PeerAssociation) -> list[int]:
        statuses = []
        for item in chosen:
            with suppress(ValueError):  # it cannot encode all that it reads
                statuses.append(association.send_c_store(item.path).Status)
        return statuses

    async with archiving(tmp_path) as port:
        statuses = await peer(port, storage(*chosen), use, called="ARCHIVE")
    assert set(statuses) == {0x0000}
    assert len(instance_files(tmp_path)) == len(statuses) > len(chosen) - 5


@on_asyncio
async def test_pynetdicoms_programs_store_find_get_and_move(tmp_path: Path) -> None:
    async def program(name: str, port: int, *arguments: object, files: tuple[object, ...] = ()) -> str:
        command = ["-m", "pynetdicom", name, "127.0.0.1", port, *files, "-aec", "ARCHIVE", "-v", *arguments]
        ran = await run(sys.executable, *command, cwd=tmp_path)
        assert ran.returncode == 0, ran.output
        assert not ran.complaints, ran.output
        return ran.output

    own = free_port()
    item = sample("CT_small.dcm")
    uid = str(item.header().StudyInstanceUID)
    query = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}")
    out = tmp_path / "out"
    async with archiving(tmp_path / "archive", peers={"STORESCP": f"STORESCP@127.0.0.1:{own}"}) as port:
        await program("echoscu", port)
        assert "Success" in await program("storescu", port, "-cx", files=(item.path,))
        assert uid in await program("findscu", port, *query, "-k", "PatientName=")
        await program("getscu", port, *query, "-od", out)
        (got,) = out.iterdir()
        await program("movescu", port, *query, "--store", "--store-port", own, "-aem", "STORESCP", "-od", tmp_path)
    moved = Path(tmp_path, next(name for name in os.listdir(tmp_path) if item.sop_instance_uid in name))
    for path in (got, moved):
        assert_same_instance(data_set_of(path), item)


#: Runs several of pynetdicom's programs, one after the other, in one process.
_PROGRAMS = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from tests.interop.peers import hold_reading_thread
hold_reading_thread()
for name, *arguments in json.loads(sys.argv[2]):
    try:
        importlib.import_module(f"pynetdicom.apps.{name}.{name}").main(arguments)
    except SystemExit as exc:
        if exc.code:
            raise
"""


@on_asyncio
async def test_pynetdicoms_programs_use_each_model_and_what_can_be_negotiated(folder: Path, tmp_path: Path) -> None:
    came: list[str] = []

    def keep(event: Any) -> int:
        came.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    with pynetdicom_scp(handlers=[(evt.EVT_C_STORE, keep)], storage=True) as destination:
        async with archiving(folder, peers={"PYNETDICOM": f"PYNETDICOM@127.0.0.1:{destination}"}) as port:
            to = ["127.0.0.1", str(port), "-aec", "ARCHIVE", "-v"]
            programs: list[list[str]] = []
            for option, levels in MODELS:
                for level in (levels[0], levels[-1]):
                    out = str(tmp_path / "out" / f"{option}{level}")
                    find, get = (as_options(query_for(levels, level, find=find)[0]) for find in (True, False))
                    programs += [
                        ["findscu", *to, option, *find],
                        ["findscu", *to, option, "--relational-query", "--fuzzy-names", "--dt-matching", *find],
                        ["getscu", *to, option, "--relational-retrieval", "-od", out, *get],
                        ["movescu", *to, option, "--relational-retrieval", "-aem", "PYNETDICOM", *get],
                    ]
            ran = await run(sys.executable, "-c", _PROGRAMS, _ROOT, json.dumps(programs), cwd=tmp_path)
    ran.check()
    expected = sorted(
        str(header.SOPInstanceUID)
        for _, levels in MODELS
        for level in (levels[0], levels[-1])
        for header in query_for(levels, level, find=False)[1]
    )
    assert sorted(came) == expected
    assert sorted(path.name.partition(".")[2] for path in (tmp_path / "out").rglob("*.*")) == expected
    assert ran.output.count("Result: 0x0000 (Success)") == len(programs)


# The program


@requires_dcmtk
@on_asyncio
async def test_the_archive_command_serves_all_of_dcmtks_clients(
    tmp_path: Path, storescp: DcmtkServer, test_files: Path
) -> None:
    (tmp_path / "out").mkdir()
    study_keys = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
    peer_option = f"DCMTK@127.0.0.1:{storescp.port}"
    with archive_process(tmp_path / "archive", "--peer", peer_option) as archive:
        port = archive.port
        (await client("echoscu", port)).check()
        stored = await client("dcmsend", port, "-nh", "+sd", "+r", files=(test_files / "dicomdirtests",))
        assert stored.returncode == 0, stored.output
        found = await client("findscu", port, "-P", *keys("QueryRetrieveLevel=PATIENT", "PatientID"))
        assert found.output.count("(Pending)") > 1
        (await client("getscu", port, "-P", "-od", tmp_path / "out", *study_keys)).check()
        (await client("movescu", port, "-P", "-aem", "DCMTK", *study_keys)).check()
        archive.stop()
    assert len(kept(storescp.files())) == len(kept_in(tmp_path / "out")) == len(of(PatientID=PATIENT))
