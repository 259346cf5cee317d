"""Storing into an index, and querying a large one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from ..bench import Bench, Contender, Goal, Sample, Scenario, faster
from ..index import patient_name, series_uid, study_uid
from ..material import Files, make_files
from ..processes import start_worker
from ..sides import Served, archive, call, command, dcmqrscp, orthanc, supports
from .store import storescu

__all__ = ["SCENARIOS"]

_OURS = "asyncdicom archive"
_DCMQRSCP = "dcmqrscp"
_ORTHANC = "Orthanc"


# Ingest.


def _ingest(bench: Bench, files: Files, server: AbstractContextManager[Served], **options: int) -> Sample:
    with server as served:
        return call(bench, "ours", served, "store", source=str(files.folder), warm=str(files.warm), **options)


def _from_storescu(bench: Bench, files: Files, server: AbstractContextManager[Served], key: str) -> Sample:
    with server as served:
        many, one = storescu(served, [files.warm, *files.paths]), storescu(served, [files.warm])
        return command(bench, served, [many], [one], key=f"storescu into {key}")


def _ingests(bench: Bench) -> list[Contender]:
    files = make_files(bench.folder / "source", bench.size(2000, 100), 16 << 10)
    sync = ["--sync", "batch"] if supports("archive", "--sync") else []

    def own(*more: str) -> AbstractContextManager[Served]:
        return archive(bench, *sync, *more)

    def their() -> AbstractContextManager[Served]:
        return dcmqrscp(bench, bench.fresh("dcmqrscp"))

    return [
        Contender(name=_OURS, run=lambda: _ingest(bench, files, own())),
        Contender(name=f"{_OURS} (window 16)", run=lambda: _ingest(bench, files, own(), window=16)),
        Contender(name=f"{_OURS} (8 associations)", run=lambda: _ingest(bench, files, own(), associations=8)),
        Contender(
            name=f"{_OURS} --workers 2 (8 associations)",
            run=lambda: _ingest(bench, files, own("--workers", "2"), associations=8),
        ),
        Contender(name=f"{_OURS} --sync never", run=lambda: _ingest(bench, files, archive(bench, "--sync", "never"))),
        Contender(name=f"storescu → {_OURS}", run=lambda: _from_storescu(bench, files, own(), "ours")),
        Contender(name=_DCMQRSCP, run=lambda: _ingest(bench, files, their()), most=2),
        Contender(
            name=f"storescu → {_DCMQRSCP}", run=lambda: _from_storescu(bench, files, their(), "dcmqrscp"), most=1
        ),
        Contender(name=_ORTHANC, run=lambda: _ingest(bench, files, orthanc(bench)), most=2),
    ]


# Queries of a large index.

_QUERIES: Mapping[str, Mapping[str, str]] = {
    "a study by its UID": {
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": study_uid(1),
        "PatientName": "",
        "StudyDescription": "",
    },
    "studies by a name's beginning": {
        "QueryRetrieveLevel": "STUDY",
        "PatientName": f"{patient_name(0)[:-3]}*",
        "StudyInstanceUID": "",
    },
    "studies by a description that none has": {
        "QueryRetrieveLevel": "STUDY",
        "StudyDescription": "*absent*",
        "StudyInstanceUID": "",
    },
    "the images of a series": {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": study_uid(1),
        "SeriesInstanceUID": series_uid(5),
        "SOPInstanceUID": "",
        "InstanceNumber": "",
    },
}


def _fill(bench: Bench, count: int) -> Path:
    """Make an archive's folder with an index of so many instances, and no files."""
    folder = bench.fresh("index")
    with start_worker("index", "fill", {"folder": str(folder), "count": count}, bench.folder) as worker:
        worker.receive()
    return folder


def _queries(bench: Bench, counts: tuple[int, ...]) -> list[Contender]:
    folders: dict[int, Path] = {}
    times = bench.size(50, 5)

    def ask(count: int, query: Mapping[str, str]) -> Sample:
        if count not in folders:
            supports("archive")
            folders[count] = _fill(bench, count)
        with archive(bench, folder=folders[count]) as served:
            return call(bench, "ours", served, "query", query=dict(query), count=times)

    return [
        Contender(
            name=f"{count:,} indexed: {name}".replace(",", " "), run=partial(ask, count, query), part=times, most=1
        )
        for name, query in _QUERIES.items()
        for count in counts
    ]


def _goals() -> tuple[Goal, ...]:
    return (
        faster(_OURS, _DCMQRSCP, 5, "faster than dcmqrscp"),
        faster(_OURS, _ORTHANC, 5, "faster than Orthanc"),
    )


_SCALE_EQUAL = "the query, the client, one association; the server is the command, as it is installed"
_SCALE_UNEQUAL = "how many instances are indexed: 100 to a series, 5 series to a study, a study to a patient"

SCENARIOS = (
    Scenario(
        name="archive",
        title="Archive ingest of 2 000 CT of 16 KiB, indexed",
        contenders=_ingests,
        operations=(2000, 100),
        size=(16 << 10, 16 << 10),
        equal="the instances, and the client, ours, unless it is named; a memory-backed folder, in which fsync costs nothing; "
        "one instance at a time over one association, unless named otherwise",
        unequal="what is indexed: ours all that it can be asked for, dcmqrscp less; ours forces each batch to the disk before "
        "it answers, dcmqrscp does not; dcmqrscp forks; storescu is a whole process less an empty run",
        reference=_DCMQRSCP,
        goals=_goals(),
    ),
    Scenario(
        name="index",
        title="C-FIND in an archive of 1 000 and 100 000 instances, each of 50 queries",
        contenders=lambda bench: _queries(bench, (1000, 2000) if bench.quick else (1000, 100_000)),
        equal=_SCALE_EQUAL,
        unequal=_SCALE_UNEQUAL,
    ),
    Scenario(
        name="index-million",
        title="C-FIND in an archive of 1 000 000 instances, each of 50 queries",
        contenders=lambda bench: _queries(bench, (2000,) if bench.quick else (1_000_000,)),
        equal=_SCALE_EQUAL,
        unequal=_SCALE_UNEQUAL,
        default=False,
    ),
)
