"""A pool of associations with real peers, which end what is idle in their own way."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncdicom import AssociationPool, sop

from .material import data_set_of, storage_contexts, study
from .peers import DcmtkServer, pynetdicom_scp, requires_dcmtk

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


@requires_dcmtk
async def test_storescp_keeps_what_a_pool_stored_side_by_side(storescp: DcmtkServer) -> None:
    # It serves one association at a time: the others wait for their turn with it, or are made when it is free.
    async with AssociationPool(f"DCMTK@127.0.0.1:{storescp.port}", size=1, contexts=storage_contexts(study())) as pool:
        async with anyio.create_task_group() as tasks:
            for item in study():
                tasks.start_soon(pool.store, item.path)
        assert (pool.in_use, pool.idle) == (0, 1)
    kept = {path.name.partition(".")[2]: data_set_of(path) for path in storescp.files()}
    assert kept == {item.sop_instance_uid: item.on_the_wire for item in study()}


@pytest.mark.complains("Network timeout|network timeout")
async def test_an_association_that_pynetdicom_has_given_up_is_replaced() -> None:
    def configure(ae: Any) -> None:
        ae.network_timeout = 0.3

    with pynetdicom_scp(configure=configure) as port:
        async with AssociationPool(f"PYNETDICOM@127.0.0.1:{port}", contexts=[sop.VERIFICATION]) as pool:
            async with pool.association() as first:
                await first.echo()
            with anyio.fail_after(20):
                while pool.idle:
                    await anyio.lowlevel.checkpoint()
            async with pool.association() as second:
                await second.echo()
            assert first.ended
            assert second is not first


async def test_many_echoes_on_few_associations_with_pynetdicom() -> None:
    with pynetdicom_scp() as port:
        async with AssociationPool(f"PYNETDICOM@127.0.0.1:{port}", size=3, contexts=[sop.VERIFICATION]) as pool:
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(pool.echo)
            assert (pool.in_use, pool.idle) == (0, 3)
