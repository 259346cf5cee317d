"""What a scenario is made of: contenders that do the same work, samples of what they took, goals, results."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .processes import Command

__all__ = [
    "Bench",
    "Contender",
    "Goal",
    "Result",
    "Sample",
    "Scenario",
    "Skip",
    "TooLittle",
    "absolute",
    "faster",
    "has_module",
    "has_program",
    "measure",
    "ratio",
]


class Skip(Exception):
    """A scenario or a contender cannot be run here; says why."""


class TooLittle(Exception):
    """A run took no longer than an empty one: it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run took.

    :ivar seconds: of wall-clock time.
    :ivar client_cpu: CPU seconds of the side that asks; ``None`` is unknown.
    :ivar server_cpu: those of the side that answers.
    :ivar client_peak: bytes of memory above the start, at most.
    :ivar server_peak: the same of the side that answers.
    :ivar extra: what else was measured: seconds, bytes, counts and ratios by name.
    """

    seconds: float
    client_cpu: float | None = None
    server_cpu: float | None = None
    client_peak: int | None = None
    server_peak: int | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way of doing the work of a scenario.

    :ivar name: who asks and who answers.
    :ivar run: does it once.
    :ivar part: how much of the scenario's work ``run`` does: a slow one does less, and its times are divided by this.
    :ivar most: most repetitions.
    :ivar minor: quick runs leave it out, except where they are to show that all kinds of contenders work.
    :ivar note: what else should be known.
    """

    name: str
    run: Callable[[], Sample]
    part: float = 1.0
    most: int | None = None
    minor: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The medians of a contender's samples, for the scenario's whole work."""

    scenario: str
    contender: str
    seconds: float
    operations: int
    bytes: int
    runs: tuple[float, ...]
    client_cpu: float | None
    server_cpu: float | None
    client_peak: float | None
    server_peak: float | None
    extra: Mapping[str, float]
    part: float
    note: str

    @property
    def each(self) -> float:
        """Seconds of one operation."""
        return self.seconds / self.operations

    def line(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        names = (
            "scenario", "contender", "seconds", "operations", "bytes", "runs", "client_cpu", "server_cpu", "client_peak",
            "server_peak", "part", "note",
        )  # fmt: skip
        return {**{name: getattr(self, name) for name in names}, "extra": dict(self.extra)}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Result:
        """Read what :meth:`line` returned."""
        return cls(**{**line, "runs": tuple(line["runs"])})


Results = Mapping[str, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Something to be reached.

    :ivar text: what.
    :ivar value: gives what was reached; ``None`` if that was not measured.
    :ivar limit: what it is compared with.
    :ivar at_least: whether more is better.
    :ivar unit: ``"×"``, ``"s"``, ``"B"``, ``"%"``, ``"/s"`` or nothing.
    """

    text: str
    value: Callable[[Results], float | None]
    limit: float
    at_least: bool = False
    unit: str = "×"

    def reached(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def ratio(of: str, to: str, at_most: float, text: str = "") -> Goal:
    """Aim at ``of`` taking at most so many times as long as ``to``."""

    def value(results: Results) -> float | None:
        if of not in results or to not in results:
            return None
        return results[of].seconds / results[to].seconds

    return Goal(text=text or f"{of}: time of {to}", value=value, limit=at_most)


def faster(of: str, than: str, at_least: float, text: str = "") -> Goal:
    """Aim at ``of`` being at least so many times as fast as ``than``."""

    def value(results: Results) -> float | None:
        if of not in results or than not in results:
            return None
        return results[than].seconds / results[of].seconds

    return Goal(text=text or f"{of}: faster than {than}", value=value, limit=at_least, at_least=True)


def absolute(
    of: str, read: Callable[[Result], float | None], text: str, *, at_most: float | None = None,
    at_least: float | None = None, unit: str = "s",
) -> Goal:  # fmt: skip
    """Aim at a value of ``of`` itself."""

    def value(results: Results) -> float | None:
        return read(results[of]) if of in results else None

    if at_most is not None:
        return Goal(text=text, value=value, limit=at_most, unit=unit)
    assert at_least is not None
    return Goal(text=text, value=value, limit=at_least, at_least=True, unit=unit)


class Bench:
    """Where and how scenarios run.

    :ivar quick: do little, to see that everything works.
    :ivar only: the contenders that run, by their whole names; all, if empty.
    :ivar folder: of the current scenario, in memory where there is a memory-backed folder; removed after it.
    :ivar empty: what the empty runs of programs took in the current scenario, by whose they are.
    """

    def __init__(self, root: Path, *, quick: bool, only: Sequence[str] = ()) -> None:
        self.quick = quick
        self.only = tuple(only)
        self.root = root
        self.folder = root
        self.empty: dict[str, list[Command]] = {}
        self._numbers = itertools.count()

    def size(self, full: int, quick: int) -> int:
        """Return one of two numbers."""
        return quick if self.quick else full

    def fresh(self, name: str = "out") -> Path:
        """Make a new empty folder."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    def need(self, size: int) -> None:
        """Say that a scenario needs so many bytes of space.

        :raises Skip: there are not as many.
        """
        free = shutil.disk_usage(self.root).free
        if free < size * 1.1:
            raise Skip(f"needs {size >> 20} MiB in {self.root}, where {free >> 20} MiB are free")

    @property
    def loop(self) -> str:
        """The event loop that is taken unless another is named: uvloop, asyncio without it."""
        return "uvloop" if "uvloop" in self.loops else "asyncio"

    @property
    def loops(self) -> tuple[str, ...]:
        """The event loops that are installed."""
        return tuple(name for name in ("uvloop", "asyncio", "trio") if has_module(name))


def has_module(name: str) -> bool:
    """Tell whether a module is installed."""
    return importlib.util.find_spec(name) is not None


def has_program(name: str) -> bool:
    """Tell whether a program is installed."""
    return shutil.which(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Work that several contenders do.

    :ivar contenders: prepares what they need in the folder of the bench, and gives them.
    :ivar operations: how many operations the whole work is, full and quick.
    :ivar size: bytes of one operation, full and quick; 0 where bytes are not the point.
    :ivar equal: what is the same for all contenders.
    :ivar unequal: what is not.
    :ivar reference: the contender whose time the others' are compared with.
    :ivar charted: the name of what is drawn of the extras; empty is the time.
    :ivar whole: whether quick runs leave nothing out.
    :ivar default: whether it is run unless others are named.
    """

    name: str
    title: str
    contenders: Callable[[Bench], Sequence[Contender]]
    operations: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (0, 0)
    equal: str
    unequal: str
    reference: str = ""
    goals: tuple[Goal, ...] = ()
    charted: str = ""
    whole: bool = False
    default: bool = True


def measure(
    bench: Bench, scenario: Scenario, repetitions: int, report: Callable[[str], None]
) -> tuple[list[Result], list[str]]:
    """Run a scenario's contenders in turn, again and again; return their medians, and what could not be run.

    :param report: told what is being run.
    """
    bench.empty.clear()
    contenders = [
        contender
        for contender in scenario.contenders(bench)
        if not (bench.quick and contender.minor and not scenario.whole)
        and (not bench.only or contender.name in bench.only)
    ]
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    failed: dict[str, str] = {}
    for repetition in range(repetitions):
        for contender in contenders:
            if contender.name in failed or (contender.most is not None and repetition >= contender.most):
                continue
            report(f"{scenario.name}: {contender.name} ({repetition + 1} of {contender.most or repetitions})")
            try:
                samples[contender.name].append(contender.run())
            except TooLittle:
                report(f"{contender.name}: took no longer than an empty run")
            except Exception as exc:
                failed[contender.name] = f"{contender.name}: {type(exc).__name__}: {exc}"
                if not isinstance(exc, Skip):
                    report(f"failed: {failed[contender.name]}")
    index = int(bench.quick)
    operations = scenario.operations[index]
    size = scenario.size[index] * operations
    results = [_median(scenario.name, c, samples[c.name], operations, size) for c in contenders if samples[c.name]]
    nothing = [
        f"{contender.name}: took no longer than an empty run"
        for contender in contenders
        if not samples[contender.name] and contender.name not in failed
    ]
    return results, [*failed.values(), *nothing]


def _median(scenario: str, contender: Contender, samples: Sequence[Sample], operations: int, size: int) -> Result:
    part = contender.part
    runs = tuple(sample.seconds / part for sample in samples)
    extra = {name: statistics.median(sample.extra[name] for sample in samples) for name in samples[0].extra}

    def median(values: list[float | None], divisor: float = 1.0) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) / divisor if known else None

    return Result(
        scenario=scenario,
        contender=contender.name,
        seconds=statistics.median(runs),
        operations=operations,
        bytes=size,
        runs=runs,
        client_cpu=median([sample.client_cpu for sample in samples], part),
        server_cpu=median([sample.server_cpu for sample in samples], part),
        client_peak=median([sample.client_peak for sample in samples]),
        server_peak=median([sample.server_peak for sample in samples]),
        extra=extra,
        part=part,
        note=contender.note,
    )
