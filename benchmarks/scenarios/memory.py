"""Memory: an instance of 1 GiB, stored and retrieved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..bench import Bench, Contender, Goal, Result, Sample, Scenario, absolute
from ..material import Files, make_files
from ..sides import archive, call, command, ours, storescp
from .names import DCMTK
from .store import storescu

__all__ = ["SCENARIOS"]

_MIB = 1 << 20
_BLOCK = 1 << 22

_STORE = "C-STORE, asyncdicom → asyncdicom"
_GET = "C-GET, asyncdicom → asyncdicom"
_ARCHIVE = "C-STORE, asyncdicom → asyncdicom archive"
_GET_ARCHIVE = "C-GET, asyncdicom → asyncdicom archive"


def _check_same(one: Path, other: Path) -> None:
    """Check that two files end in the same data set; their meta headers may differ in length."""
    with one.open("rb") as first, other.open("rb") as second:
        size = min(one.stat().st_size, other.stat().st_size) - 4096
        first.seek(-size, 2)
        second.seek(-size, 2)
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                raise AssertionError("what arrived is not what was sent")


def _only(folder: Path, size: int) -> Path:
    """Return the one large file below a folder."""
    (found,) = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > size // 2)
    return found


def _store(bench: Bench, files: Files, *, loop: str = "", to_archive: bool = False) -> Sample:
    loop = loop or bench.loop
    with archive(bench, loop=loop) if to_archive else ours(bench, loop) as served:
        sample = call(bench, "ours", served, "store", loop=loop, source=str(files.folder), warm=str(files.warm))
        _check_same(files.paths[0], _only(served.out, files.size))
        return sample


def _get(bench: Bench, files: Files, *, loop: str = "") -> Sample:
    loop = loop or bench.loop
    out = bench.fresh()
    try:
        with ours(bench, loop, source=str(files.folder)) as served:
            sample = call(bench, "ours", served, "get", loop=loop, count=1, out=str(out))
        _check_same(files.paths[0], _only(out, files.size))
        return sample
    finally:
        shutil.rmtree(out)


def _get_from_archive(bench: Bench, files: Files) -> Sample:
    out = bench.fresh()
    try:
        with archive(bench) as served:
            call(bench, "ours", served, "store", source=str(files.folder), warm=str(files.warm))
            sample = call(bench, "ours", served, "get", count=1, out=str(out))
        _check_same(files.paths[0], _only(out, files.size))
        return sample
    finally:
        shutil.rmtree(out)


def _dcmtk(bench: Bench, files: Files) -> Sample:
    with storescp(bench) as served:
        return command(
            bench,
            served,
            [storescu(served, [files.warm, *files.paths])],
            [storescu(served, [files.warm])],
            key="storescu",
        )


def _memory(bench: Bench) -> list[Contender]:
    size = bench.size(1 << 30, 1 << 26)
    bench.need(3 * size)
    files = make_files(bench.folder / "source", 1, size)
    found = [
        Contender(name=_STORE, run=partial(_store, bench, files), note=bench.loop, most=2),
        Contender(name=_GET, run=partial(_get, bench, files), note=bench.loop, most=2),
    ]
    for loop in ("asyncio", "trio"):
        if loop in bench.loops and loop != bench.loop:
            found += [
                Contender(name=f"{_STORE} ({loop})", run=partial(_store, bench, files, loop=loop), most=1, minor=True),
                Contender(name=f"{_GET} ({loop})", run=partial(_get, bench, files, loop=loop), most=1, minor=True),
            ]
    return [
        *found,
        Contender(name=_ARCHIVE, run=partial(_store, bench, files, to_archive=True), most=1),
        Contender(name=_GET_ARCHIVE, run=partial(_get_from_archive, bench, files), most=1),
        Contender(name=f"C-STORE, {DCMTK}", run=partial(_dcmtk, bench, files), most=1),
    ]


def _goal(of: str, read: Callable[[Result], float | None], side: str) -> Goal:
    return absolute(of, read, f"{of}: memory of the {side} above the start", at_most=64 * _MIB, unit="B")


SCENARIOS = (
    Scenario(
        name="memory",
        title="An instance of 1 GiB, stored and retrieved",
        contenders=_memory,
        size=(1 << 30, 1 << 26),
        equal="the instance, from file to file in memory-backed folders; what arrived is compared with what was sent",
        unequal="storescu is a whole process less an empty run; pynetdicom is left out, as it holds the instance several times",
        reference=f"C-STORE, {DCMTK}",
        goals=tuple(
            _goal(of, read, side)
            for of in (_STORE, _GET, _ARCHIVE, _GET_ARCHIVE)
            for read, side in ((lambda r: r.client_peak, "client"), (lambda r: r.server_peak, "server"))
        ),
    ),
)
