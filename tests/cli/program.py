"""Run the program as a user does, in a process of its own, against servers of this one."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anyio.from_thread import start_blocking_portal

import asyncdicom

__all__ = ["Log", "Result", "run", "run_on_terminal", "serving", "started", "wait_for_line"]

_COMMAND = [sys.executable, "-m", "asyncdicom"]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", "COLUMNS": "", "PYTHONWARNINGS": "", **more}


@dataclass(frozen=True, slots=True)
class Result:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line on stderr; fails the test if there are more, or less."""
        assert self.err.endswith("\n"), self
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err, self.err
        return self.err[:-1]

    def check(self) -> Result:
        """Return the result of a command that succeeded and had no complaints, else fail the test."""
        assert (self.status, self.err) == (0, ""), self
        return self


def run(*arguments: object, seconds: float = 60, **options: Any) -> Result:
    """Run a command to its end."""
    done = subprocess.run(
        [*_COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        env=_environment(),
        **options,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and see to it that it has ended afterwards."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(
        [*_COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, env=_environment(), **given
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for_line(process: subprocess.Popen[bytes]) -> str:
    """Return the next line that a process writes to stderr."""
    assert process.stderr is not None
    return process.stderr.readline().decode().rstrip("\n")


def run_on_terminal(
    *arguments: object, columns: int = 100, seconds: float = 60, interrupt: threading.Event | None = None
) -> Result:
    """Run a command with a terminal as stdout and stderr; everything is in ``out``.

    :param interrupt: send SIGINT once this is set.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        process = subprocess.Popen(
            [*_COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env={key: value for key, value in _environment().items() if key != "COLUMNS"},
        )
    finally:
        os.close(slave)
    output = b""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if interrupt is not None and interrupt.is_set():
                process.send_signal(signal.SIGINT)
                interrupt = None
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                chunk = os.read(master, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not chunk:
                break
            output += chunk
        return Result(process.wait(max(1, deadline - time.monotonic())), output.decode(), "")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


class Log(logging.Handler):
    """What a server logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def has(self, text: str) -> bool:
        """Tell whether a line contains a text."""
        return any(text in line for line in self.lines)


@contextmanager
def serving(
    services: asyncdicom.Services, ae_title: str = "ARCHIVE", **options: Any
) -> Iterator[tuple[asyncdicom.Address, Log]]:
    """Serve on a free port of 127.0.0.1, on an event loop in another thread; gives the address, and what is logged."""
    log = Log()
    logger = logging.getLogger("asyncdicom.server")
    before = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    try:
        with start_blocking_portal() as portal:
            server = asyncdicom.Server(services, asyncdicom.Address(ae_title, "127.0.0.1", 0), **options)
            with portal.wrap_async_context_manager(server):
                yield server.addresses[0], log
    finally:
        logger.removeHandler(log)
        logger.setLevel(before)
