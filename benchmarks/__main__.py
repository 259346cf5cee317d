"""Run the benchmarks: ``python -m benchmarks [--scenario NAME ...] [--quick] [--json FILE] [--charts DIR]``.

Every scenario runs all its contenders in turn, again and again, and takes medians. Files are in a memory-backed folder, where
there is one; everything that is started is ended, and everything that is written is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from .bench import Bench, Result, Scenario, Skip, measure
from .charts import write_chart
from .page import write_page
from .report import goals, print_table, results_table
from .scenarios import SCENARIOS

#: Where a memory-backed folder is, on Linux.
_MEMORY = Path("/dev/shm")


def main() -> int:
    """Run what the command line asks for, and return the exit status."""
    options = _parse()
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:<15}{scenario.title}" + ("" if scenario.default else " (only when named)"))
        return 0
    if options.render:
        lines = [json.loads(line) for line in options.render.read_text(encoding="utf-8").splitlines() if line]
        results = _by_scenario([Result.from_line(line) for line in lines if "contender" in line])
        chosen = [scenario for scenario in SCENARIOS.values() if scenario.name in results]
        about: dict[str, Any] = next((line for line in lines if "machine" in line), {})
        _show(options, chosen, results, {}, about)
        return 0
    return _run(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument("--scenario", action="extend", nargs="+", choices=SCENARIOS, default=[], metavar="NAME")
    parser.add_argument(
        "--contender", action="append", default=[], metavar="NAME", help="run this one alone; repeatable"
    )
    parser.add_argument(
        "--quick", action="store_true", help="little of everything, once: whether it works, not how fast"
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each contender (default: 3; 1 with --quick)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the files go (default: in memory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a line of JSON for each result to a file")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="draw a chart of each scenario, as SVG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown, with the charts")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing; show what --json wrote")
    options = parser.parse_args()
    if options.repetitions is not None and options.repetitions < 1:
        parser.error("--repetitions is at least 1")
    return options


def _run(options: argparse.Namespace) -> int:
    chosen = [SCENARIOS[name] for name in dict.fromkeys(options.scenario)]
    chosen = chosen or [scenario for scenario in SCENARIOS.values() if scenario.default]
    repetitions = options.repetitions or (1 if options.quick else 3)
    signal.signal(signal.SIGTERM, _terminate)
    parent = options.folder or (_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    root = Path(tempfile.mkdtemp(prefix="asyncdicom-benchmarks-", dir=parent))
    about = _about(options.quick)
    results: dict[str, dict[str, Result]] = {}
    failed: dict[str, list[str]] = {}
    interrupted = False
    begun = time.perf_counter()
    output = options.json.open("w", encoding="utf-8") if options.json else None
    try:
        if output:
            print(json.dumps(about), file=output, flush=True)
        bench = Bench(root, quick=options.quick, only=options.contender)
        for scenario in chosen:
            found, failed[scenario.name] = _measure(bench, scenario, repetitions)
            results[scenario.name] = {result.contender: result for result in found}
            if output:
                for result in found:
                    print(json.dumps(result.line(), ensure_ascii=False), file=output, flush=True)
    except KeyboardInterrupt:
        _say("interrupted")
        interrupted = True
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if output:
            output.close()
    _say(f"{time.perf_counter() - begun:.0f} s in all")
    _show(options, chosen, results, failed, about)
    if not output:
        for found_by_name in results.values():
            for result in found_by_name.values():
                print(json.dumps(result.line(), ensure_ascii=False))
    return 130 if interrupted else 0


def _terminate(*_: object) -> NoReturn:
    """End as Ctrl-C does, so that what was started is ended and what was written is removed."""
    raise KeyboardInterrupt


def _measure(bench: Bench, scenario: Scenario, repetitions: int) -> tuple[list[Result], list[str]]:
    bench.folder = bench.root / scenario.name
    bench.folder.mkdir()
    begun = time.perf_counter()
    try:
        return measure(bench, scenario, repetitions, _say)
    except Skip as exc:
        return [], [str(exc)]
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
        _say(f"{scenario.name}: {time.perf_counter() - begun:.1f} s")


def _show(
    options: argparse.Namespace,
    scenarios: Sequence[Scenario],
    results: dict[str, dict[str, Result]],
    failed: dict[str, list[str]],
    about: dict[str, Any],
) -> None:
    """Print the tables, draw the charts, and write the page."""
    sections = []
    for scenario in scenarios:
        found = list(results.get(scenario.name, {}).values())
        if not found:
            for text in failed.get(scenario.name, []):
                _say(f"{scenario.name}: not run: {text}")
            continue
        table = results_table(scenario, found, failed.get(scenario.name, []))
        print_table(table)
        chart = write_chart(options.charts, scenario, found) if options.charts else None
        sections.append((table, chart))
    reached = goals([scenario for scenario in scenarios if scenario.goals], results)
    if reached.rows:
        print_table(reached)
    if options.markdown:
        write_page(options.markdown, about.get("text", ""), reached, sections)


def _by_scenario(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    found: dict[str, dict[str, Result]] = {}
    for result in results:
        found.setdefault(result.scenario, {})[result.contender] = result
    return found


def _about(quick: bool) -> dict[str, Any]:
    """Return what the numbers depend on: the machine, and who takes part."""
    packages = {}
    for name in ("asyncdicom", "anyio", "uvloop", "trio", "pydicom", "pynetdicom", "SQLAlchemy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    for program, name in (("storescu", "DCMTK"), ("Orthanc", "Orthanc")):
        if shutil.which(program):
            shown = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
            packages[name] = _version(shown.stdout)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    names = ", ".join(f"{name} {number}" for name, number in packages.items())
    text = f"{time.strftime('%Y-%m-%d')}; {machine}; {python}; {names}; over the loopback interface."
    if quick:
        text += " A quick run: it shows that everything works, and not how fast it is."
    return {"machine": machine, "python": python, "packages": packages, "quick": quick, "text": text}


def _version(text: str) -> str:
    """Return the first word of a program's answer that has a digit and a dot."""
    words = (word.strip("$,;v") for word in text.split())
    return next((word for word in words if "." in word and word[:1].isdigit()), "of unknown version")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.machine()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
