"""What the processes that are measured have in common: how they talk with whoever measures, and their stopwatch.

A worker writes a line of JSON when it is ready, waits for a line, does what is measured, and writes another one. So the
start of the process, its imports, the association and a first instance are not in what is measured.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from .processes import peak_memory, reset_peak_memory, resident_memory

__all__ = ["Stopwatch", "main", "percentiles", "raise_descriptor_limit", "say", "wait"]


def say(**facts: Any) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def wait() -> None:
    """Wait for a line; ends the process if there is nobody who could write one."""
    if not sys.stdin.readline():
        raise SystemExit(0)


@dataclass(slots=True)
class Stopwatch:
    """Measures a process from within, from when it was made until :meth:`facts`."""

    started: float = 0.0
    cpu: float = 0.0
    resident: int | None = None

    def __post_init__(self) -> None:
        pid = os.getpid()
        self.resident = resident_memory(pid)
        reset_peak_memory(pid)
        self.cpu = time.process_time()
        self.started = time.perf_counter()

    def facts(self, **more: Any) -> dict[str, Any]:
        """Return seconds, CPU seconds, and bytes of memory above the start."""
        seconds = time.perf_counter() - self.started
        cpu = time.process_time() - self.cpu
        peak = peak_memory(os.getpid())
        growth = None if peak is None or self.resident is None else max(0, peak - self.resident)
        return {"seconds": seconds, "cpu": cpu, "peak": growth, **more}


def percentiles(latencies: list[float], prefix: str = "") -> dict[str, float]:
    """Return the median, the 99th percentile and the maximum of some seconds."""
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {
        f"{prefix}p50": ordered[last // 2],
        f"{prefix}p99": ordered[round(last * 0.99)],
        f"{prefix}max": ordered[last],
    }


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            return soft
    return hard


class Role(Protocol):
    """What a worker is: gets the options that it was started with."""

    def __call__(self, options: dict[str, Any], /) -> None:
        """Run to its end."""


def main(roles: dict[str, Role]) -> None:
    """Run the role that the command line names, with the options that follow it."""
    try:
        roles[sys.argv[1]](json.loads(sys.argv[2]))
    except KeyboardInterrupt:
        pass
