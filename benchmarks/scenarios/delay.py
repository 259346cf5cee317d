"""C-STORE through a long line."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..bench import Bench, Contender, Sample, Scenario, absolute, faster, ratio
from ..material import Files, make_files
from ..sides import call, command, ours, pynetdicom, relay, storescp
from .names import DCMTK, PYNETDICOM
from .store import storescu

__all__ = ["SCENARIOS"]

#: Seconds, in each direction.
_DELAY = 0.04
_LONGER = 0.05


def _window(number: int) -> str:
    return f"asyncdicom → asyncdicom (window {number})"


def _ours(bench: Bench, files: Files, delay: float, window: int, count: int) -> Sample:
    with ours(bench) as served, relay(bench, served, delay) as far:
        sample = call(
            bench,
            "ours",
            far,
            "store",
            source=str(files.folder),
            warm=str(files.warm),
            count=count,
            window=window,
        )
        served.check_received(count)
        outstanding = served.facts()["outstanding"]
        if outstanding > window:
            raise AssertionError(f"{outstanding} requests were outstanding at the receiver, {window} were negotiated")
        return Sample(
            seconds=sample.seconds,
            client_cpu=sample.client_cpu,
            server_cpu=sample.server_cpu,
            client_peak=sample.client_peak,
            server_peak=sample.server_peak,
            extra={"outstanding": outstanding},
        )


def _dcmtk(bench: Bench, files: Files, count: int) -> Sample:
    with storescp(bench) as served, relay(bench, served, _DELAY) as far:
        sent, empty = storescu(far, [files.warm, *files.paths[:count]]), storescu(far, [files.warm])
        return command(bench, far, [sent], [empty], key="storescu far")


def _pynetdicom(bench: Bench, files: Files, count: int) -> Sample:
    with pynetdicom(bench) as served, relay(bench, served, _DELAY) as far:
        options: dict[str, Any] = {"source": str(files.folder), "warm": str(files.warm), "count": count}
        return call(bench, "theirs", far, "store", **options)


def _delay(bench: Bench) -> list[Contender]:
    files = make_files(bench.folder / "source", bench.size(400, 64), 16 << 10)

    def make(name: str, function: Any, share: int, most: int | None = None) -> Contender:
        return Contender(name=name, run=partial(function, count=share), part=share / files.count, most=most)

    few = bench.size(30, 4)
    return [
        make(_window(1), partial(_ours, bench, files, _DELAY, 1), few),
        make(_window(4), partial(_ours, bench, files, _DELAY, 4), 4 * few),
        make(_window(16), partial(_ours, bench, files, _DELAY, 16), files.count),
        make(_window(64), partial(_ours, bench, files, _DELAY, 64), files.count),
        make(DCMTK, partial(_dcmtk, bench, files), few, 2),
        make(PYNETDICOM, partial(_pynetdicom, bench, files), few, 2),
    ]


def _windows(bench: Bench) -> list[Contender]:
    files = make_files(bench.folder / "source", bench.size(200, 32), 16 << 10)
    return [
        Contender(
            name=_window(number),
            run=partial(_ours, bench, files, _LONGER, number, files.count),
            most=1 if number == 1 else None,
        )
        for number in (1, 16)
    ]


_EQUAL = (
    "the files, in memory-backed folders on both sides; one association; from the first request to the last response"
)
_UNEQUAL = "DCMTK and pynetdicom have no asynchronous operations window: one instance at a time"

SCENARIOS = (
    Scenario(
        name="delay",
        title="C-STORE of 400 CT of 16 KiB through 40 ms of delay in each direction",
        contenders=_delay,
        operations=(400, 64),
        size=(16 << 10, 16 << 10),
        equal=f"{_EQUAL}; the relay: 40 ms each way, no limit of bandwidth",
        unequal=f"{_UNEQUAL}; storescu is a whole process less an empty run; with windows of 1 and 4, and without one, "
        "part of the instances are sent, and the times extrapolated per instance",
        reference=DCMTK,
        goals=(
            faster(_window(16), DCMTK, 10, "faster than DCMTK"),
            faster(_window(16), PYNETDICOM, 10, "faster than pynetdicom"),
        ),
    ),
    Scenario(
        name="window",
        title="C-STORE of 200 CT of 16 KiB through 50 ms of delay in each direction",
        contenders=_windows,
        operations=(200, 32),
        size=(16 << 10, 16 << 10),
        equal=f"{_EQUAL}; the relay: 50 ms each way, no limit of bandwidth; the receiver counts what is outstanding",
        unequal="the window",
        reference=_window(1),
        goals=(
            ratio(_window(16), _window(1), 0.1, "time of a window of 1"),
            absolute(
                _window(16),
                lambda result: result.extra["outstanding"],
                "outstanding at the receiver",
                at_most=16,
                unit="",
            ),
        ),
    ),
)
