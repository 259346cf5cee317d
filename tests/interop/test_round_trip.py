"""What was stored comes back: the same bytes in the same transfer syntax, for every instance that pydicom ships."""

from __future__ import annotations

from pathlib import Path

import pytest

import asyncdicom
from asyncdicom import PresentationContext, Server, sop

from .material import Archive, Sample, association_profile, data_set_of, samples, storage_contexts
from .peers import DcmtkServer, requires_dcmtk, start_dcmtk

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


def rounds() -> list[list[Sample]]:
    """Divide the instances so that no SOP Instance UID is twice in a round."""
    made: list[dict[str, Sample]] = []
    for item in samples():
        for found in made:
            if item.sop_instance_uid not in found:
                found[item.sop_instance_uid] = item
                break
        else:
            made.append({item.sop_instance_uid: item})
    return [list(found.values()) for found in made]


def test_the_material_covers_what_it_should() -> None:
    syntaxes = {sop.transfer_syntax(item.transfer_syntax_uid).keyword for item in samples()}
    assert len(samples()) > 115
    assert syntaxes >= {
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "DeflatedExplicitVRLittleEndian",
        "JPEGBaseline8Bit",
        "JPEGExtended12Bit",
        "JPEGLosslessSV1",
        "JPEGLSLossless",
        "JPEGLSNearLossless",
        "JPEG2000",
        "JPEG2000Lossless",
        "RLELossless",
    }
    assert any(len(item.data) % 2 for item in samples())


@pytest.mark.parametrize("window", [1, 8])
async def test_many_arrive_over_one_association(window: int) -> None:
    archive = Archive()
    (items, *_) = rounds()
    async with Server(archive.services(), async_operations=(window, window)) as server:
        async with asyncdicom.connect(
            server.addresses[0], contexts=storage_contexts(items), async_operations=(window, 1)
        ) as assoc:
            assert assoc.async_operations[0] == window
            outcomes = [outcome async for outcome in assoc.store_many(item.path for item in items)]
    assert [(outcome.what, outcome.error) for outcome in outcomes] == [(item.path, None) for item in items]
    assert archive.data == {item.sop_instance_uid: item.on_the_wire for item in items}


async def test_our_client_gets_back_from_our_server_what_it_stored() -> None:
    archive = Archive()
    contexts: list[str | PresentationContext] = [sop.STUDY_ROOT_GET, *storage_contexts(samples())]
    async with Server(archive.services()) as server:
        async with asyncdicom.connect(server.addresses[0], contexts=contexts) as assoc:
            for item in samples():
                response = await assoc.store(item.path)
                assert response.status == 0x0000, item.name
                assert archive.data[item.sop_instance_uid] == item.on_the_wire, item.name
                archive.headers = {item.sop_instance_uid: item.header()}
                async with assoc.get(SOPInstanceUID=item.sop_instance_uid, level="IMAGE") as got:
                    received = [(instance, await instance.read()) async for instance in got]
                [(instance, data)] = received
                assert data == item.on_the_wire, item.name
                assert instance.transfer_syntax_uid == item.transfer_syntax_uid
                assert (instance.sop_class_uid, instance.sop_instance_uid) == (
                    item.sop_class_uid,
                    item.sop_instance_uid,
                )
                assert got.response is not None
                assert (got.response.status, got.response.progress.completed) == (0x0000, 1)


async def test_our_client_saves_what_our_server_sent(tmp_path: Path) -> None:
    for index, items in enumerate(rounds()):
        folder = tmp_path / str(index)
        folder.mkdir()
        archive = Archive(items)
        contexts: list[str | PresentationContext] = [sop.PATIENT_ROOT_GET, *storage_contexts(items)]
        async with Server(archive.services()) as server:
            async with asyncdicom.connect(server.addresses[0], contexts=contexts) as assoc:
                uids = [item.sop_instance_uid for item in items]
                async with assoc.get({"SOPInstanceUID": uids}, sop.PATIENT_ROOT_GET, level="IMAGE") as got:
                    async for instance in got:
                        await instance.save(folder / f"{instance.sop_instance_uid}.dcm")
                assert got.response is not None
                assert (got.response.status, got.response.progress.completed) == (0x0000, len(items))
        for item in items:
            assert data_set_of(folder / f"{item.sop_instance_uid}.dcm") == item.on_the_wire, item.name


@requires_dcmtk
async def test_storescp_keeps_what_our_client_stored(storescp: DcmtkServer) -> None:
    for items in rounds():
        storescp.clear()
        async with asyncdicom.connect(f"DCMTK@127.0.0.1:{storescp.port}", contexts=storage_contexts(items)) as assoc:
            for item in items:
                response = await assoc.store(item.path)
                assert response.status == 0x0000, item.name
        kept = {path.name.partition(".")[2]: data_set_of(path) for path in storescp.files()}
        assert len(kept) == len(items)
        for item in items:
            assert kept[item.sop_instance_uid] == item.on_the_wire, item.name


@requires_dcmtk
async def test_dcmrecv_keeps_what_our_client_stored(tmp_path: Path) -> None:
    items = rounds()[0]
    profile = tmp_path / "dcmrecv.cfg"
    profile.write_text(association_profile(items))
    with start_dcmtk("dcmrecv", tmp_path / "dcmrecv", "+B", "-xf", profile, "Any") as dcmrecv:
        async with asyncdicom.connect(f"DCMTK@127.0.0.1:{dcmrecv.port}", contexts=storage_contexts(items)) as assoc:
            for item in items:
                await assoc.store(item.path)
        kept = {path.name.partition(".")[2]: data_set_of(path) for path in dcmrecv.files()}
        assert kept == {item.sop_instance_uid: item.on_the_wire for item in items}
        dcmrecv.check()
