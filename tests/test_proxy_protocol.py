"""The PROXY protocol: its headers of both versions, those that are none, and the transport behind them."""

from __future__ import annotations

import math
import socket
import struct
from ipaddress import ip_address

import anyio
import pytest

from asyncdicom import AssociationClosed, ConnectError
from asyncdicom.proxy_protocol import Networks, ProxiedTransport, read_proxy_header
from asyncdicom.testing import MemoryStream, memory_stream_pair
from asyncdicom.transport import StreamTransport, Transport, wrap_socket

from .harness import PATIENCE

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(text: str) -> bytes:
    """Encode a header of version 1."""
    return f"PROXY {text}\r\n".encode()


def v2(command: int, family: int, body: bytes, *, length: int | None = None, version: int = 2) -> bytes:
    """Encode a header of version 2."""
    length = len(body) if length is None else length
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, length) + body


def addresses(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    """Encode the address block of version 2 for TCP over IPv4 or IPv6."""
    packed = ip_address(source).packed + ip_address(destination).packed
    return packed + struct.pack(">HH", source_port, destination_port)


IPV4 = addresses("10.1.2.3", "10.0.0.1", 4000, 104)
IPV6 = addresses("2001:db8::1", "2001:db8::2", 65535, 104)
#: A TLV, PP2_TYPE_NOOP.
TLV = b"\x04\x00\x02xy"

#: Header -> the address that it gives; None is that of the balancer itself.
HEADERS: list[tuple[str, bytes, tuple[str, int] | None]] = [
    ("v1 over IPv4", v1("TCP4 10.1.2.3 10.0.0.1 4000 104"), ("10.1.2.3", 4000)),
    ("v1 from port 0", v1("TCP4 10.1.2.3 10.0.0.1 0 104"), ("10.1.2.3", 0)),
    ("v1 from port 65535", v1("TCP4 10.1.2.3 10.0.0.1 65535 104"), ("10.1.2.3", 65535)),
    ("v1 over IPv6", v1("TCP6 2001:db8::1 2001:db8::2 4000 104"), ("2001:db8::1", 4000)),
    (
        "v1 over IPv6 at length",
        v1(f"TCP6 {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535"),
        ("ffff:" * 7 + "ffff", 65535),
    ),
    ("v1 unknown", v1("UNKNOWN"), None),
    ("v1 unknown with more", v1(f"UNKNOWN {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535"), None),
    ("v2 over IPv4", v2(1, 0x11, IPV4), ("10.1.2.3", 4000)),
    ("v2 over IPv4 with a TLV", v2(1, 0x11, IPV4 + TLV), ("10.1.2.3", 4000)),
    ("v2 over IPv6", v2(1, 0x21, IPV6), ("2001:db8::1", 65535)),
    ("v2 over IPv6 with a TLV", v2(1, 0x21, IPV6 + TLV), ("2001:db8::1", 65535)),
    ("v2 local", v2(0, 0x00, b""), None),
    ("v2 local with addresses", v2(0, 0x11, IPV4), None),
    ("v2 unspecified", v2(1, 0x00, b""), None),
    ("v2 unspecified with a TLV", v2(1, 0x00, TLV), None),
    ("v2 over UDP", v2(1, 0x12, IPV4), None),
    ("v2 over a UNIX socket", v2(1, 0x31, bytes(216)), None),
    ("v2 at its longest", v2(1, 0x11, IPV4 + bytes(65535 - 12)), ("10.1.2.3", 4000)),
]

MALFORMED: list[tuple[str, bytes]] = [
    ("something else", b"GET / HTTP/1.1\r\n\r\n"),
    ("an A-ASSOCIATE-RQ", b"\x01\x00\x00\x00\x00\xcc"),
    ("lower case", b"proxy TCP4 10.1.2.3 10.0.0.1 4000 104\r\n"),
    ("v1 of nothing", b"PROXY \r\n"),
    ("v1 of another family", v1("UDP4 10.1.2.3 10.0.0.1 4000 104")),
    ("v1 without an address", v1("TCP4")),
    ("v1 with too little", v1("TCP4 10.1.2.3 10.0.0.1 4000")),
    ("v1 with too much", v1("TCP4 10.1.2.3 10.0.0.1 4000 104 1")),
    ("v1 with two spaces", v1("TCP4  10.1.2.3 10.0.0.1 4000 104")),
    ("v1 with a name", v1("TCP4 pacs 10.0.0.1 4000 104")),
    ("v1 with a network", v1("TCP4 10.1.2.0/24 10.0.0.1 4000 104")),
    ("v1 with a number too many", v1("TCP4 10.1.2.3.4 10.0.0.1 4000 104")),
    ("v1 with IPv6 as IPv4", v1("TCP4 2001:db8::1 2001:db8::2 4000 104")),
    ("v1 with IPv4 as IPv6", v1("TCP6 10.1.2.3 10.0.0.1 4000 104")),
    ("v1 with a zone", v1("TCP6 fe80::1%\x1b[2J fe80::2 4000 104")),
    ("v1 from no port", v1("TCP4 10.1.2.3 10.0.0.1 http 104")),
    ("v1 from port 65536", v1("TCP4 10.1.2.3 10.0.0.1 65536 104")),
    ("v1 from port -1", v1("TCP4 10.1.2.3 10.0.0.1 -1 104")),
    ("v1 not in ASCII", v1("TCP4 10.1.2.3 10.0.0.1 \u0664 104")),
    ("v1 without an end", b"PROXY " + b"x" * 200),
    ("v1 that ends too late", v1("UNKNOWN " + "x" * 92)),
    ("v2 of version 1", v2(1, 0x11, IPV4, version=1)),
    ("v2 of version 3", v2(1, 0x11, IPV4, version=3)),
    ("v2 with another command", v2(2, 0x11, IPV4)),
    ("v2 without an address", v2(1, 0x11, b"")),
    ("v2 with half an address", v2(1, 0x11, IPV4[:11])),
    ("v2 with half an address of IPv6", v2(1, 0x21, IPV6[:35])),
    ("v2 with another signature", SIGNATURE[:-1] + b"\r" + v2(1, 0x11, IPV4)[12:]),
]

valid = pytest.mark.parametrize(("header", "address"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])


def transport_pair() -> tuple[MemoryStream, StreamTransport]:
    """What a load balancer writes to, and what we read from."""
    balancer, ours = memory_stream_pair(1 << 20)
    return balancer, StreamTransport(ours)


@pytest.mark.anyio
@valid
async def test_a_header_tells_who_connects(header: bytes, address: tuple[str, int] | None) -> None:
    balancer, inner = transport_pair()
    balancer.send_nowait(header)
    transport = await read_proxy_header(inner, math.inf)
    assert transport.peer_address == address


@pytest.mark.anyio
@valid
async def test_what_follows_a_header_is_received_behind_it(header: bytes, address: tuple[str, int] | None) -> None:
    balancer, inner = transport_pair()
    balancer.send_nowait(header + b"\x01 first")
    transport = await read_proxy_header(inner, math.inf)
    balancer.send_nowait(b", second")
    assert bytes(await transport.receive()) == b"\x01 first"
    assert bytes(await transport.receive()) == b", second"
    await balancer.send_eof()
    assert await transport.receive() == b""


SHORT = [row for row in HEADERS if len(row[1]) < 300]


@pytest.mark.anyio
@pytest.mark.parametrize(("header", "address"), [row[1:] for row in SHORT], ids=[row[0] for row in SHORT])
async def test_a_header_may_come_byte_by_byte(header: bytes, address: tuple[str, int] | None) -> None:
    balancer, inner = transport_pair()

    async def write() -> None:
        for byte in header:
            await balancer.wait_drained()
            balancer.send_nowait(bytes((byte,)))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            transport = await read_proxy_header(inner, math.inf)
        assert transport.peer_address == address
        balancer.send_nowait(b"more")
        assert bytes(await transport.receive()) == b"more"


@pytest.mark.anyio
@pytest.mark.parametrize("header", [HEADERS[0][1], v2(1, 0x21, IPV6 + TLV)], ids=["v1", "v2"])
async def test_an_end_inside_a_header_is_no_connection(header: bytes) -> None:
    for size in range(len(header)):
        balancer, inner = transport_pair()
        balancer.send_nowait(header[:size])
        await balancer.send_eof()
        with pytest.raises(ConnectError, match="closed inside its PROXY header"):
            await read_proxy_header(inner, math.inf)


@pytest.mark.anyio
@pytest.mark.parametrize("data", [row[1] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
async def test_what_is_no_header_is_refused(data: bytes) -> None:
    balancer, inner = transport_pair()
    balancer.send_nowait(data)
    with anyio.fail_after(PATIENCE), pytest.raises(ConnectError, match="PROXY header"):
        await read_proxy_header(inner, math.inf)


@pytest.mark.anyio
async def test_what_is_no_header_is_refused_at_its_first_byte() -> None:
    balancer, inner = transport_pair()
    balancer.send_nowait(b"\x01")
    with anyio.fail_after(PATIENCE), pytest.raises(ConnectError, match="no PROXY header"):
        await read_proxy_header(inner, math.inf)


@pytest.mark.anyio
@pytest.mark.parametrize("begun", [b"", b"PROXY", SIGNATURE])
async def test_a_header_that_does_not_come_in_time_is_not_waited_for(begun: bytes) -> None:
    balancer, inner = transport_pair()
    if begun:
        balancer.send_nowait(begun)
    with pytest.raises(TimeoutError):
        await read_proxy_header(inner, anyio.current_time() + 0.01)


# The transport behind a header does all that the one below does.


@pytest.mark.anyio
async def test_sending_and_losing_go_through() -> None:
    balancer, inner = transport_pair()
    transport = ProxiedTransport(inner, b"", ("10.1.2.3", 4000))
    await transport.send(b"one")
    assert transport.send_nowait(b"two")
    assert await balancer.receive() == b"onetwo"
    assert (transport.unsent, transport.broken, transport.is_receiving) == (None, False, False)
    await balancer.aclose()
    with pytest.raises(AssociationClosed):
        await transport.send(b"three")
    assert transport.error is inner.error is not None
    assert transport.broken
    await transport.aclose()


@pytest.mark.anyio
async def test_whoever_receives_can_be_interrupted() -> None:
    _, inner = transport_pair()
    transport = ProxiedTransport(inner, b"", None)

    async def interrupt() -> None:
        while not transport.is_receiving:
            await anyio.lowlevel.checkpoint()
        transport.interrupt()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            with pytest.raises(TimeoutError):
                await transport.receive()
    transport.abort()
    assert await transport.receive() == b""


@pytest.mark.anyio
async def test_the_socket_below_is_known_to_who_watches_over_it() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        inner = await wrap_socket(ours)
        transport = ProxiedTransport(inner, b"", ("10.1.2.3", 4000))
        assert transport.socket is inner.socket is not None
        assert transport.local_address == inner.local_address
        assert transport.tls is None
        await transport.aclose()


@pytest.mark.anyio
async def test_what_came_with_the_header_counts_as_received() -> None:
    _, inner = transport_pair()
    transport = ProxiedTransport(inner, b"rest", None)
    assert transport.has_received
    assert transport.receive_nowait() == b"rest"
    assert not transport.has_received
    assert transport.receive_nowait() is None


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_transport_that_can_be_watched_can_be_watched_behind_a_header() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        inner = await wrap_socket(ours)
        transport = ProxiedTransport(inner, b"", None)
        told = anyio.Event()
        assert transport.watch(told.set)
        theirs.send(b"news")
        with anyio.fail_after(PATIENCE):
            await told.wait()
        assert transport.has_received
        assert bytes(transport.receive_nowait() or b"") == b"news"
        await transport.aclose()


def test_nothing_of_a_transport_is_left_to_its_defaults() -> None:
    public = {name for name in vars(Transport) if not name.startswith("_")}
    own = {name for name in vars(ProxiedTransport) if not name.startswith("_")}
    assert public - own == {"error"}  # which is set


# Networks that are trusted.

#: Networks, host, whether it is in them.
MEMBERS = [
    (["10.0.0.0/8"], "10.1.2.3", True),
    (["10.0.0.0/8"], "11.1.2.3", False),
    (["10.1.2.3/8"], "10.9.9.9", True),
    (["10.1.2.3"], "10.1.2.3", True),
    (["10.1.2.3"], "10.1.2.4", False),
    (["192.0.2.0/24", "10.0.0.0/8"], "10.1.2.3", True),
    ([], "10.1.2.3", False),
    (["::1"], "::1", True),
    (["fe80::/10"], "fe80::1%eth0", True),
    (["2001:db8::/32"], "2001:db9::1", False),
    (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
    (["0.0.0.0/0"], "2001:db8::1", False),
    (["::/0"], "10.1.2.3", False),
    (["0.0.0.0/0", "::/0"], "pacs.example", False),
    (["0.0.0.0/0", "::/0"], "/run/pacs.sock", False),
    (["0.0.0.0/0", "::/0"], "", False),
    (["0.0.0.0/0", "::/0"], None, False),
]


@pytest.mark.parametrize(("networks", "host", "inside"), MEMBERS)
def test_a_host_is_inside_networks_or_not(networks: list[str], host: object, inside: bool) -> None:
    assert (host in Networks(networks)) is inside


@pytest.mark.parametrize("text", ["pacs.example", "10.0.0.0/33", "", "10.0.0"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Networks(["10.0.0.0/8", text])
