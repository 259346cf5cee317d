"""A server in a program that knows nothing of anyio: ``asyncio.run`` around it all."""

from __future__ import annotations

import asyncio
import socket

import pytest

import asyncdicom
from asyncdicom import Server, Services, StoreRequest, sop

from .harness import ct_instance


def test_a_request_that_comes_while_another_is_performed_is_performed_beside_it() -> None:
    begun: list[str] = []

    async def main() -> None:
        services = Services()
        first, second = asyncio.Event(), asyncio.Event()

        @services.store("*")
        async def store(request: StoreRequest) -> None:
            await request.read()
            begun.append(request.sop_instance_uid)
            if len(begun) == 1:
                first.set()
                await second.wait()
            second.set()

        async with (
            asyncio.timeout(10),
            Server(services, "SERVER@127.0.0.1:0") as server,
            asyncdicom.connect(
                server.addresses[0], contexts=[sop.CT_IMAGE_STORAGE], async_operations=(8, 1)
            ) as association,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(association.store(ct_instance(uid="1.2.1")))
            await first.wait()
            tasks.create_task(association.store(ct_instance(uid="1.2.2")))

    asyncio.run(main())
    assert begun == ["1.2.1", "1.2.2"]


def test_a_server_that_nobody_left_stops_listening_when_its_loop_is_shut_down() -> None:
    async def main() -> asyncdicom.Address:
        server = await Server(Services(), "SERVER@127.0.0.1:0").__aenter__()
        return server.addresses[0]

    address = asyncio.run(main())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), 10)
