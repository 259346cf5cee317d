"""The two sides of what is measured: servers that are started, and clients that are run against them.

Our clients, pynetdicom's and the plain one are processes that are running, associated and warm when the clock starts (see
:mod:`.worker`). Programs of the command line are timed whole, and what an empty run of them takes (start-up, association,
one small instance or a query without matches, release; the median of several) is subtracted.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asyncdicom.protocol import pdu

from .bench import Bench, Sample, Skip, TooLittle, has_module, has_program
from .processes import BenchmarkError, Process, Worker, run_commands, start, start_worker

__all__ = [
    "NODELAY",
    "STOCK",
    "Served",
    "archive",
    "asyncdicom_program",
    "call",
    "certificates",
    "command",
    "dcmqrscp",
    "orthanc",
    "ours",
    "plain",
    "pynetdicom",
    "receive",
    "relay",
    "storescp",
    "supports",
]

#: DCMTK without Nagle's algorithm, and as it is.
NODELAY: Mapping[str, str] = {"TCP_NODELAY": "1"}
STOCK: Mapping[str, str] = {}

_START = 20.0
_EMPTY_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that runs.

    :ivar port: of 127.0.0.1.
    :ivar called: its AE title.
    :ivar processes: those whose CPU seconds and memory are the server's.
    :ivar out: where it keeps what it receives.
    """

    port: int
    processes: Sequence[Process]
    called: str = "BENCH"
    out: Path = field(default=Path())

    def mark(self) -> None:
        """Begin to measure."""
        for process in self.processes:
            process.check()
            process.mark()

    def cpu(self) -> float | None:
        """CPU seconds of all processes since then."""
        found = [process.cpu() for process in self.processes]
        return None if None in found else sum(value for value in found if value is not None)

    def growth(self) -> int | None:
        """Memory above that, of all processes, in bytes."""
        found = [process.growth() for process in self.processes]
        return None if None in found else sum(value for value in found if value is not None)

    def facts(self) -> dict[str, float]:
        """Ask a server of ours what it counted."""
        (worker,) = self.processes
        assert isinstance(worker, Worker)
        worker.go()
        return worker.receive()

    def check_received(self, count: int) -> None:
        """Check that so many instances, or more, have been kept.

        :raises BenchmarkError: they have not.
        """
        kept = sum(1 for path in self.out.rglob("*") if path.is_file())
        if kept < count:
            raise BenchmarkError(f"{self.processes[0].name} kept {kept} files of {count}")


# Servers.


@contextmanager
def _worker(bench: Bench, module: str, options: dict[str, Any]) -> Iterator[Served]:
    out = bench.fresh()
    try:
        with start_worker(module, "serve", {"out": str(out), **options}, bench.folder) as worker:
            yield Served(port=int(worker.receive()["port"]), processes=[worker], out=out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def ours(bench: Bench, loop: str = "", **options: Any) -> Any:
    """Run a server of ours: a context manager that gives it."""
    return _worker(bench, "ours", {"loop": loop or bench.loop, **options})


def pynetdicom(bench: Bench, **options: Any) -> Any:
    """Run a server of pynetdicom.

    :raises Skip: it is not installed.
    """
    if not has_module("pynetdicom"):
        raise Skip("pynetdicom is not installed")
    return _worker(bench, "theirs", options)


def plain(bench: Bench) -> Any:
    """Run what takes bytes from a plain socket."""
    return _worker(bench, "plain", {})


def _need(*programs: str) -> None:
    for program in programs:
        if not has_program(program):
            raise Skip(f"{program} is not installed")


@contextmanager
def storescp(
    bench: Bench, environment: Mapping[str, str] = NODELAY, *options: object, forks: bool = False
) -> Iterator[Served]:
    """Run DCMTK's storescp, which writes what it receives as it comes."""
    _need("storescp")
    out = bench.fresh()
    more = ["--fork"] if forks else []
    try:
        with _on_free_port(
            bench,
            "storescp",
            lambda port: ["storescp", "--bit-preserving", "-aet", "BENCH", "-od", out, *more, *options, port],
            environment,
            forks=forks,
            tls="+tls" in options,
        ) as served:
            yield replace(served, out=out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def dcmqrscp(
    bench: Bench, folder: Path, environment: Mapping[str, str] = NODELAY, *, peers: Mapping[str, int] | None = None
) -> Iterator[Served]:
    """Run DCMTK's dcmqrscp over a folder with its index; it forks for each association, as is its default."""
    _need("dcmqrscp")
    config = bench.folder / f"dcmqrscp-{time.monotonic_ns()}.cfg"
    hosts = "\n".join(f"{name.lower()} = ({name}, localhost, {port})" for name, port in (peers or {}).items())

    def arguments(port: int) -> list[object]:
        config.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 64\n"
            f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nBENCH {folder} RW (500, 4096mb) ANY\nAETable END\n"
        )
        return ["dcmqrscp", "-c", config, port]

    with _on_free_port(bench, "dcmqrscp", arguments, environment, forks=True) as served:
        yield replace(served, out=folder)


@contextmanager
def orthanc(bench: Bench) -> Iterator[Served]:
    """Run Orthanc, with its default index and nothing but DICOM."""
    _need("Orthanc")
    out = bench.fresh()
    config = bench.folder / "orthanc.json"

    def arguments(port: int) -> list[object]:
        config.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(out),
                    "IndexDirectory": str(out),
                    "HttpServerEnabled": False,
                    "DicomServerEnabled": True,
                    "DicomAet": "BENCH",
                    "DicomPort": port,
                    "DicomCheckCalledAet": False,
                    "DicomAlwaysAllowEcho": True,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowFind": True,
                }
            )
        )
        return ["Orthanc", config]

    try:
        with _on_free_port(bench, "Orthanc", arguments, STOCK) as served:
            yield replace(served, out=out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def _on_free_port(
    bench: Bench,
    name: str,
    arguments: Callable[[int], Sequence[object]],
    environment: Mapping[str, str],
    *,
    forks: bool = False,
    tls: bool = False,
) -> Iterator[Served]:
    """Run a server that has to be told its port, until the block is left."""
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        with start(name, arguments(port), bench.folder, environment=environment, forks=forks) as process:
            if _ready(process, port, tls=tls):
                yield Served(port=port, processes=[process])
                return
    raise BenchmarkError(f"{name} does not start: {process.output()}")


def _ready(process: Process, port: int, *, tls: bool) -> bool:
    """Wait until a server answers; ``False`` if it ended, because its port was taken meanwhile."""
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                if not tls:
                    _associate(connection)
                return True
        except OSError:
            time.sleep(0.01)
    raise BenchmarkError(f"{process.name} does not answer: {process.output()}")


def _associate(connection: socket.socket) -> None:
    """Associate for Verification and release."""
    request = pdu.AssociateRQ(
        called_ae_title="BENCH",
        calling_ae_title="PROBE",
        application_context="1.2.840.10008.3.1.1.1",
        presentation_contexts=(
            pdu.PresentationContextRQ(
                context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2.840.10008.1.2",)
            ),
        ),
        user_information=pdu.UserInformation(maximum_length=16384, implementation_class_uid="2.25.1"),
    )
    with connection.makefile("rb") as stream:
        for message, answer in ((request, 2), (pdu.ReleaseRQ(), 6)):
            connection.sendall(pdu.encode(message))
            head = stream.read(6)
            if head[:1] != bytes([answer]):
                raise ConnectionError(f"answered by {head!r}")
            stream.read(int.from_bytes(head[2:], "big"))


# Our commands.


def asyncdicom_program() -> list[str]:
    """Return how the program ``asyncdicom`` is started: as it was installed, beside this Python."""
    program = Path(sys.executable).parent / "asyncdicom"
    return [str(program)] if program.exists() else [sys.executable, "-m", "asyncdicom"]


_LISTENING = re.compile(r"listening on [^@]*@\S*:(\d+)")


@contextmanager
def _own_server(bench: Bench, command: str, folder: Path, *options: object) -> Iterator[Served]:
    named = [str(option) for option in options if str(option).startswith("--")]
    for option in named:
        if not supports(command, option):
            raise Skip(f"asyncdicom {command} has no {option}")
    arguments = [*asyncdicom_program(), command, folder, "--listen", "BENCH@127.0.0.1:0", *options]
    with start(f"asyncdicom {command}", arguments, bench.folder) as process:
        deadline = time.monotonic() + _START
        while not (found := _LISTENING.search(process.log.read_text(errors="replace"))):
            process.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"asyncdicom {command} does not listen: {process.output()}")
            time.sleep(0.01)
        yield Served(port=int(found[1]), processes=[process], out=folder)


def supports(command: str, *options: str) -> bool:
    """Tell whether our program has a command, and that command these options.

    :raises Skip: there is no such command.
    """
    asked = subprocess.run(
        [*asyncdicom_program(), command, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode:
        raise Skip(f"asyncdicom {command} is not there")
    return all(option in asked.stdout for option in options)


@contextmanager
def receive(bench: Bench, *options: object, loop: str = "") -> Iterator[Served]:
    """Run ``asyncdicom receive``."""
    out = bench.fresh()
    try:
        with _own_server(bench, "receive", out, "--loop", loop or bench.loop, *options) as served:
            yield served
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def archive(bench: Bench, *options: object, folder: Path | None = None, loop: str = "") -> Iterator[Served]:
    """Run ``asyncdicom archive``; in a folder that was there, or in a new one that is removed.

    :raises Skip: it is not there.
    """
    if not has_module("sqlalchemy"):
        raise Skip("the archive needs SQLAlchemy")
    out = folder or bench.fresh()
    try:
        with _own_server(bench, "archive", out, "--loop", loop or bench.loop, *options) as served:
            yield served
    finally:
        if folder is None:
            shutil.rmtree(out, ignore_errors=True)


@contextmanager
def relay(bench: Bench, served: Served, delay: float) -> Iterator[Served]:
    """Put a line of ``delay`` seconds, each way, before a server."""
    with start_worker("relay", "serve", {"port": served.port, "delay": delay}, bench.folder) as worker:
        yield replace(served, port=int(worker.receive()["port"]))


def certificates(bench: Bench) -> dict[str, str]:
    """Make a certificate for 127.0.0.1 and return its files: ``cert``, ``key``, and the ``ca`` to verify it with.

    :raises Skip: there is nothing to make one with.
    """
    folder = bench.root / "tls"
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "ca")}
    if not folder.exists():
        if not has_module("trustme"):
            raise Skip("TLS needs a certificate, and trustme to make one")
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        folder.mkdir()
        authority.cert_pem.write_to_path(files["ca"])
        certificate.private_key_pem.write_to_path(files["key"])
        certificate.cert_chain_pems[0].write_to_path(files["cert"])
    return files


# Clients.


def call(bench: Bench, module: str, served: Served, verb: str, **options: Any) -> Sample:
    """Run a client of ours, of pynetdicom's (``theirs``) or the plain one against a server, and measure both."""
    given = {"verb": verb, "port": served.port, "called": served.called, **options}
    if module == "ours":
        given.setdefault("loop", bench.loop)
    with start_worker(module, "call", given, bench.folder) as worker:
        worker.receive()
        served.mark()
        worker.go()
        facts = worker.receive()
        return Sample(
            seconds=facts["seconds"],
            client_cpu=facts["cpu"],
            server_cpu=served.cpu(),
            client_peak=facts["peak"],
            server_peak=served.growth(),
            extra=facts.get("extra", {}),
        )


def command(
    bench: Bench,
    served: Served,
    commands: Sequence[Sequence[object]],
    empty: Sequence[Sequence[object]],
    *,
    key: str,
    environment: Mapping[str, str] = NODELAY,
) -> Sample:
    """Run programs at once against a server, and measure both sides; less the median of the empty runs.

    :param key: whose empty runs they are: there are a few of them at first, and another one before each measurement.
    :raises TooLittle: it took no longer than an empty run.
    """
    _need(str(commands[0][0]))
    runs = bench.empty.setdefault(key, [])
    runs += [run_commands(empty, bench.folder, environment=environment) for _ in range(1 if runs else _EMPTY_RUNS)]
    base = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    served.mark()
    run = run_commands(commands, bench.folder, environment=environment)
    if run.seconds <= base.seconds:
        raise TooLittle
    return Sample(
        seconds=run.seconds - base.seconds,
        client_cpu=max(run.cpu - base.cpu, 0.0),
        server_cpu=served.cpu(),
        client_peak=max(run.peak - base.peak, 0),
        server_peak=served.growth(),
        extra={"start_up": base.seconds},
    )
