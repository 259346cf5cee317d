"""Processes that are measured: started, watched through ``/proc``, and ended with whatever they forked.

CPU seconds are those of all threads, and of children. Peak memory is the kernel's high-water mark of the resident set
(``VmHWM``), which :meth:`Process.mark` resets, less what was resident then. Where there is no ``/proc``, what cannot be known
of other processes is ``None``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = [
    "BenchmarkError",
    "Command",
    "Process",
    "Worker",
    "cpu_seconds",
    "peak_memory",
    "reset_peak_memory",
    "resident_memory",
    "run_commands",
    "start",
    "start_worker",
]

_STOP = 10.0
#: Seconds between two looks at the memory of programs that run to their end.
_LOOK = 0.02
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class BenchmarkError(Exception):
    """A process did not do what it was started for."""


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")[-300:]


# What the kernel knows of a process.


def _status(pid: int, field: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return None


def resident_memory(pid: int) -> int | None:
    """Return the resident set of a process, in bytes."""
    return _status(pid, "VmRSS:")


def peak_memory(pid: int) -> int | None:
    """Return the high-water mark of the resident set of a process, in bytes."""
    return _status(pid, "VmHWM:")


def reset_peak_memory(pid: int) -> None:
    """Set the high-water mark to what is resident now (proc(5), ``clear_refs``)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU seconds of a process, of its children that live, and of those that it has waited for."""
    try:
        # The clock of another process: clock_getcpuclockid(3) on Linux.
        own = time.clock_gettime((~pid << 3) | 2)
        total = own + sum(_stat(pid)[13:15]) / _TICK
    except (OSError, IndexError):
        return None
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = _stat(int(entry.name))
            except OSError:
                continue
            if fields[1] == pid:
                total += sum(fields[11:15]) / _TICK
    return total


def _stat(pid: int) -> list[int]:
    """Return the fields of ``/proc/PID/stat`` after the name; the first, a letter, as 0."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]


# Servers and other processes that stay.


class Process:
    """A process that was started here, and leads a process group of its own."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path, *, forks: bool = False) -> None:
        self.name = name
        self.popen = popen
        self.log = log
        self._forks = forks
        self._cpu: float | None = None
        self._resident: int | None = None

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self.popen.pid

    def mark(self) -> None:
        """Begin to measure."""
        self._cpu = cpu_seconds(self.pid)
        self._resident = resident_memory(self.pid)
        reset_peak_memory(self.pid)

    def cpu(self) -> float | None:
        """Return the CPU seconds since :meth:`mark`."""
        now = cpu_seconds(self.pid)
        return None if now is None or self._cpu is None else now - self._cpu

    def growth(self) -> int | None:
        """Return by how many bytes the memory was above that at :meth:`mark`, at most; unknown of one that forks."""
        now = peak_memory(self.pid)
        return None if self._forks or now is None or self._resident is None else max(0, now - self._resident)

    def resident(self) -> int | None:
        """Return the resident set now, in bytes."""
        return resident_memory(self.pid)

    def output(self) -> str:
        """Return the last line of what it has written."""
        return _last_line(self.log)

    def _ended(self) -> BenchmarkError:
        return BenchmarkError(f"{self.name} ended with status {self.popen.returncode}: {self.output()}")

    def check(self) -> None:
        """Raise if it has ended.

        :raises BenchmarkError: it has.
        """
        if self.popen.poll() is not None:
            raise self._ended()

    def stop(self) -> None:
        """End it, and what it forked."""
        _signal(self.pid, signal.SIGTERM)
        try:
            self.popen.wait(_STOP)
        except subprocess.TimeoutExpired:
            pass
        _signal(self.pid, signal.SIGKILL)
        self.popen.wait()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


@contextmanager
def start(
    name: str,
    arguments: Sequence[object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    forks: bool = False,
) -> Iterator[Process]:
    """Run a process until the block is left; what it writes goes to a log in ``folder``."""
    log = folder / f"{name.replace(' ', '-')}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            list(map(str, arguments)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            cwd=folder,
            start_new_session=True,
        )
    process = Process(name, popen, log, forks=forks)
    try:
        yield process
    finally:
        process.stop()


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    # TCP_NODELAY is DCMTK's switch for Nagle's algorithm: set where a scenario says so, and nowhere else.
    plain = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return {**plain, **(more or {})}


class Worker(Process):
    """A Python process of ours that says on its standard output, in lines of JSON, what it is at."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(name, popen, log)
        assert popen.stdin is not None
        assert popen.stdout is not None
        self._input: IO[bytes] = popen.stdin
        self._lines: IO[bytes] = popen.stdout

    def receive(self) -> dict[str, Any]:
        """Wait for its next line.

        :raises BenchmarkError: it ended instead.
        """
        line = self._lines.readline()
        if not line:
            self.popen.wait()
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def go(self) -> None:
        """Let it go on."""
        try:
            self._input.write(b"go\n")
            self._input.flush()
        except BrokenPipeError:
            self.popen.wait()
            raise self._ended() from None


@contextmanager
def start_worker(
    module: str, role: str, options: Mapping[str, Any], folder: Path, *, timeout: float = 600
) -> Iterator[Worker]:
    """Run ``python -m benchmarks.MODULE ROLE OPTIONS`` until the block is left, or for ``timeout`` seconds."""
    name = f"{module} {role}"
    log = folder / f"{module}-{role}-{time.monotonic_ns()}.log"
    root = Path(__file__).resolve().parent.parent
    with log.open("wb") as errors:
        popen = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", role, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(None),
            cwd=root,
            start_new_session=True,
        )
    worker = Worker(name, popen, log)
    try:
        with _deadline(timeout, popen):
            yield worker
    finally:
        worker.stop()
        popen.stdin.close()  # type: ignore[union-attr]
        popen.stdout.close()  # type: ignore[union-attr]


# Programs that run to their end.


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What programs that were run at once took, from the first's start to the last's end.

    :ivar seconds: of wall-clock time, start-up included.
    :ivar cpu: CPU seconds of all.
    :ivar peak: the high-water mark of the largest resident set, in bytes, at the last look before its end.
    """

    seconds: float
    cpu: float
    peak: int


def run_commands(
    commands: Sequence[Sequence[object]],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> Command:
    """Run programs at once, to their ends.

    :raises BenchmarkError: one failed, or took too long.
    """
    log = folder / f"command-{time.monotonic_ns()}.log"
    cpu = 0.0
    with log.open("wb") as output, _Watch(timeout) as watch:
        begun = time.perf_counter()
        for arguments in commands:
            watch.add(
                subprocess.Popen(
                    list(map(str, arguments)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(environment),
                    cwd=folder,
                    start_new_session=True,
                )
            )
        for popen in list(watch.running):
            _, status, usage = os.wait4(popen.pid, 0)
            popen.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
        seconds = time.perf_counter() - begun
    for popen, (program, *_) in zip(watch.running, commands, strict=True):
        if popen.returncode:
            raise BenchmarkError(f"{program} ended with status {popen.returncode}: {_last_line(log)}")
    return Command(seconds=seconds, cpu=cpu, peak=watch.peak)


class _Watch:
    """Kills processes that take too long, as ``os.wait4`` has no timeout, and looks at their memory while they run.

    ``ru_maxrss`` would be simpler, but on Linux it begins with what the process that forks has.
    """

    def __init__(self, timeout: float) -> None:
        self.running: list[subprocess.Popen[bytes]] = []
        self.peak = 0
        self._deadline = time.monotonic() + timeout
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def add(self, popen: subprocess.Popen[bytes]) -> None:
        """Watch a process."""
        self.running.append(popen)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._kill()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            for popen in list(self.running):
                if popen.returncode is None:
                    self.peak = max(self.peak, peak_memory(popen.pid) or 0)
            if time.monotonic() > self._deadline:
                self._kill()

    def _kill(self) -> None:
        for popen in list(self.running):
            if popen.returncode is None:
                _signal(popen.pid, signal.SIGKILL)


@contextmanager
def _deadline(seconds: float, popen: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a process that still runs after so many seconds."""
    timer = threading.Timer(seconds, lambda: _signal(popen.pid, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
