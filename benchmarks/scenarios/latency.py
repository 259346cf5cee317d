"""Round trips, associations, and starting the commands."""

from __future__ import annotations

import compileall
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import asyncdicom

from ..bench import Bench, Contender, Goal, Sample, Scenario, absolute, faster, has_program, ratio
from ..processes import run_commands
from ..sides import asyncdicom_program, call, certificates, command, ours, plain, pynetdicom, storescp
from .names import (
    DCMTK,
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

__all__ = ["SCENARIOS"]


def _both(bench: Bench, verb: str, *, loop: str = "", tls: bool = False, **options: Any) -> Sample:
    loop = loop or bench.loop
    more = {"tls": certificates(bench)} if tls else {}
    with ours(bench, loop, **more) as served:
        return call(bench, "ours", served, verb, loop=loop, **more, **options)


def _to_dcmtk(bench: Bench, verb: str, **options: Any) -> Sample:
    with storescp(bench) as served:
        return call(bench, "ours", served, verb, **options)


def _pynetdicoms(bench: Bench, client: str, verb: str, **options: Any) -> Sample:
    with pynetdicom(bench) as served:
        return call(bench, client, served, verb, **options)


def _from_pynetdicom(bench: Bench, verb: str, **options: Any) -> Sample:
    with ours(bench) as served:
        return call(bench, "theirs", served, verb, **options)


def _loops(bench: Bench, verb: str, **options: Any) -> list[Contender]:
    run = partial(_both, bench, verb, **options)
    found = [Contender(name=OURS, run=run, note=f"{bench.loop} on both sides")]
    for name, loop in ((OURS_ASYNCIO, "asyncio"), (OURS_TRIO, "trio")):
        if loop in bench.loops and loop != bench.loop:
            found.append(Contender(name=name, run=partial(run, loop=loop), minor=True))
    return found


def _echo(bench: Bench) -> list[Contender]:
    count, few = bench.size(5000, 200), bench.size(200, 10)

    def echoscu(*, theirs: bool) -> Sample:
        with storescp(bench) if theirs else ours(bench) as served:
            program = ["echoscu", "-aec", served.called, "--repeat"]
            where = ["127.0.0.1", served.port]
            many, once = [*program, count + 1, *where], [*program, 1, *where]
            return command(bench, served, [many], [once], key=f"echoscu {theirs}")

    def plain_line() -> Sample:
        with plain(bench) as served:
            return call(bench, "plain", served, "echo", count=count)

    slow: dict[str, Any] = {"part": few / count, "most": 2}
    return [
        *_loops(bench, "echo", count=count),
        Contender(name=OURS_TLS, run=partial(_both, bench, "echo", tls=True, count=count)),
        Contender(name=TO_DCMTK, run=partial(_to_dcmtk, bench, "echo", count=count)),
        Contender(name=FROM_DCMTK, run=partial(echoscu, theirs=False)),
        Contender(name=DCMTK, run=partial(echoscu, theirs=True), note="echoscu → storescp"),
        Contender(name=TO_PYNETDICOM, run=partial(_pynetdicoms, bench, "ours", "echo", count=few), **slow, minor=True),
        Contender(name=FROM_PYNETDICOM, run=partial(_from_pynetdicom, bench, "echo", count=few), **slow, minor=True),
        Contender(name=PYNETDICOM, run=partial(_pynetdicoms, bench, "theirs", "echo", count=few), **slow),
        Contender(name=PLAIN, run=plain_line),
    ]


def _associate(bench: Bench, contexts: int) -> list[Contender]:
    count, few = bench.size(2000 if contexts == 1 else 500, 50), bench.size(30, 5)
    options: dict[str, Any] = {"contexts": contexts, "count": count}
    slower: dict[str, Any] = {"contexts": contexts, "count": few}
    slow: dict[str, Any] = {"part": few / count, "most": 2}
    return [
        *_loops(bench, "associate", **options),
        Contender(name=TO_DCMTK, run=partial(_to_dcmtk, bench, "associate", **options)),
        Contender(
            name=TO_PYNETDICOM, run=partial(_pynetdicoms, bench, "ours", "associate", **slower), **slow, minor=True
        ),
        Contender(
            name=FROM_PYNETDICOM, run=partial(_from_pynetdicom, bench, "associate", **slower), **slow, minor=True
        ),
        Contender(name=PYNETDICOM, run=partial(_pynetdicoms, bench, "theirs", "associate", **slower), **slow),
    ]


_ASSOCIATE_EQUAL = "connect, associate, echo, release, one after the other, from a client that is running"
_ASSOCIATE_UNEQUAL = (
    "DCMTK has no client that makes several associations in one process; pynetdicom makes fewer, and its times are "
    "extrapolated per association"
)


# Starting.

_PYTHON = 'python3 -c "import asyncio"'
_HELP = "asyncdicom --help"
_ECHO = "asyncdicom echo"


def _start_up(bench: Bench) -> list[Contender]:
    program, times = asyncdicom_program(), bench.size(7, 3)
    # As an installer does; whoever runs from a checkout may have forbidden it to the interpreter.
    compileall.compile_dir(Path(asyncdicom.__file__).parent, quiet=1)

    def run(*arguments: object) -> Sample:
        """Start a program several times, and take the median."""
        runs = [run_commands([arguments], bench.folder) for _ in range(times)]
        return Sample(
            seconds=statistics.median(run.seconds for run in runs),
            client_cpu=statistics.median(run.cpu for run in runs),
            client_peak=max(run.peak for run in runs),
        )

    def against_server(*arguments: object) -> Sample:
        with ours(bench) as served:
            return run(*(served.port if part is None else part for part in arguments))

    def echo() -> Sample:
        with ours(bench) as served:
            return run(*program, "echo", f"BENCH@127.0.0.1:{served.port}")

    found = [
        Contender(name=_PYTHON, run=partial(run, sys.executable, "-c", "import asyncio")),
        Contender(name=_HELP, run=partial(run, *program, "--help")),
        Contender(name=_ECHO, run=echo),
        Contender(name="import asyncdicom", run=partial(run, sys.executable, "-c", "import asyncdicom")),
        Contender(name="import pynetdicom", run=partial(run, sys.executable, "-c", "import pynetdicom"), most=2),
    ]
    if has_program("echoscu"):
        echoscu = partial(against_server, "echoscu", "-aec", "BENCH", "127.0.0.1", None)
        found.append(Contender(name="echoscu", run=echoscu))
    return found


def _per_second(count: int) -> Goal:
    return absolute(OURS, lambda result: 1 / result.each, "associations per second", at_least=count, unit="/s")


SCENARIOS = (
    Scenario(
        name="echo",
        title="C-ECHO on one association, 5 000 times",
        contenders=_echo,
        operations=(5000, 200),
        equal="one association, one request at a time",
        unequal="echoscu is a whole process less one with a single echo, the others' clients are running; pynetdicom echoes "
        "less often, and its times are extrapolated; the plain socket sends 8 octets and gets one back, by blocking calls",
        reference=DCMTK,
        goals=(
            ratio(OURS, DCMTK, 2, "round trip of DCMTK"),
            faster(OURS, PYNETDICOM, 15, "faster than pynetdicom"),
        ),
    ),
    Scenario(
        name="associate",
        title="Associate, echo, release: one presentation context",
        contenders=partial(_associate, contexts=1),
        operations=(2000, 50),
        equal=_ASSOCIATE_EQUAL,
        unequal=_ASSOCIATE_UNEQUAL,
        reference=PYNETDICOM,
        goals=(_per_second(1000), faster(OURS, PYNETDICOM, 20, "faster than pynetdicom")),
    ),
    Scenario(
        name="associate-128",
        title="Associate, echo, release: 128 presentation contexts",
        contenders=partial(_associate, contexts=128),
        operations=(500, 50),
        equal=f"{_ASSOCIATE_EQUAL}; Verification and 127 storage classes",
        unequal=f"{_ASSOCIATE_UNEQUAL}; each proposes its own choice of storage classes",
        reference=PYNETDICOM,
    ),
    Scenario(
        name="start-up",
        title="Starting the commands, whole processes",
        contenders=_start_up,
        equal="the interpreter and the machine; from the start to the end of the process",
        unequal="each does something else; the files are compiled, and in the page cache",
        reference=_PYTHON,
        goals=(
            ratio(_HELP, _PYTHON, 2, "--help: time of importing asyncio"),
            ratio(_ECHO, _PYTHON, 3, "echo: time of importing asyncio"),
        ),
    ),
)
