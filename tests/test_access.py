"""Who may connect, through what: address rules, the PROXY protocol, UNIX sockets, inherited sockets, TLS contexts."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

import asyncdicom
from asyncdicom import sop, tls

pytestmark = pytest.mark.anyio

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 104\r\n"
V2 = SIGNATURE + struct.pack(">BBH4s4sHH", 0x21, 0x11, 12, bytes((10, 1, 2, 3)), bytes((10, 0, 0, 1)), 4000, 104)
LOCAL = SIGNATURE + struct.pack(">BBH", 0x20, 0, 0)


async def echo(address: asyncdicom.Address | str, *, prefix: bytes = b"") -> None:
    parsed = asyncdicom.Address.parse(address)
    stream = await anyio.connect_tcp(parsed.host, parsed.port)
    if prefix:
        await stream.send(prefix)
    async with asyncdicom.connect(parsed, stream=stream, contexts=[sop.VERIFICATION]) as assoc:
        await assoc.echo()


@pytest.mark.parametrize(("header", "host"), [(V1, "10.1.2.3"), (V2, "10.1.2.3"), (LOCAL, "127.0.0.1")])
async def test_a_trusted_load_balancer_says_who_connects(header: bytes, host: str) -> None:
    services = asyncdicom.Services()
    seen: list[object] = []

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        seen.append(request.address)

    async with asyncdicom.Server(services, "X@127.0.0.1:0", proxy_from=["127.0.0.0/8"], drain=0) as server:
        await echo(server.addresses[0], prefix=header)
    (address,) = seen
    assert isinstance(address, tuple)
    assert address[0] == host


@pytest.mark.parametrize("header", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200])
async def test_without_its_header_a_load_balancer_is_not_served(header: bytes) -> None:
    async with asyncdicom.Server(asyncdicom.Services(), "X@127.0.0.1:0", proxy_from=["127.0.0.1"], drain=0) as server:
        with pytest.raises(asyncdicom.AssociationClosed):
            await echo(server.addresses[0], prefix=header)


async def test_the_rules_hold_for_the_address_behind_the_load_balancer() -> None:
    options = {"proxy_from": ["127.0.0.1"], "allow": ["10.0.0.0/8"], "drain": 0.0}
    async with asyncdicom.Server(asyncdicom.Services(), "X@127.0.0.1:0", **options) as server:  # type: ignore[arg-type]
        await echo(server.addresses[0], prefix=V1)
        with pytest.raises(asyncdicom.AssociationClosed):
            await echo(server.addresses[0], prefix=V1.replace(b"10.1.2.3", b"192.0.2.1"))


async def test_an_address_that_is_not_allowed_gets_no_answer() -> None:
    async with asyncdicom.Server(asyncdicom.Services(), "X@127.0.0.1:0", allow=["192.0.2.0/24"], drain=0) as server:
        with pytest.raises(asyncdicom.AssociationClosed):
            await echo(server.addresses[0])


async def test_a_unix_socket_serves(tmp_path: Path) -> None:
    address = asyncdicom.Address("X", str(tmp_path / "dicom.sock"), 0)
    async with asyncdicom.Server(asyncdicom.Services(), address, drain=0):
        async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as assoc:
            await assoc.echo()


async def test_an_inherited_socket_serves() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    async with asyncdicom.Server(asyncdicom.Services(), "X@127.0.0.1:0", sockets=[sock], drain=0) as server:
        await echo(server.addresses[0])


async def test_contexts_after_bcp_195_authenticate_both_sides_and_are_reloaded(tmp_path: Path) -> None:
    authority = trustme.CA()
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "server", "client", "renewed")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    for name in ("server", "client", "renewed"):
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(paths[name]))
    context = tls.server_context(paths["server"], ca=paths["ca"])
    client = tls.client_context(ca=paths["ca"], certificate=paths["client"])
    async with asyncdicom.Server(asyncdicom.Services(), "X@127.0.0.1:0", ssl=context, drain=0) as server:
        for _ in range(2):
            async with asyncdicom.connect(server.addresses[0], ssl=client, contexts=[sop.VERIFICATION]) as assoc:
                await assoc.echo()
            tls.reload(context, paths["renewed"])
        anonymous = tls.client_context(ca=paths["ca"])
        with pytest.raises((asyncdicom.ConnectError, asyncdicom.AssociationError)):
            await asyncdicom.connect(server.addresses[0], ssl=anonymous, contexts=[sop.VERIFICATION]).__aenter__()


@pytest.mark.parametrize("limit", ["associations", "associations_per_address", "associations_per_ae_title"])
async def test_a_policy_that_takes_its_time_cannot_be_used_to_pass_a_limit(limit: str) -> None:
    services = asyncdicom.Services()
    asked, decided = anyio.Event(), anyio.Event()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        asked.set()
        await decided.wait()

    bound: dict[str, Any] = {limit: 1}
    limits = asyncdicom.Limits(**bound)
    with anyio.fail_after(30):
        async with (
            asyncdicom.Server(services, "X@127.0.0.1:0", limits=limits, drain=0) as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(echo, server.addresses[0])
            await asked.wait()
            with pytest.raises(asyncdicom.AssociationRejected) as caught:
                await asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]).__aenter__()
            decided.set()
    assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)


async def test_a_rejected_association_counts_for_no_limit() -> None:
    services = asyncdicom.Services()
    answers = [asyncdicom.AssociationRejected(1, 1, 3), ValueError(), None]

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    limits = asyncdicom.Limits(associations=1, associations_per_address=1, associations_per_ae_title=1)
    async with asyncdicom.Server(services, "X@127.0.0.1:0", limits=limits, drain=0) as server:
        for _ in range(2):
            with pytest.raises(asyncdicom.AssociationRejected) as caught:
                await echo(server.addresses[0])
            assert caught.value.result == 1
        await echo(server.addresses[0])


async def hang() -> None:
    await anyio.sleep_forever()


async def fail() -> None:
    raise RuntimeError("the directory of users is down")


@pytest.mark.parametrize("trouble", [hang, fail])
@pytest.mark.parametrize(("identity", "source"), [(None, 1), (asyncdicom.UserIdentity.password("u", "p"), 2)])
async def test_a_policy_that_hangs_or_fails_refuses_an_identity_as_the_provider(
    trouble: Callable[[], Awaitable[None]], identity: asyncdicom.UserIdentity | None, source: int
) -> None:
    services = asyncdicom.Services()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        await trouble()

    timeouts = asyncdicom.Timeouts(associate=0.3 if trouble is hang else 30)
    async with asyncdicom.Server(services, "X@127.0.0.1:0", timeouts=timeouts, drain=0) as server:
        with pytest.raises(asyncdicom.AssociationRejected) as caught:
            async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION], user_identity=identity):
                pass
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, source, 1)
