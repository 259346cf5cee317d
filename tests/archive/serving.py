"""An archive behind associations in memory, and what its tests ask of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from pydicom.dataset import Dataset

import asyncdicom
from asyncdicom import Association, Instance, PresentationContext, Services, StoreRequest, sop
from asyncdicom.archive import Archive
from asyncdicom.testing import connected

from ..harness import PATIENCE

__all__ = [
    "QUERY_RETRIEVE",
    "Destination",
    "archived",
    "associated",
    "both_roles",
    "fill",
    "got",
    "instance_files",
    "left_over",
    "store",
]

#: Contexts of all the models, and of the classes of made-up instances in both roles.
QUERY_RETRIEVE: tuple[str, ...] = (
    sop.VERIFICATION,
    *sop.FIND,
    *sop.MOVE,
    *sop.GET,
    sop.CT_IMAGE_STORAGE,
    sop.BASIC_TEXT_SR_STORAGE,
)


def both_roles(sop_class_uid: str, *transfer_syntaxes: str) -> PresentationContext:
    """Return a context for storing and for C-GET."""
    return PresentationContext(
        abstract_syntax=sop_class_uid,
        transfer_syntaxes=transfer_syntaxes or (sop.EXPLICIT_VR_LITTLE_ENDIAN,),
        scu_role=True,
        scp_role=True,
    )


@asynccontextmanager
async def archived(folder: Path, **options: Any) -> AsyncIterator[Archive]:
    """Open an archive; nothing is forced to the disk unless that is asked for."""
    async with Archive(folder, **{"sync": "never", **options}) as archive:
        yield archive


@asynccontextmanager
async def associated(
    archive: Archive, contexts: Iterable[object] = QUERY_RETRIEVE, **options: Any
) -> AsyncIterator[Association]:
    """Associate with an archive in memory; all of it must end in time.

    :param contexts: SOP classes and presentation contexts.
    """
    proposed = [item if isinstance(item, PresentationContext) else str(item) for item in contexts]
    with anyio.fail_after(PATIENCE):
        async with connected(archive.services, proposed, **options) as association:
            yield association


def fill(folder: Path, what: Iterable[Dataset | Instance]) -> None:
    """Make an archive with instances, without a network."""
    archive = Archive(folder, sync="never")
    archive.open()
    try:
        assert archive._ingest is not None
        for one in what:
            instance = one if isinstance(one, Instance) else Instance.from_dataset(one)
            uids = instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid
            arrival = archive._ingest.arrival(asyncdicom.dataset.part10_head(*uids), *uids)
            assert arrival.finish([data_of(instance)]).status == 0
    finally:
        archive.close()


def data_of(instance: Instance) -> bytes:
    """Return the data set of an instance in memory."""
    source = instance.open_source()
    assert source.size is not None
    data = bytearray(source.size)
    source.read_into([memoryview(data)])
    source.close()
    return bytes(data)


async def store(association: Association, *what: Dataset | Instance | Path, check: bool = True) -> list[int]:
    """Store instances one after the other; return the statuses."""
    return [int((await association.store(one, check=check)).status) for one in what]


async def got(
    association: Association, model: str, *, check: bool = True, **keys: object
) -> tuple[dict[str, tuple[str, bytes]], asyncdicom.Response]:
    """Retrieve by C-GET; return transfer syntax and data set by SOP Instance UID, and the final response."""
    found = {}
    async with association.get(model=model, check=check, **keys) as instances:  # type: ignore[arg-type]
        async for instance in instances:
            found[instance.sop_instance_uid] = (instance.transfer_syntax_uid, await instance.read())
    assert instances.response is not None
    return found, instances.response


class Destination:
    """A storage SCP on a port of its own, for C-MOVE; keeps transfer syntax and data set by SOP Instance UID."""

    def __init__(self) -> None:
        self.instances: dict[str, tuple[str, bytes]] = {}
        self.requests: list[StoreRequest] = []
        self.services = Services()
        self.services.store("*", unknown=True)(self._store)

    async def _store(self, request: StoreRequest) -> None:
        self.requests.append(request)
        self.instances[request.sop_instance_uid] = (request.transfer_syntax_uid, await request.read())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[dict[str, Any]]:
        """Serve; gives the options of the server that moves to ``DEST``."""
        async with asyncdicom.Server(self.services, "DEST@127.0.0.1:0") as server:
            yield {"server_options": {"peers": {"DEST": server.addresses[0]}}}


def instance_files(folder: Path) -> list[Path]:
    """Return the files of the instances of an archive."""
    return sorted(path for path in (folder / "instances").rglob("*") if path.is_file())


def left_over(folder: Path) -> list[Path]:
    """Return what lies around in an archive: half an instance, a folder of a process that has ended."""
    known = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "in-doubt"}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in known and (folder / "instances") not in path.parents
    ]
