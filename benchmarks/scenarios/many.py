"""Many associations at once: what each costs, and whether one has to wait for the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from ..bench import Bench, Contender, Goal, Result, Sample, Scenario, Skip, absolute
from ..material import Files, make_files
from ..processes import start_worker
from ..sides import Served, call, ours, pynetdicom, storescp
from ..worker import raise_descriptor_limit

__all__ = ["SCENARIOS"]

_KIB = 1024


def _held(count: int, loop: str = "") -> str:
    return f"asyncdicom, {count} associations" + (f" ({loop})" if loop else "")


def _hold(bench: Bench, module: str, count: int, loop: str = "") -> Sample:
    """Open associations, see what the server does while nothing happens, and echo on each."""
    loop = loop or bench.loop
    if raise_descriptor_limit() < count + 200:
        raise Skip(f"{count} associations need as many open files: raise 'ulimit -Hn'")
    with ours(bench, loop) if module == "ours" else pynetdicom(bench) as served:
        options = {"verb": "hold", "port": served.port, "count": count, "loop": loop}
        with start_worker(module, "call", options, bench.folder, timeout=300) as client:
            client.receive()
            (server,) = served.processes
            before, before_client = server.resident(), client.resident()
            served.mark()
            client.go()
            opened = client.receive()
            if opened["held"] != count:
                raise AssertionError(f"{opened['held']} associations of {count} were accepted")
            extra = {"opened_per_second": count / opened["seconds"]}
            if before is not None and (after := server.resident()) is not None:
                extra["memory_each"] = (after - before) / count
            if before_client is not None and (after := client.resident()) is not None:
                extra["client_memory_each"] = (after - before_client) / count
            extra |= _idle(bench, served)
            client.go()
            echoed = client.receive()
            client.go()
            client.receive()
            return Sample(
                seconds=opened["seconds"],
                client_cpu=opened["cpu"],
                client_peak=opened["peak"],
                server_cpu=served.cpu(),
                server_peak=served.growth(),
                extra={**extra, **echoed["extra"]},
            )


def _idle(bench: Bench, served: Served) -> dict[str, float]:
    """Return which share of a core the server takes while all associations are idle."""
    seconds = bench.size(4, 1)
    time.sleep(0.5)  # what follows from opening the last ones is no idleness
    begun, before = time.perf_counter(), served.cpu()
    time.sleep(seconds)
    after, span = served.cpu(), time.perf_counter() - begun
    return {} if before is None or after is None else {"idle_cpu": (after - before) / span}


def _many(bench: Bench) -> list[Contender]:
    counts = (50, 200) if bench.quick else (100, 1000, 5000, 10_000)
    found = [
        Contender(name=_held(count), run=partial(_hold, bench, "ours", count), most=2 if count < 1000 else 1)
        for count in counts
    ]
    other = 200 if bench.quick else 1000
    for loop in ("asyncio", "trio"):
        if loop in bench.loops and loop != bench.loop:
            found.append(
                Contender(name=_held(other, loop), run=partial(_hold, bench, "ours", other, loop), most=1, minor=True)
            )
    few = bench.size(100, 10)
    theirs = Contender(name=f"pynetdicom, {few} associations", run=partial(_hold, bench, "theirs", few), most=1)
    return [*found, theirs]


def _extra(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.extra.get(name)


def _goals(count: int) -> tuple[Goal, ...]:
    of = _held(count)
    return (
        absolute(of, _extra("memory_each"), f"memory of each of {count}", at_most=30 * _KIB, unit="B"),
        absolute(of, _extra("idle_cpu"), f"share of a core while {count} are idle", at_most=0.02, unit="%"),
        absolute(of, _extra("echo_p99"), f"echo on each of {count}, 99th percentile", at_most=0.05),
    )


# Fairness.

_OURS = "asyncdicom"


def _beside(bench: Bench, server: AbstractContextManager[Served], files: Files, *, busy: bool) -> Sample:
    """Echo again and again, while 4 associations of another process store at full speed."""
    echo = {"count": bench.size(200, 40), "pause": 0.005}
    with server as served:
        if not busy:
            return _latency(call(bench, "ours", served, "echo", **echo))
        options = {
            "verb": "store until told",
            "port": served.port,
            "called": served.called,
            "loop": bench.loop,
            "source": str(files.folder),
            "associations": 4,
        }
        with start_worker("ours", "call", options, bench.folder, timeout=120) as storing:
            storing.receive()
            storing.go()
            storing.receive()  # they are at it
            sample = call(bench, "ours", served, "echo", **echo)
            storing.go()
            facts = storing.receive()
        rate = facts["stored"] * files.size / facts["seconds"]
        return _latency(sample, bytes_per_second=rate)


def _latency(sample: Sample, **more: float) -> Sample:
    """Return the 99th percentile as what was measured."""
    return Sample(
        seconds=sample.extra["p99"],
        client_cpu=sample.client_cpu,
        server_cpu=sample.server_cpu,
        client_peak=sample.client_peak,
        server_peak=sample.server_peak,
        extra={**sample.extra, **more},
    )


def _fairness(bench: Bench) -> list[Contender]:
    files = make_files(bench.folder / "source", 40, 512 << 10)

    def contender(name: str, server: Callable[[], AbstractContextManager[Served]], *, busy: bool = True) -> Contender:
        return Contender(name=name, run=lambda: _beside(bench, server(), files, busy=busy))

    found = [
        contender(_OURS, lambda: ours(bench)),
        contender("asyncdicom, nothing beside", lambda: ours(bench), busy=False),
    ]
    for loop in ("asyncio", "trio"):
        if loop in bench.loops and loop != bench.loop:
            found.append(contender(f"{_OURS} ({loop})", partial(ours, bench, loop)))
    return [
        *found,
        contender("storescp --fork", lambda: storescp(bench, forks=True)),
        contender("storescp --fork, nothing beside", lambda: storescp(bench, forks=True), busy=False),
        contender("pynetdicom", lambda: pynetdicom(bench)),
    ]


SCENARIOS = (
    Scenario(
        name="held",
        title="Associations held open in one process",
        contenders=_many,
        equal="Verification; opened by one client process, 50 at a time; then nothing for a while, then an echo on each, one "
        "after the other, then all at once",
        unequal="pynetdicom holds 100, 20 at a time; memory is the server's resident set, the kernel's buffers not included",
        reference=_held(1000),
        charted="memory_each",
        goals=_goals(10_000),
    ),
    Scenario(
        name="fairness",
        title="C-ECHO beside 4 associations that store CT of 512 KiB at full speed: 99th percentile",
        contenders=_fairness,
        equal="the clients, ours, are two processes: one stores over 4 associations, one echoes every few milliseconds",
        unequal="ours is one process, pynetdicom's has threads, storescp forks; how much is stored meanwhile "
        "(bytes_per_second) follows from the server",
        reference="storescp --fork",
        goals=(absolute(_OURS, lambda result: result.seconds, "echo, 99th percentile", at_most=0.05),),
    ),
)
