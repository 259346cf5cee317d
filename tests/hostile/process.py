"""An archive in a process of its own, seen from outside: what it answers, what it logs, and what it holds."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..archive.serving import left_over
from ..interop.conftest import Certificates
from .wire import ECHO, RELEASE, RELEASE_RESPONSE, associate, message, statuses

__all__ = ["PATIENT", "ArchiveProcess", "archive_process"]

#: Longest that anything may take on a busy machine, in seconds.
PATIENCE = 30.0
#: Bytes that an archive may take for what a single adversary does.
ROOM = 48 << 20
#: Threads that it may have started for work of its own.
POOL = 8
#: Who must never be named in a log.
PATIENT = b"SECRETIVE"

Socket = socket.socket


class Log:
    """What a process writes to stderr."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self.lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                self._changed.notify_all()

    def wait(self, pattern: str, start: int = 0) -> re.Match[str]:
        """Wait for a line."""

        def find() -> re.Match[str] | None:
            return next((found for line in self.lines[start:] if (found := re.search(pattern, line))), None)

        with self._changed:
            found = self._changed.wait_for(find, PATIENCE)
        assert found, (pattern, self.lines[start:])
        return found

    def join(self) -> None:
        """Wait for the end of what is written."""
        self._thread.join(PATIENCE)


class ArchiveProcess:
    """A running archive.

    :ivar folder: what it keeps its instances in.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Log, folder: Path, tls: ssl.SSLContext | None) -> None:
        self.folder = folder
        self.process = process
        self._tls = tls
        self.log = log
        self._port = int(self.log.wait(r"listening on SERVER@127\.0\.0\.1:(\d+)")[1])
        for _ in range(5):
            self.echo()
        self.descriptors = self._descriptors()
        self.threads = self._threads()
        self.memory = self._memory("VmRSS")

    @property
    def is_tls(self) -> bool:
        """Whether it is reached through TLS."""
        return self._tls is not None

    # What it holds.

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def _memory(self, which: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10

    def figures(self) -> dict[str, int]:
        """Return what the process holds now: bytes, descriptors, threads."""
        return {"memory": self._memory("VmRSS"), "descriptors": self._descriptors(), "threads": self._threads()}

    # What it answers.

    def connect(self) -> Socket:
        """Connect, through TLS if it has that."""
        plain = self.connect_plainly()
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname="127.0.0.1")

    def connect_plainly(self) -> Socket:
        """Connect without TLS."""
        return socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)

    def say(self, data: bytes, enough: int | None = None) -> bytes:
        """Connect, send, and return what comes until it closes, or until that is enough bytes."""
        with closing(self.connect()) as connection:
            return _exchange(connection, data, enough)

    def converse(self, request: bytes, messages: bytes, responses: int) -> bytes:
        """Associate, send messages, wait for so many final responses, and release."""
        with closing(self.connect()) as connection:
            connection.sendall(request + messages)
            received = b""
            while sum(status < 0xFF00 for status in statuses(received)) < responses:
                received += _receive(connection)
            connection.sendall(RELEASE)
            while not received.endswith(RELEASE_RESPONSE):
                received += _receive(connection)
            return received

    def echo(self) -> None:
        """Associate and echo as a good client, and wait until that is logged."""
        start = len(self.log.lines)
        assert statuses(self.converse(associate(calling=b"GOOD"), message(1, ECHO), 1)) == [0]
        number = self.log.wait(r"association (\d+) opened: calling 'GOOD'", start)[1]
        self.log.wait(rf"association {number} released", start)

    # What an adversary must not change.

    @contextmanager
    def unharmed(self, name: str, lines: int | None) -> Iterator[None]:
        """Look at what the block does to the archive.

        Afterwards a good client is served, memory, descriptors, threads and files are back, and the log has so many lines of
        it (``None``: any), printable ones without a patient.
        """
        start = len(self.log.lines)
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # forget the peak of memory
        yield
        self.echo()
        deadline = time.monotonic() + PATIENCE
        while self._descriptors() > self.descriptors and time.monotonic() < deadline:
            self.echo()
        assert self._descriptors() <= self.descriptors, name
        assert self._threads() <= self.threads + POOL, name
        assert self._memory("VmHWM") <= self.memory + ROOM, name
        assert left_over(self.folder) == [], name
        found = self.log.lines[start:]
        good = {number for line in found for number in re.findall(r"association (\d+) opened: calling 'GOOD'", line)}
        rest = [line for line in found if not good.intersection(re.findall(r"association (\d+)", line))]
        assert lines is None or len(rest) == lines, (name, rest)
        assert all(line.isprintable() for line in rest), (name, rest)
        assert not [line for line in rest if "Traceback" in line or PATIENT.decode() in line], (name, rest)

    def check_end(self) -> None:
        """Look at what is left when all is over."""
        self.echo()
        assert self.process.poll() is None
        assert self._memory("VmRSS") <= self.memory + ROOM


def _receive(connection: Socket) -> bytes:
    data = connection.recv(1 << 16)
    assert data, "the archive closed the connection"
    return data


def _exchange(connection: Socket, data: bytes, enough: int | None) -> bytes:
    received = b""
    try:
        connection.sendall(data)
        while enough is None or len(received) < enough:
            more = connection.recv(1 << 16)
            if not more:
                break
            received += more
    except (ConnectionError, ssl.SSLError):
        pass
    return received


@contextmanager
def archive_process(
    folder: Path, *options: str, certificates: Certificates | None = None, loop: str = "asyncio"
) -> Iterator[ArchiveProcess]:
    """Run ``asyncdicom archive``; with certificates, through TLS."""
    command = [sys.executable, "-m", "asyncdicom", "archive", str(folder), "--listen", "SERVER@127.0.0.1:0"]
    command += ["-v", "--sync", "never", "--loop", loop, *options]
    if certificates is not None:
        command += ["--tls-cert", str(certificates.chain), "--tls-key", str(certificates.key)]
        command += ["--tls-ca", str(certificates.authority)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        log = Log(process)
        try:
            archive = ArchiveProcess(process, log, folder, None if certificates is None else certificates.client)
            yield archive
            archive.check_end()
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            log.join()
