"""Connections that are held, and never get anywhere."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from ..interop.conftest import Certificates
from .process import ArchiveProcess, Socket
from .wire import REQUEST

__all__ = ["half_handshakes", "half_open"]

Close = Callable[[], None]

#: The head of one, and the first bytes of what it announces.
_CLIENT_HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(32)


def half_open(archive: ArchiveProcess, number: int) -> Close:
    """Hold so many connections: some say nothing, some a byte, some half of their first words; return what closes them."""
    held = [archive.connect_plainly() for _ in range(number)]
    words = _CLIENT_HELLO if archive.is_tls else REQUEST
    for connection, said in zip(held, [b"", words[:1], words[: len(words) // 2]] * number, strict=False):
        connection.sendall(said)
    return lambda: _close(held)


def half_handshakes(archive: ArchiveProcess, certificates: Certificates, number: int) -> Close:
    """Hold so many TLS handshakes, each after the server's half of it; return what closes them."""
    held = []
    for _ in range(number):
        connection = archive.connect_plainly()
        outgoing = ssl.MemoryBIO()
        client = certificates.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
        assert connection.recv(1)
        held.append(connection)
    return lambda: _close(held)


def _close(held: list[Socket]) -> None:
    for connection in held:
        connection.close()
