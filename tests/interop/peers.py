"""Real peers: DCMTK's programs and pynetdicom's application entities, started, watched and stopped.

Only processes and threads that are started here are stopped here. A server is ready when it takes a connection; nothing
waits for a fixed time. What a DCMTK program writes is bounded by a file size limit.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from pynetdicom import AE

from asyncdicom.protocol import pdu

if TYPE_CHECKING:
    import ssl as _ssl

    from pynetdicom.association import Association as PeerAssociation
    from pynetdicom.presentation import PresentationContext as PeerContext

__all__ = [
    "DCMTK",
    "DcmtkServer",
    "Run",
    "complaints",
    "dcmqrscp_config",
    "dcmtk_missing",
    "free_port",
    "hold_reading_thread",
    "pynetdicom_qrscp",
    "pynetdicom_scp",
    "pynetdicom_scu",
    "requires_dcmtk",
    "run",
    "start_dcmtk",
]

#: The programs that the tests run.
DCMTK = ("echoscu", "storescu", "dcmsend", "findscu", "getscu", "movescu", "storescp", "dcmrecv", "dcmqrscp")

#: Skips a test where DCMTK is not installed; fails it there when ``CI`` is set. See the fixture ``dcmtk``.
requires_dcmtk = pytest.mark.usefixtures("dcmtk")

#: Most bytes that a DCMTK program may write into one file, logs included, in the blocks of ``ulimit -f``.
_FILE_BLOCKS = 64 * 2048

#: Seconds for a server to be ready, and for one to end after SIGTERM.
_START = 20.0
_STOP = 5.0

_COMPLAINT = re.compile(r"^(?:W|E|F): .*", re.MULTILINE)


def dcmtk_missing() -> list[str]:
    """Return the names of the DCMTK programs that are not installed."""
    return [name for name in DCMTK if shutil.which(name) is None]


def complaints(log: str) -> list[str]:
    """Return the lines of a DCMTK log that are warnings or errors."""
    return _COMPLAINT.findall(log)


def _limited(arguments: Sequence[object]) -> list[str]:
    """Wrap a command so that no file it writes grows beyond the limit (safe in threads, as a preexec_fn is not)."""
    script = f'ulimit -f {_FILE_BLOCKS} && exec "$0" "$@"'
    return ["/bin/sh", "-c", script, *map(str, arguments)]


# Clients of DCMTK.


@dataclass(frozen=True, slots=True)
class Run:
    """A DCMTK program that has ended: its exit status and what it printed."""

    returncode: int
    output: str

    @property
    def complaints(self) -> list[str]:
        """Its warnings and errors."""
        return complaints(self.output)

    def check(self) -> Run:
        """Return the run if it succeeded without any warning, else fail the test."""
        assert self.returncode == 0, self.output
        assert not self.complaints, self.output
        return self


async def run(program: str, *arguments: object, seconds: float = 30, cwd: Path | None = None) -> Run:
    """Run a DCMTK program to its end, bounded in time and in what it writes."""
    with tempfile.TemporaryFile() as log:
        with anyio.fail_after(seconds):
            done = await anyio.run_process(
                _limited([program, *arguments]),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
            )
        log.seek(0)
        return Run(done.returncode, log.read().decode("utf-8", "replace"))


# Servers of DCMTK.


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(slots=True)
class DcmtkServer:
    """A DCMTK server that runs.

    :ivar folder: where it keeps what it receives.
    """

    program: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path = field(repr=False)
    _seen: int = 0
    _allowed: str | None = None

    def output(self) -> str:
        """Return what it has printed since it was ready."""
        return self.log.read_bytes()[self._seen :].decode("utf-8", "replace")

    def mark(self) -> None:
        """Forget what it has printed so far."""
        self._seen = self.log.stat().st_size
        self._allowed = None

    def allow(self, pattern: str) -> None:
        """Let complaints pass that match, until the next :meth:`mark`: the test provokes them."""
        self._allowed = pattern

    def check(self) -> None:
        """Fail the test if it complained since the last :meth:`mark`."""
        allowed = self._allowed
        found = [line for line in complaints(self.output()) if allowed is None or not re.search(allowed, line)]
        assert not found, self.output()

    def files(self) -> list[Path]:
        """Return the files that it keeps, without its own index."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "index.dat")

    def clear(self) -> None:
        """Remove the files that it keeps."""
        for path in self.files():
            path.unlink()

    def stop(self) -> None:
        """End the process."""
        _end(self.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, and those that it forked: they are a process group of their own."""
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        pass
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


@contextmanager
def _process(arguments: Sequence[object], log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            _limited(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


@contextmanager
def start_dcmtk(
    program: str,
    folder: Path,
    *options: object,
    ae_title: str = "DCMTK",
    ssl: _ssl.SSLContext | None = None,
    config: Callable[[int], str] | None = None,
    refuses: bool = False,
) -> Iterator[DcmtkServer]:
    """Run a DCMTK server on a free port, in a folder of its own, until the block is left.

    :param options: options of the program, before its port.
    :param ae_title: what it is called by.
    :param ssl: our side's context, if it wants TLS.
    :param config: for dcmqrscp: makes the text of its configuration file for a port.
    :param refuses: it rejects every association.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        port = free_port()
        arguments: list[object] = [program, "-v", *options]
        if config is None:
            arguments += ["-od", data, "-aet", ae_title]
        else:
            path = folder / "dcmqrscp.cfg"
            path.write_text(config(port))
            arguments += ["-c", path]
        log = folder / f"{program}-{port}.log"
        with _process([*arguments, port], log, folder) as process:
            if not _wait_ready(port, process, lambda port=port: _verify(port, ae_title, ssl, refuses)):  # type: ignore[misc]
                # Somebody else was quicker to take the port.
                continue
            server = DcmtkServer(program, port, data, process, log)
            server.mark()
            yield server
            return
    raise RuntimeError(f"{program} did not start: {log.read_text(errors='replace')}")


def dcmqrscp_config(folder: Path, peers: Mapping[str, int], *, ae_title: str = "DCMTK") -> Callable[[int], str]:
    """Return a function that makes dcmqrscp's configuration file for a port.

    :param folder: where it keeps its database; made here.
    :param peers: ports of 127.0.0.1 of the move destinations, by AE title.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hosts = "\n".join(f"{title.lower()} = ({title}, localhost, {port})" for title, port in peers.items())

    def make(port: int) -> str:
        return f"""
NetworkTCPPort  = {port}
MaxPDUSize      = 16384
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {folder} RW (500, 1024mb) ANY
AETable END
"""

    return make


def _wait_ready(port: int, process: subprocess.Popen[bytes], probe: Callable[[], bool]) -> bool:
    """Wait until a process takes associations; ``False`` if it ended instead."""
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        try:
            if probe():
                return True
        except OSError:
            # Not listening yet: as short a pause as keeps this from being a busy loop.
            time.sleep(0.005)
    raise TimeoutError(f"nothing took an association on port {port} within {_START} s")


def _verify(port: int, ae_title: str, ssl: _ssl.SSLContext | None = None, refuses: bool = False) -> bool:
    """Associate for Verification and release, with a plain socket, so that the probe leaves no complaint in a log."""
    request = pdu.AssociateRQ(
        called_ae_title=ae_title,
        calling_ae_title="PROBE",
        application_context="1.2.840.10008.3.1.1.1",
        presentation_contexts=(
            pdu.PresentationContextRQ(
                context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2.840.10008.1.2",)
            ),
        ),
        user_information=pdu.UserInformation(
            maximum_length=16384, implementation_class_uid="1.2.826.0.1.3680043.9.3811.9"
        ),
    )
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        sock = plain if ssl is None else ssl.wrap_socket(plain, server_hostname="localhost")
        with sock, sock.makefile("rb") as stream:
            for message, answer in ((request, 2), (pdu.ReleaseRQ(), 6)):
                sock.sendall(pdu.encode(message))
                head = stream.read(6)
                if refuses and head[:1] == b"\3":
                    return True
                if len(head) < 6 or head[0] != answer:
                    raise ConnectionError(f"the probe was answered by {head!r}")
                stream.read(int.from_bytes(head[2:], "big"))
    return True


# pynetdicom.


def _ae(ae_title: str) -> AE:
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
    return ae


@contextmanager
def pynetdicom_scp(
    contexts: Iterable[PeerContext] = (),
    handlers: Iterable[tuple[Any, ...]] = (),
    *,
    ae_title: str = "PYNETDICOM",
    ssl: _ssl.SSLContext | None = None,
    storage: bool = False,
    configure: Callable[[AE], None] | None = None,
) -> Iterator[int]:
    """Run a pynetdicom SCP in threads until the block is left; gives its port.

    :param contexts: what it supports.
    :param handlers: pairs or triples of an event and its handler.
    :param storage: support any storage class in both roles and all transfer syntaxes.
    :param configure: sets more of the application entity.
    """
    from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    ae = _ae(ae_title)
    ae.add_supported_context(Verification)
    if storage:
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    for context in contexts:
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax)
    if configure is not None:
        configure(ae)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers), ssl_context=ssl)
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        ae.shutdown()


class _Checkpoint(threading.Event):
    """Where pynetdicom holds its reading thread while an operation waits for its own responses.

    Its own event lets that thread slip through, and swallow the response of a peer that is as quick as ours: an operation
    that clears it takes a thread for held that has only not left its previous pause. Here clearing waits until it is held.
    """

    def __init__(self, association: PeerAssociation) -> None:
        super().__init__()
        self._association = association
        self.set()

    def clear(self) -> None:
        super().clear()
        deadline = time.monotonic() + 5
        while not self._cond._waiters and self._association.is_alive() and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.0001)


def hold_reading_thread() -> None:
    """Let every association that is asked for in this process have a :class:`_Checkpoint`, for pynetdicom's own programs."""
    associate = AE.associate

    def associates(*arguments: Any, **options: Any) -> PeerAssociation:
        association = associate(*arguments, **options)
        association._reactor_checkpoint = _Checkpoint(association)
        return association

    AE.associate = associates  # type: ignore[method-assign]


@contextmanager
def pynetdicom_scu(
    port: int,
    contexts: Sequence[PeerContext],
    *,
    called: str = "ASYNCDICOM",
    ae_title: str = "PYNETDICOM",
    ssl: _ssl.SSLContext | None = None,
    roles: Iterable[str] = (),
    negotiation: Iterable[Any] = (),
    handlers: Iterable[tuple[Any, ...]] = (),
    max_pdu: int = 16382,
) -> Iterator[PeerAssociation]:
    """Associate as pynetdicom's requestor; releases at the end. To be used in a thread.

    :param roles: SOP classes for which it proposes to be SCP as well as SCU.
    :param negotiation: more user information items.
    """
    from pynetdicom import build_role

    ae = _ae(ae_title)
    items = [*negotiation, *(build_role(uid, scu_role=True, scp_role=True) for uid in roles)]
    association = ae.associate(
        "127.0.0.1",
        port,
        contexts=list(contexts),
        ae_title=called,
        ext_neg=items or None,
        evt_handlers=list(handlers),
        tls_args=None if ssl is None else (ssl, "localhost"),
        max_pdu=max_pdu,
    )
    association._reactor_checkpoint = _Checkpoint(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.is_alive():
            association.join(10)


@contextmanager
def pynetdicom_qrscp(folder: Path, peers: Mapping[str, int]) -> Iterator[DcmtkServer]:
    """Run pynetdicom's qrscp application in a process of its own until the block is left.

    :param peers: ports of 127.0.0.1 of the move destinations, by AE title.
    """
    data = folder / "instances"
    data.mkdir(parents=True)
    sections = "\n".join(f"[{title}]\n    address: 127.0.0.1\n    port: {port}" for title, port in peers.items())
    for _ in range(5):
        port = free_port()
        config = folder / "qrscp.ini"
        config.write_text(
            f"""[DEFAULT]
    ae_title: QRSCP
    port: {port}
    max_pdu: 16382
    acse_timeout: 20
    dimse_timeout: 20
    network_timeout: 20
    bind_address: 127.0.0.1
    instance_location: {data}
    database_location: {folder / "instances.sqlite"}
    log_identifier: False
{sections}
"""
        )
        log = folder / f"qrscp-{port}.log"
        command = [sys.executable, "-m", "pynetdicom", "qrscp", "-c", config]
        with _process(command, log, folder) as process:
            if not _wait_ready(port, process, lambda port=port: _verify(port, "QRSCP")):  # type: ignore[misc]
                continue
            server = DcmtkServer("qrscp", port, data, process, log)
            server.mark()
            yield server
            return
    raise RuntimeError(f"qrscp did not start: {log.read_text(errors='replace')}")
