"""C-STORE from disk to disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..bench import Bench, Contender, Goal, Result, Sample, Scenario, Skip, absolute, faster, has_program, ratio
from ..material import Files, make_files
from ..processes import run_commands
from ..sides import (
    NODELAY,
    STOCK,
    Served,
    asyncdicom_program,
    call,
    certificates,
    command,
    ours,
    plain,
    pynetdicom,
    receive,
    storescp,
)
from .names import (
    DCMTK,
    DCMTK_LONG,
    DCMTK_STOCK,
    DCMTK_TLS,
    FROM_DCMTK,
    FROM_PYNETDICOM,
    OURS,
    OURS_ASYNCIO,
    OURS_TLS,
    OURS_TRIO,
    PLAIN,
    PYNETDICOM,
    TO_DCMTK,
    TO_PYNETDICOM,
)

__all__ = ["SCENARIOS", "storescu"]

_COMMANDS = "asyncdicom store → asyncdicom receive"
_TO_RECEIVE = "storescu (stock) → asyncdicom receive"
_WINDOW = "asyncdicom → asyncdicom (window 16)"
_ALONE = "asyncdicom → asyncdicom (store() in a loop)"
_WORKERS = "asyncdicom → asyncdicom receive --workers 2"
_RECEIVE = "asyncdicom → asyncdicom receive"

_MIB = 1 << 20


def storescu(served: Served, paths: Sequence[Any], *options: object) -> list[object]:
    """Return the command line of storescu; it proposes only what the files need."""
    return ["storescu", "-R", "-aec", served.called, *options, "127.0.0.1", served.port, *paths]


class _Store:
    """Sending a set of files by every pair of sides."""

    def __init__(self, bench: Bench, files: Files, *, associations: int = 1) -> None:
        self.bench = bench
        self.files = files
        self.associations = associations

    def contender(self, name: str, function: Any, *, share: int | None = None, **more: Any) -> Contender:
        """Make a contender that sends ``share`` of the files, or all."""
        count = min(share or self.files.count, self.files.count)
        return Contender(name=name, run=partial(function, count), part=count / self.files.count, **more)

    def _options(self, count: int, **more: Any) -> dict[str, Any]:
        files = self.files
        return {
            "source": str(files.folder),
            "warm": str(files.warm),
            "count": count,
            "associations": self.associations,
            **more,
        }

    def _send(self, served: Served, count: int, module: str = "ours", verb: str = "store", **more: Any) -> Sample:
        sample = call(self.bench, module, served, verb, **self._options(count, **more))
        served.check_received(count)
        return sample

    def ours(self, count: int, *, loop: str = "", tls: bool = False, verb: str = "store", **more: Any) -> Sample:
        loop = loop or self.bench.loop
        both: dict[str, Any] = {"tls": certificates(self.bench)} if tls else {}
        with ours(self.bench, loop, **both) as served:
            return self._send(served, count, verb=verb, loop=loop, **both, **more)

    def to_dcmtk(self, count: int, *, verb: str = "store") -> Sample:
        with storescp(self.bench, forks=self.associations > 1) as served:
            return self._send(served, count, verb=verb)

    def to_pynetdicom(self, count: int) -> Sample:
        with pynetdicom(self.bench) as served:
            return self._send(served, count)

    def to_receive(self, count: int, *options: str) -> Sample:
        with receive(self.bench, *options) as served:
            return self._send(served, count)

    def pynetdicom(self, count: int, *, verb: str = "store") -> Sample:
        with pynetdicom(self.bench) as served:
            return self._send(served, count, "theirs", verb)

    def from_pynetdicom(self, count: int, *, verb: str = "store") -> Sample:
        with ours(self.bench) as served:
            return self._send(served, count, "theirs", verb)

    def plain(self, count: int) -> Sample:
        with plain(self.bench) as served:
            return self._send(served, count, "plain")

    def _storescu(self, served: Served, count: int, key: str, environment: Any, *options: object) -> Sample:
        """Send by as many storescu at once as there are associations."""
        number = self.associations
        paths = self.files.paths[:count]
        sample = command(
            self.bench,
            served,
            [storescu(served, [self.files.warm, *paths[n::number]], *options) for n in range(number)],
            [storescu(served, [self.files.warm], *options)] * number,
            key=f"storescu {key} {number}",
            environment=environment,
        )
        served.check_received(count)
        return sample

    def dcmtk(self, count: int, *, environment: Any = NODELAY, long: bool = False, tls: bool = False) -> Sample:
        """Send by storescu to storescp.

        :param long: let both announce 128 KiB, which is the most they can and what we announce.
        """
        size: list[object] = ["--max-pdu", 131_072] if long else []
        client, server = list(size), list(size)
        if tls:
            files = certificates(self.bench)
            client += ["+tla", "-ic"]
            server += ["+tls", files["key"], files["cert"], "-ic"]
        key = f"{environment} {long} {tls}"
        with storescp(self.bench, environment, *server, forks=self.associations > 1) as served:
            return self._storescu(served, count, key, environment, *client)

    def from_dcmtk(self, count: int, *, environment: Any = NODELAY) -> Sample:
        with ours(self.bench) as served:
            return self._storescu(served, count, f"ours {environment}", environment)

    def stock_to_receive(self, count: int) -> Sample:
        with receive(self.bench) as served:
            return self._storescu(served, count, "receive", STOCK)

    def commands(self, count: int) -> Sample:
        """Send by ``asyncdicom store`` to ``asyncdicom receive``."""
        files = self.files
        with receive(self.bench) as served:
            store = [*asyncdicom_program(), "store", f"BENCH@127.0.0.1:{served.port}"]
            sample = command(
                self.bench,
                served,
                [[*store, files.warm, *files.paths[:count]]],
                [[*store, files.warm]],
                key="asyncdicom store",
            )
            served.check_received(count)
            return sample

    def dcmtk_each(self, count: int, *, theirs: bool) -> Sample:
        """Start a storescu for each instance; what a start alone takes is subtracted."""
        if not has_program("storescu"):
            raise Skip("storescu is not installed")
        with storescp(self.bench) if theirs else ours(self.bench) as served:
            starts = [run_commands([["storescu", "--version"]], self.bench.folder) for _ in range(5)]
            start = sorted(starts, key=lambda run: run.seconds)[2]
            served.mark()
            runs = [
                run_commands([storescu(served, [path])], self.bench.folder, environment=NODELAY)
                for path in self.files.paths[:count]
            ]
            return Sample(
                seconds=sum(run.seconds for run in runs) - count * start.seconds,
                client_cpu=max(sum(run.cpu for run in runs) - count * start.cpu, 0.0),
                server_cpu=served.cpu(),
                client_peak=max(max(run.peak for run in runs) - start.peak, 0),
                server_peak=served.growth(),
            )


def _loops(bench: Bench, store: _Store, verb: str = "store") -> list[Contender]:
    """Both sides ours, on each event loop that is installed."""
    found = [store.contender(OURS, partial(store.ours, verb=verb), note=f"{bench.loop} on both sides")]
    for name, loop in ((OURS_ASYNCIO, "asyncio"), (OURS_TRIO, "trio")):
        if loop in bench.loops and loop != bench.loop:
            found.append(store.contender(name, partial(store.ours, loop=loop, verb=verb), minor=True))
    return found


def _bulk(bench: Bench, count: int, size: int, *, share: int, stock: int | None = None) -> list[Contender]:
    """Send over one association, by every pair of sides.

    :param share: how many of the files pynetdicom sends.
    :param stock: how many DCMTK sends with Nagle's algorithm.
    """
    bench.need(2 * count * size)
    store = _Store(bench, make_files(bench.folder / "source", count, size))
    make = store.contender
    return [
        *_loops(bench, store),
        make(_WINDOW, partial(store.ours, window=16)),
        make(_ALONE, partial(store.ours, alone=True), most=2),
        make(OURS_TLS, partial(store.ours, tls=True), most=2, note=f"{bench.loop} on both sides"),
        make(_COMMANDS, store.commands),
        make(TO_DCMTK, store.to_dcmtk, most=2),
        make(FROM_DCMTK, store.from_dcmtk, most=2),
        make(DCMTK, store.dcmtk),
        make(DCMTK_LONG, partial(store.dcmtk, long=True), most=2, minor=True),
        make(DCMTK_STOCK, partial(store.dcmtk, environment=STOCK), share=stock, most=2),
        make(DCMTK_TLS, partial(store.dcmtk, tls=True), most=2, minor=True),
        make(TO_PYNETDICOM, store.to_pynetdicom, share=share, most=2, minor=True),
        make(FROM_PYNETDICOM, store.from_pynetdicom, share=share, most=2, minor=True),
        make(PYNETDICOM, store.pynetdicom, share=share, most=2),
        make(PLAIN, store.plain),
    ]


_EQUAL = (
    "the files, in memory-backed folders on both sides; one association and one instance at a time, unless named otherwise; "
    "each instance is written whole to a file before its response; no fsync; the receiver does not decode the data set"
)
_UNEQUAL = (
    "announced PDU lengths are each side's default (ours 128 KiB, DCMTK 16 KiB, pynetdicom 16 KiB), unless named; "
    "we write to a temporary name and rename, storescp and pynetdicom write in place; TCP_NODELAY=1 for DCMTK, unless stock; "
    "storescu is a whole process less an empty run with one small instance, the others' clients are running and associated; "
    "storescu and pynetdicom's client parse the files, ours reads their heads; our client, which like storescu knows all files "
    "beforehand, reads the next one while the receiver is busy (store_many), unless named otherwise; "
    "the plain socket knows nothing of DICOM"
)
_SLOW = "who is slow sends part of the instances, and its times are extrapolated per instance"


def _against(dcmtk: float) -> tuple[Goal, ...]:
    return (
        ratio(OURS, DCMTK, dcmtk, "time of DCMTK with TCP_NODELAY=1"),
        faster(OURS, PYNETDICOM, 30, "faster than pynetdicom"),
    )


def _with_a_window(dcmtk: float) -> tuple[Goal, ...]:
    """The same with the window that ``asyncdicom store`` proposes unless it is told another."""
    return (
        *_against(dcmtk),
        ratio(_WINDOW, DCMTK, dcmtk, "with a window of 16: time of DCMTK with TCP_NODELAY=1"),
        faster(_WINDOW, PYNETDICOM, 30, "with a window of 16: faster than pynetdicom"),
    )


def _peak(result: Result) -> float | None:
    if result.client_peak is None or result.server_peak is None:
        return None
    return max(result.client_peak, result.server_peak)


def _ct(bench: Bench) -> list[Contender]:
    return _bulk(bench, bench.size(400, 40), 512 << 10, share=bench.size(20, 2), stock=bench.size(100, 10))


def _small(bench: Bench) -> list[Contender]:
    return _bulk(bench, bench.size(2000, 100), 16 << 10, share=bench.size(40, 4), stock=bench.size(60, 5))


def _large(bench: Bench) -> list[Contender]:
    size = bench.size(500 * 10**6, 32 * 10**6)
    bench.need(size * 2 + size // 8)
    store = _Store(bench, make_files(bench.folder / "source", 1, size))
    eighth = _Store(bench, make_files(bench.folder / "eighth", 1, size // 8))
    make = store.contender

    def slow(name: str, function: Any) -> Contender:
        return Contender(name=name, run=partial(function, 1), part=1 / 8, most=2, minor=name != PYNETDICOM)

    return [
        *_loops(bench, store),
        make(OURS_TLS, partial(store.ours, tls=True), most=2, note=f"{bench.loop} on both sides"),
        make(_COMMANDS, store.commands),
        make(TO_DCMTK, store.to_dcmtk, most=2),
        make(FROM_DCMTK, store.from_dcmtk, most=2),
        make(DCMTK, store.dcmtk),
        make(DCMTK_LONG, partial(store.dcmtk, long=True), most=2, minor=True),
        make(DCMTK_STOCK, partial(store.dcmtk, environment=STOCK), most=2),
        make(DCMTK_TLS, partial(store.dcmtk, tls=True), most=2, minor=True),
        slow(TO_PYNETDICOM, eighth.to_pynetdicom),
        slow(FROM_PYNETDICOM, eighth.from_pynetdicom),
        slow(PYNETDICOM, eighth.pynetdicom),
        make(PLAIN, store.plain),
    ]


def _stock(bench: Bench) -> list[Contender]:
    store = _Store(bench, make_files(bench.folder / "source", bench.size(400, 40), 16 << 10))
    return [
        store.contender(_TO_RECEIVE, store.stock_to_receive),
        store.contender(DCMTK_STOCK, partial(store.dcmtk, environment=STOCK), share=bench.size(60, 5)),
        store.contender(DCMTK, store.dcmtk),
    ]


def _each(bench: Bench) -> list[Contender]:
    store = _Store(bench, make_files(bench.folder / "source", bench.size(1000, 40), 16 << 10))
    make, few = store.contender, bench.size(40, 4)
    return [
        *_loops(bench, store, "store each"),
        make(TO_DCMTK, partial(store.to_dcmtk, verb="store each")),
        make(FROM_DCMTK, partial(store.dcmtk_each, theirs=False), share=few),
        make(DCMTK, partial(store.dcmtk_each, theirs=True), share=few),
        make(FROM_PYNETDICOM, partial(store.from_pynetdicom, verb="store each"), share=few, most=2, minor=True),
        make(PYNETDICOM, partial(store.pynetdicom, verb="store each"), share=few, most=2),
    ]


def _parallel(bench: Bench) -> list[Contender]:
    store = _Store(bench, make_files(bench.folder / "source", bench.size(400, 40), 512 << 10), associations=8)
    make, few = store.contender, bench.size(40, 8)
    return [
        *_loops(bench, store),
        make(_RECEIVE, store.to_receive),
        make(_WORKERS, lambda count: store.to_receive(count, "--workers", "2")),
        make(TO_DCMTK, store.to_dcmtk, most=2),
        make(FROM_DCMTK, store.from_dcmtk, most=2),
        make(DCMTK, store.dcmtk),
        make(PYNETDICOM, store.pynetdicom, share=few, most=2),
    ]


SCENARIOS = (
    Scenario(
        name="store-ct",
        title="C-STORE of 400 CT of 512 KiB over one association",
        contenders=_ct,
        operations=(400, 40),
        size=(512 << 10, 512 << 10),
        equal=_EQUAL,
        unequal=f"{_UNEQUAL}; {_SLOW}",
        reference=DCMTK,
        goals=_with_a_window(0.6),
        whole=True,
    ),
    Scenario(
        name="store-small",
        title="C-STORE of 2 000 CT of 16 KiB over one association",
        contenders=_small,
        operations=(2000, 100),
        size=(16 << 10, 16 << 10),
        equal=_EQUAL,
        unequal=f"{_UNEQUAL}; {_SLOW}",
        reference=DCMTK,
        goals=_with_a_window(0.7),
    ),
    Scenario(
        name="store-large",
        title="C-STORE of one instance of 500 MB",
        contenders=_large,
        size=(500 * 10**6, 32 * 10**6),
        equal=_EQUAL,
        unequal=f"{_UNEQUAL}; pynetdicom sends an instance of an eighth, and its times are multiplied by 8",
        reference=DCMTK,
        goals=(
            *_against(0.7),
            absolute(OURS, _peak, "peak memory above the start, of either side", at_most=64 * _MIB, unit="B"),
        ),
    ),
    Scenario(
        name="store-stock",
        title="C-STORE from a stock storescu, 400 CT of 16 KiB",
        contenders=_stock,
        operations=(400, 40),
        size=(16 << 10, 16 << 10),
        equal=f"{_EQUAL}; the sender is the same program",
        unequal=f"{DCMTK} has TCP_NODELAY=1 on both sides, the others are stock; whole processes less an empty run; {_SLOW}",
        reference=DCMTK_STOCK,
        goals=(faster(_TO_RECEIVE, DCMTK_STOCK, 40, "faster than stock storescp"),),
    ),
    Scenario(
        name="store-each",
        title="C-STORE of 1 000 CT of 16 KiB, each over an association of its own",
        contenders=_each,
        operations=(1000, 40),
        size=(16 << 10, 16 << 10),
        equal="the files, in memory-backed folders on both sides; connect, associate, store, release, one after the other",
        unequal="storescu is started for each instance, less what 'storescu --version' takes; the others' clients are "
        f"running; PDU lengths are each side's default; {_SLOW}",
        reference=DCMTK,
        goals=(faster(OURS, PYNETDICOM, 30, "faster than pynetdicom"),),
    ),
    Scenario(
        name="store-parallel",
        title="C-STORE of 400 CT of 512 KiB over 8 associations at once",
        contenders=_parallel,
        operations=(400, 40),
        size=(512 << 10, 512 << 10),
        equal=_EQUAL.replace(
            "one association and one instance at a time", "8 associations, an instance at a time on each"
        ),
        unequal="our client is one process and one thread, pynetdicom's one process with threads, DCMTK's are 8 processes; "
        f"storescp forks for each association; ours is one process, unless named otherwise; {_SLOW}",
        reference=DCMTK,
        goals=(faster(OURS, PYNETDICOM, 30, "faster than pynetdicom"),),
    ),
)
