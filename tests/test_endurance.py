"""Hundreds of connections, aborts and cancelled operations leave nothing behind; see :mod:`.endurance`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from .endurance import strain
from .hostile.process import ArchiveProcess, archive_process
from .interop.conftest import Certificates, certificates

__all__ = ["certificates"]

#: The part of it that is done here.
SHARE = 0.01


@pytest.fixture(params=["plain", "tls"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> Iterator[ArchiveProcess]:
    """Run an archive."""
    pytest.importorskip("sqlalchemy")
    with archive_process(
        tmp_path / "archive", certificates=certificates if request.param == "tls" else None
    ) as running:
        yield running


def test_an_archive_is_afterwards_as_it_was(archive: ArchiveProcess) -> None:
    for name, (strain_it, times) in strain.ARCHIVE.items():
        with archive.unharmed(name, None):
            strain_it(archive, int(times * SHARE))


@pytest.mark.anyio
@pytest.mark.parametrize("name", strain.HERE)
async def test_a_server_and_its_clients_are_afterwards_as_they_were(name: str) -> None:
    strain_it, times = strain.HERE[name]
    async with strain.served() as server:
        await strain_it(server, 10)
        before = strain.figures()
        await strain_it(server, int(times * SHARE))
        with anyio.fail_after(30):
            while server.associations or strain.figures().descriptors > before.descriptors:
                await anyio.lowlevel.checkpoint()
            while strain.figures().tasks > before.tasks:
                await anyio.lowlevel.checkpoint()
        assert strain.figures().threads <= before.threads
