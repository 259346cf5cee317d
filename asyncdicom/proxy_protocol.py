"""The PROXY protocol, versions 1 and 2: who really connects, as a load balancer in front of us tells it.

It is believed only from addresses that are trusted to say so.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .exceptions import ConnectError
from .transport import Transport

if TYPE_CHECKING:
    import ssl

__all__ = ["Networks", "ProxiedTransport", "read_proxy_header"]

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_MOST = 107
_FAMILIES = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}


class Networks:
    """A set of IP networks.

    :raises ValueError: one of them is no address or network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]

    def __contains__(self, host: object) -> bool:
        try:
            address = ipaddress.ip_address(str(host).partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class ProxiedTransport(Transport):
    """A transport whose peer is who the PROXY header says, with what was read behind the header in front."""

    def __init__(self, inner: Transport, rest: bytes, address: tuple[str, int] | None) -> None:
        self._inner = inner
        self._rest = rest
        self._address = address

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        data = await self._inner.receive(deadline, acknowledge=acknowledge)
        self.error = self._inner.error
        return data

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        try:
            await self._inner.send(data, deadline)
        finally:
            self.error = self._inner.error

    async def flush(self, deadline: float = math.inf) -> None:
        await self._inner.flush(deadline)

    def send_nowait(self, data: bytes) -> bool:
        return self._inner.send_nowait(data)

    def watch(self, callback: Callable[[], None]) -> bool:
        return self._inner.watch(callback)

    @property
    def has_received(self) -> bool:
        return bool(self._rest) or self._inner.has_received

    def receive_nowait(self) -> bytes | memoryview | None:
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return self._inner.receive_nowait()

    @property
    def broken(self) -> bool:  # type: ignore[override]
        return self._inner.broken

    @property
    def unsent(self) -> memoryview | None:  # type: ignore[override]
        return self._inner.unsent

    @property
    def is_receiving(self) -> bool:
        return self._inner.is_receiving

    def interrupt(self) -> None:
        self._inner.interrupt()

    def abort(self) -> None:
        self._inner.abort()

    async def aclose(self) -> None:
        await self._inner.aclose()

    @property
    def socket(self) -> Any:
        return self._inner.socket

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self._inner.tls

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return self._address or self._inner.peer_address

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return self._inner.local_address


async def read_proxy_header(transport: Transport, deadline: float) -> ProxiedTransport:
    """Read the header that a trusted load balancer sends first.

    :raises ConnectError: there is none, or it is malformed: the connection is not to be served.
    :raises TimeoutError: it did not come in time.
    """
    data = b""
    while True:
        parsed = _parse(data)
        if parsed is not None:
            size, address = parsed
            return ProxiedTransport(transport, data[size:], address)
        piece = await transport.receive(deadline)
        if not piece:
            raise ConnectError("the connection was closed inside its PROXY header")
        data += piece


def _parse(data: bytes) -> tuple[int, tuple[str, int] | None] | None:
    """Return the header's size and the address that it gives (``None``: the balancer's own), or ``None`` to read on."""
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise ConnectError("no PROXY header came from a trusted load balancer")


def _parse_v1(data: bytes) -> tuple[int, tuple[str, int] | None] | None:
    end = data.find(b"\r\n", 0, _V1_MOST)
    if end < 0:
        if len(data) >= _V1_MOST:
            raise ConnectError("a PROXY header has no end")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if len(words) >= 2 and words[1] == "UNKNOWN":
        return end + 2, None
    try:
        _, family, source, _, port, _ = words
        # A zone, as in fe80::1%eth0, means nothing here, and could hold anything.
        if not port.isdigit() or int(port) > 65535 or "%" in source:
            raise ValueError
        address = _FAMILIES[family](source)
    except (ValueError, KeyError):
        raise ConnectError("a PROXY header is malformed") from None
    return end + 2, (str(address), int(port))


def _parse_v2(data: bytes) -> tuple[int, tuple[str, int] | None] | None:
    if len(data) < 16:
        return None
    version, family, length = struct.unpack_from(">BBH", data, 12)
    if version >> 4 != 2 or version & 15 > 1:
        raise ConnectError("a PROXY header is malformed")
    if len(data) < 16 + length:
        return None
    if version & 15 == 0:  # LOCAL: a health check of the balancer itself
        return 16 + length, None
    if family not in (0x11, 0x21):  # not TCP over IP
        return 16 + length, None
    if length < (12 if family == 0x11 else 36):
        raise ConnectError("a PROXY header is malformed")
    if family == 0x11:
        source, port = str(ipaddress.IPv4Address(data[16:20])), struct.unpack_from(">H", data, 24)[0]
    else:
        source, port = str(ipaddress.IPv6Address(data[16:32])), struct.unpack_from(">H", data, 48)[0]
    return 16 + length, (source, port)
