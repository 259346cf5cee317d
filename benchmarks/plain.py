"""The physical line: the same bytes through a plain socket from files to files, with an octet back for each.

``python -m benchmarks.plain serve|call OPTIONS``. Nothing of DICOM: what any implementation in any language could reach on
this machine with blocking calls, one instance at a time.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from .worker import Stopwatch, main, say, wait

_BUFFER = 262_144


def _serve(options: dict[str, Any]) -> None:
    out = Path(options["out"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        say(port=server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _receive(connection, out)


def _receive(connection: socket.socket, out: Path) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    number = 0
    while head := connection.recv(8, socket.MSG_WAITALL):
        left = int.from_bytes(head, "big")
        if not left:
            connection.sendall(b"\0")
            continue
        with (out / f"{number:06d}.dcm").open("wb", buffering=0) as file:
            while left:
                size = connection.recv_into(buffer[: min(left, _BUFFER)])
                if not size:
                    return
                file.write(buffer[:size])
                left -= size
        connection.sendall(b"\0")
        number += 1


def _call(options: dict[str, Any]) -> None:
    with socket.create_connection(("127.0.0.1", options["port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        paths = [] if options["verb"] == "echo" else sorted(Path(options["source"]).glob("*.dcm"))[: options["count"]]
        say(event="ready")
        wait()
        watch = Stopwatch()
        if options["verb"] == "echo":
            _echo(connection, options["count"])
        else:
            _send(connection, paths)
        say(**watch.facts())


def _echo(connection: socket.socket, count: int) -> None:
    for _ in range(count):
        connection.sendall(bytes(8))
        if connection.recv(1) != b"\0":
            raise OSError("no answer")


def _send(connection: socket.socket, paths: list[Path]) -> None:
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            left = path.stat().st_size
            buffer[:8] = left.to_bytes(8, "big")
            start = 8
            while left:
                size = file.readinto(view[start:])
                if not size:
                    raise OSError(f"{path} became shorter")
                connection.sendall(view[: start + size])
                left -= size
                start = 0
        if connection.recv(1) != b"\0":
            raise OSError("no answer")


if __name__ == "__main__":
    main({"serve": _serve, "call": _call})
