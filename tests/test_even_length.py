"""Data sets are of even length on the wire, wherever their bytes come from (PS3.8 Table 9-23, PS3.5 A.5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncdicom import FindRequest, Services, sop, testing
from asyncdicom.dataset import BytesSource, FileSource, Source, StreamSource
from asyncdicom.instances import SourceOutgoing
from asyncdicom.protocol.framing import Layout

from .conftest import TEST_FILES

pytestmark = pytest.mark.anyio

ODD = os.urandom(100_001)


def _file(folder: Path, data: bytes) -> Source:
    head = (TEST_FILES / "MR_small_implicit.dcm").read_bytes()
    path = folder / "odd.dcm"
    source = FileSource.open(TEST_FILES / "MR_small_implicit.dcm")
    offset = source.head.data_set_offset
    source.close()
    # An odd tail behind the elements of the head; long enough in the last case not to be kept in memory.
    path.write_bytes(head[:offset] + data)
    return FileSource.open(path)


SOURCES: list[tuple[str, Callable[[Path, bytes], Source]]] = [
    ("bytes", lambda folder, data: BytesSource(data)),
    ("stream", lambda folder, data: StreamSource(data[at : at + 997] for at in range(0, len(data), 997))),
    ("file", _file),
]


@pytest.mark.parametrize(("name", "make"), SOURCES, ids=[name for name, _ in SOURCES])
@pytest.mark.parametrize("size", [1, 2, 9, 63, 64, 65, 127, 128, 129, 3_000_001])
@pytest.mark.parametrize("payload", [64, 131_060])
async def test_an_odd_data_set_ends_with_a_nul_byte(
    name: str, make: Callable[[Path, bytes], Source], size: int, payload: int, tmp_path: Path
) -> None:
    if name == "file":
        whole = (TEST_FILES / "MR_small_implicit.dcm").read_bytes()[-9354:]
        data = (whole + bytes(range(1, 256)) * 12_000)[: 9354 + size]
    else:
        data = (ODD * 40)[:size]
    source = make(tmp_path, data)
    outgoing = SourceOutgoing(source)
    layout = Layout(payload + 6)
    sent = bytearray()
    last = False
    while not last:
        left = outgoing.size
        if left is None:
            piece, last = await outgoing.fill(layout.buffer_payload)
            sent += piece or b""
        else:
            take = layout.portion(left)
            last = take == left
            buffer = bytearray(b"\xff" * take)
            await outgoing.fill_gaps([memoryview(buffer)])
            sent += buffer
    source.close()
    assert bytes(sent) == data + b"\0" * (len(data) % 2)
    assert outgoing.size in (0, None)


@pytest.mark.parametrize("size", [1, 2, 31, 131_059, 131_061, 300_001])
async def test_an_identifier_given_as_odd_bytes_ends_with_a_nul_byte(size: int) -> None:
    services = Services()
    came: list[bytes] = []

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: FindRequest) -> list[bytes]:
        came.append(request.identifier_bytes)
        return []

    async with testing.connected(services, [sop.STUDY_ROOT_FIND]) as assoc:
        assert [match async for match in assoc.find((ODD * 3)[:size])] == []
    assert came == [(ODD * 3)[:size] + b"\0" * (size % 2)]
