"""C-FIND, C-GET and C-MOVE."""

from __future__ import annotations

import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

from .. import material
from ..bench import Bench, Contender, Sample, Scenario, faster, has_program, ratio
from ..material import Files, make_files
from ..processes import run_commands
from ..sides import Served, archive, call, command, dcmqrscp, ours, pynetdicom, storescp
from .names import DCMTK, FROM_PYNETDICOM, OURS, OURS_ASYNCIO, OURS_TRIO, PYNETDICOM, TO_PYNETDICOM

__all__ = ["SCENARIOS", "archived"]

_FINDSCU = "findscu → asyncdicom"
_FINDSCU_ARCHIVE = "findscu → asyncdicom archive"
_ARCHIVE = "asyncdicom → asyncdicom archive"
_DATA_SETS = "asyncdicom → asyncdicom (yields data sets)"
_TO_DCMQRSCP = "asyncdicom → dcmqrscp"
_GETSCU = "getscu → asyncdicom"
_MOVESCU = "movescu → asyncdicom"


def archived(bench: Bench, files: Files) -> Path:
    """Return the folder of an archive of ours that holds the files."""
    folder = bench.fresh("archive")
    with archive(bench, folder=folder) as served:
        call(bench, "ours", served, "store", source=str(files.folder), warm=str(files.warm), window=16)
    return folder


def _indexed(bench: Bench, files: Files) -> Path:
    """Return the folder of an index of dcmqrscp's that holds the files."""
    folder = bench.fresh("dcmqrscp")
    if has_program("dcmqridx"):
        run_commands([["dcmqridx", folder, *files.paths]], bench.folder, timeout=120)
    return folder


def _keys(keys: dict[str, str], study: str) -> list[object]:
    return [
        part
        for keyword, value in keys.items()
        for part in ("-k", f"{keyword}={study if keyword == 'StudyInstanceUID' else value}")
    ]


_RETRIEVE_KEYS = {
    "QueryRetrieveLevel": "SERIES",
    "StudyInstanceUID": material.STUDY,
    "SeriesInstanceUID": material.SERIES,
}


# C-FIND.


def _findscu(bench: Bench, served: Served, key: str) -> Sample:
    def query(study: str) -> list[object]:
        return [
            "findscu",
            "--hide-responses",
            "-S",
            "-aec",
            served.called,
            *_keys(material.QUERY, study),
            "127.0.0.1",
            served.port,
        ]

    return command(bench, served, [query(material.STUDY)], [query(material.NOBODY)], key=f"findscu {key}")


def _find_ours(bench: Bench, count: int, *, loop: str = "", **more: Any) -> Sample:
    with ours(bench, loop, matches=count, **more) as served:
        return call(bench, "ours", served, "find", count=count, loop=loop or bench.loop)


def _find_by_findscu(bench: Bench, count: int) -> Sample:
    with ours(bench, matches=count) as served:
        return _findscu(bench, served, "ours")


def _find_pynetdicom(bench: Bench, count: int) -> Sample:
    with pynetdicom(bench, matches=count) as served:
        return call(bench, "theirs", served, "find", count=count)


def _find_from_pynetdicom(bench: Bench, count: int) -> Sample:
    with ours(bench, matches=count) as served:
        return call(bench, "theirs", served, "find", count=count)


def _find_to_pynetdicom(bench: Bench, count: int) -> Sample:
    with pynetdicom(bench, matches=count) as served:
        return call(bench, "ours", served, "find", count=count)


def _find(bench: Bench) -> list[Contender]:
    count = bench.size(2000, 100)
    files = make_files(bench.folder / "source", count, 4096)
    ours_archive = cache(lambda: archived(bench, files))
    their_archive = cache(lambda: _indexed(bench, files))

    def to_dcmqrscp() -> Sample:
        with dcmqrscp(bench, their_archive()) as served:
            return call(bench, "ours", served, "find", count=count)

    def dcmtk() -> Sample:
        with dcmqrscp(bench, their_archive()) as served:
            return _findscu(bench, served, "dcmqrscp")

    def to_archive(client: str) -> Sample:
        with archive(bench, folder=ours_archive()) as served:
            if client == "findscu":
                return _findscu(bench, served, "archive")
            return call(bench, client, served, "find", count=count)

    return [
        *_loops(bench, partial(_find_ours, bench, count)),
        Contender(name=_DATA_SETS, run=partial(_find_ours, bench, count, data_sets=True)),
        Contender(name=_ARCHIVE, run=partial(to_archive, "ours")),
        Contender(name=_FINDSCU, run=partial(_find_by_findscu, bench, count)),
        Contender(name=_FINDSCU_ARCHIVE, run=partial(to_archive, "findscu")),
        Contender(name=_TO_DCMQRSCP, run=to_dcmqrscp),
        Contender(name=DCMTK, run=dcmtk, note="findscu → dcmqrscp"),
        Contender(name=TO_PYNETDICOM, run=partial(_find_to_pynetdicom, bench, count), minor=True),
        Contender(name=FROM_PYNETDICOM, run=partial(_find_from_pynetdicom, bench, count), minor=True),
        Contender(name=PYNETDICOM, run=partial(_find_pynetdicom, bench, count)),
    ]


def _loops(bench: Bench, function: Any, most: int | None = None) -> list[Contender]:
    """Both sides ours, on each event loop that is installed."""
    found = [Contender(name=OURS, run=function, note=f"{bench.loop} on both sides", most=most)]
    for name, loop in ((OURS_ASYNCIO, "asyncio"), (OURS_TRIO, "trio")):
        if loop in bench.loops and loop != bench.loop:
            found.append(Contender(name=name, run=partial(function, loop=loop), most=most, minor=True))
    return found


def _find_many(bench: Bench) -> list[Contender]:
    count, few = bench.size(100_000, 2000), bench.size(2000, 100)
    part = few / count
    return [
        *_loops(bench, partial(_find_ours, bench, count), most=2),
        Contender(name=_FINDSCU, run=partial(_find_by_findscu, bench, count), most=2),
        Contender(name=TO_PYNETDICOM, run=partial(_find_to_pynetdicom, bench, few), part=part, most=1, minor=True),
        Contender(name=FROM_PYNETDICOM, run=partial(_find_from_pynetdicom, bench, few), part=part, most=1, minor=True),
        Contender(name=PYNETDICOM, run=partial(_find_pynetdicom, bench, few), part=part, most=1),
    ]


# C-GET and C-MOVE.


def _getscu(bench: Bench, served: Served, count: int, key: str) -> Sample:
    out = bench.fresh()

    def query(study: str) -> list[object]:
        return [
            "getscu", "--bit-preserving", "-S", "-aec", served.called, "-od", out,
            *_keys(_RETRIEVE_KEYS, study), "127.0.0.1", served.port,
        ]  # fmt: skip

    try:
        sample = command(bench, served, [query(material.STUDY)], [query(material.NOBODY)], key=f"getscu {key}")
        _received(out, count)
        return sample
    finally:
        shutil.rmtree(out)


def _received(out: Path, count: int) -> None:
    found = sum(1 for path in out.iterdir() if path.is_file())
    if found != count:
        raise AssertionError(f"{found} files were retrieved instead of {count}")


def _get_by(bench: Bench, client: str, served: Served, count: int, **more: Any) -> Sample:
    out = bench.fresh()
    try:
        sample = call(bench, client, served, "get", count=count, out=str(out), **more)
        _received(out, count)
        return sample
    finally:
        shutil.rmtree(out)


def _get(bench: Bench) -> list[Contender]:
    count, few = bench.size(400, 20), bench.size(20, 2)
    bench.need(4 * count * (512 << 10))
    files = make_files(bench.folder / "source", count, 512 << 10)
    part = make_files(bench.folder / "part", few, 512 << 10)
    ours_archive = cache(lambda: archived(bench, files))
    their_archive = cache(lambda: _indexed(bench, files))

    def both(loop: str = "") -> Sample:
        with ours(bench, loop, source=str(files.folder)) as served:
            return _get_by(bench, "ours", served, count, loop=loop or bench.loop)

    def from_archive() -> Sample:
        with archive(bench, folder=ours_archive()) as served:
            return _get_by(bench, "ours", served, count, warm=str(files.warm))

    def getscu() -> Sample:
        with ours(bench, source=str(files.folder)) as served:
            return _getscu(bench, served, count, "ours")

    def dcmtk(client: str) -> Sample:
        with dcmqrscp(bench, their_archive()) as served:
            if client == "getscu":
                return _getscu(bench, served, count, "dcmqrscp")
            return _get_by(bench, "ours", served, count)

    def pynetdicoms(client: str) -> Sample:
        with pynetdicom(bench, source=str(part.folder)) as served:
            return _get_by(bench, client, served, few)

    def from_pynetdicom() -> Sample:
        with ours(bench, source=str(part.folder)) as served:
            return _get_by(bench, "theirs", served, few)

    slow: dict[str, Any] = {"part": few / count, "most": 2}
    return [
        *_loops(bench, both),
        Contender(name=_ARCHIVE, run=from_archive),
        Contender(name=_GETSCU, run=getscu),
        Contender(name=_TO_DCMQRSCP, run=partial(dcmtk, "ours")),
        Contender(name=DCMTK, run=partial(dcmtk, "getscu"), note="getscu → dcmqrscp"),
        Contender(name=TO_PYNETDICOM, run=partial(pynetdicoms, "ours"), **slow, minor=True),
        Contender(name=FROM_PYNETDICOM, run=from_pynetdicom, **slow, minor=True),
        Contender(name=PYNETDICOM, run=partial(pynetdicoms, "theirs"), **slow),
    ]


def _movescu(bench: Bench, served: Served, key: str) -> Sample:
    def query(study: str) -> list[object]:
        return [
            "movescu", "-S", "-aec", served.called, "-aem", "DEST",
            *_keys(_RETRIEVE_KEYS, study), "127.0.0.1", served.port,
        ]  # fmt: skip

    return command(bench, served, [query(material.STUDY)], [query(material.NOBODY)], key=f"movescu {key}")


def _move(bench: Bench) -> list[Contender]:
    count = bench.size(400, 20)
    bench.need(4 * count * (512 << 10))
    files = make_files(bench.folder / "source", count, 512 << 10)
    their_archive = cache(lambda: _indexed(bench, files))
    ours_archive = cache(lambda: archived(bench, files))

    def sample(served: Served, destination: Served, client: str, key: str, **more: Any) -> Sample:
        both = Served(
            port=served.port,
            called=served.called,
            processes=[*served.processes, *destination.processes],
            out=served.out,
        )
        by_program = client == "movescu"
        found = _movescu(bench, both, key) if by_program else call(bench, "ours", both, "move", count=count, **more)
        destination.check_received(count)
        return found

    def both_ours(loop: str = "", client: str = "ours") -> Sample:
        with ours(bench, loop) as destination:
            peers = {"DEST": f"BENCH@127.0.0.1:{destination.port}"}
            with ours(bench, loop, source=str(files.folder), peers=peers) as served:
                return sample(served, destination, client, "ours", loop=loop or bench.loop)

    def to_storescp() -> Sample:
        with storescp(bench) as destination:
            peers = {"DEST": f"BENCH@127.0.0.1:{destination.port}"}
            with ours(bench, source=str(files.folder), peers=peers) as served:
                return sample(served, destination, "ours", "")

    def from_archive() -> Sample:
        folder = ours_archive()
        with ours(bench) as destination:
            peer = f"DEST@127.0.0.1:{destination.port}"
            with archive(bench, "--peer", peer, folder=folder) as served:
                return sample(served, destination, "ours", "")

    def dcmtk(client: str, *, destination_ours: bool) -> Sample:
        with ours(bench) if destination_ours else storescp(bench) as destination:
            with dcmqrscp(bench, their_archive(), peers={"DEST": destination.port}) as served:
                return sample(served, destination, client, "dcmqrscp")

    return [
        *_loops(bench, both_ours),
        Contender(name="asyncdicom → asyncdicom → storescp", run=to_storescp),
        Contender(name="asyncdicom → asyncdicom archive → asyncdicom", run=from_archive),
        Contender(name=_MOVESCU, run=partial(both_ours, client="movescu")),
        Contender(name="asyncdicom → dcmqrscp → asyncdicom", run=partial(dcmtk, "ours", destination_ours=True)),
        Contender(
            name=DCMTK, run=partial(dcmtk, "movescu", destination_ours=False), note="movescu → dcmqrscp → storescp"
        ),
    ]


_PROGRAMS = "findscu is a whole process less an empty run with a query without matches, the others' clients are running"

SCENARIOS = (
    Scenario(
        name="find",
        title="C-FIND of 2 000 matches",
        contenders=_find,
        operations=(2000, 100),
        equal="the query, at IMAGE level; the matches, of six elements; each is decoded by the client, and a value read",
        unequal="dcmqrscp and asyncdicom archive search an index of the same instances; our other server and pynetdicom's are "
        f"handlers that yield what was made beforehand, ours encoded unless named otherwise; {_PROGRAMS}",
        reference=DCMTK,
        goals=(
            ratio(_FINDSCU, DCMTK, 1.0, "our SCP with findscu: time of findscu → dcmqrscp"),
            ratio(_FINDSCU_ARCHIVE, DCMTK, 1.0, "our archive with findscu: time of findscu → dcmqrscp"),
            ratio(_TO_DCMQRSCP, DCMTK, 1.0, "our SCU with dcmqrscp: time of findscu → dcmqrscp"),
            faster(OURS, PYNETDICOM, 5, "faster than pynetdicom"),
            faster(_ARCHIVE, PYNETDICOM, 5, "our archive: faster than pynetdicom"),
        ),
    ),
    Scenario(
        name="find-many",
        title="C-FIND of 100 000 matches",
        contenders=_find_many,
        operations=(100_000, 2000),
        equal="the query, at IMAGE level; the matches, of six elements; each is decoded by the client, and a value read",
        unequal="the servers are handlers that yield what was made beforehand, ours encoded, pynetdicom's as data sets; "
        f"{_PROGRAMS}; pynetdicom gives 2 000 matches, and its times are extrapolated; dcmqrscp is left out, as its index "
        "takes hours to fill",
        reference=PYNETDICOM,
        goals=(faster(OURS, PYNETDICOM, 5, "faster than pynetdicom"),),
    ),
    Scenario(
        name="get",
        title="C-GET of 400 CT of 512 KiB",
        contenders=_get,
        operations=(400, 20),
        size=(512 << 10, 512 << 10),
        equal="the instances; from files to files in memory-backed folders; one association; no fsync",
        unequal="dcmqrscp and asyncdicom archive search an index, the other servers are handlers that yield the files; "
        "getscu is a whole process less an empty run without matches, the others' clients are running; pynetdicom sends part "
        "of the instances, and its times are extrapolated per instance",
        reference=DCMTK,
    ),
    Scenario(
        name="move",
        title="C-MOVE of 400 CT of 512 KiB",
        contenders=_move,
        operations=(400, 20),
        size=(512 << 10, 512 << 10),
        equal="the instances; from files to files in memory-backed folders; one association to the destination; no fsync",
        unequal="dcmqrscp and asyncdicom archive search an index, our other server is a handler that yields the files; "
        "movescu is a whole process less an empty run without matches, our client is running; the server's figures are those "
        "of the server and the destination together; between ours, sub-operations use the negotiated window",
        reference=DCMTK,
    ),
)
