"""The embedded Query/Retrieve archive: an index, a folder of instances, and the services on them.

It uses the public API of asyncdicom only, as an application of yours would.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from .. import FindRequest, Instance, RetrieveRequest, Services, Status, StatusError, StoreRequest, sop
from ..dataset import FileSource, Source, read_file_head
from ..exceptions import DataSetError
from ..status import IDENTIFIER_MISMATCH, PENDING, PENDING_OPTIONAL_KEYS
from .entities import InstanceRow, NewInstance
from .files import Files, FolderFiles, Sync
from .identifier import Attributes, decode_data_set
from .index import Index
from .ingest import Ingest, OnDuplicate, read_instance
from .matching import IdentifierError
from .model import Model
from .query import Query, Semantics, check_hierarchy, parse_find, parse_retrieve

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Archive", "Rebuilt"]

logger = logging.getLogger("asyncdicom.archive")

T = TypeVar("T")

#: Rows of a retrieval that are kept at once; more are looked up again while they are sent.
_ROWS = 20_000

#: Extended negotiation that is really supported (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1), by its place in the answer: relational
#: queries, combined date-time matching, fuzzy matching of names, timezone adjustment; not enhanced multi-frame conversion.
_FIND_SUPPORTED = b"\x01\x01\x01\x01\x00"
_RETRIEVE_SUPPORTED = b"\x01\x00"


@dataclass(slots=True)
class Rebuilt:
    """What :meth:`Archive.rebuild` found.

    :ivar indexed: instances in the index now.
    :ivar duplicates: files whose SOP Instance UID another file has, which are left alone.
    :ivar damaged: files that are not whole DICOM instances.
    """

    indexed: int = 0
    duplicates: int = 0
    damaged: int = 0


class Archive:
    """A Query/Retrieve archive in a folder.

    ``async with Archive("folder") as archive`` opens it; :attr:`services` are to be served by a
    :class:`asyncdicom.Server`.

    :param folder: where the index and the instances are; made if it is not there.
    :param ae_title: what responses give as Retrieve AE Title.
    :param on_duplicate: another content for a SOP Instance UID that is there: ``"refuse"`` (0x0111), ``"keep"`` the first
        and answer Success, or ``"replace"`` it.
    :param sync: when an instance is forced to the disk before it is acknowledged.
    :param index_url: a SQLAlchemy URL for the index instead of an SQLite file in the folder.
    :param files: where to keep the instances instead of the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        ae_title: str = "ARCHIVE",
        on_duplicate: OnDuplicate = "refuse",
        sync: Sync | str = Sync.BATCH,
        index_url: str | None = None,
        files: Files | None = None,
    ) -> None:
        if on_duplicate not in ("refuse", "keep", "replace"):
            raise ValueError(f"on_duplicate is {on_duplicate!r}: expected refuse, keep or replace")
        self._folder = Path(folder)
        self._ae_title = ae_title
        self._on_duplicate = on_duplicate
        self._sync = Sync(sync)
        self._url = index_url
        self._given_files = files
        self._files: Files | None = files
        self._index: Index | None = None
        self._ingest: Ingest | None = None
        self._reading = 0
        self._obsolete: list[str] = []
        self.services = self._make_services()

    # Life.

    async def __aenter__(self) -> Self:
        await to_thread.run_sync(self.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the index and the folder; what an earlier process left half done is removed. Blocks.

        :raises OSError: the folder cannot be made, read or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        files = self._given_files or FolderFiles(self._folder)
        removed = files.clean()
        if removed:
            logger.info("removed %d files that were not completely received", removed)
        url = self._url or f"sqlite:///{(self._folder / 'index.sqlite').absolute()}"
        try:
            index = Index(url, durable=self._sync is not Sync.NEVER)
        except Exception as exc:
            raise OSError(f"the index cannot be opened: {type(exc).__name__}") from exc
        self._files = files
        self._index = index
        self._ingest = Ingest(
            index, files, on_duplicate=self._on_duplicate, sync=self._sync, discard=self._make_obsolete
        )

    def close(self) -> None:
        """Close the index. May be called again."""
        self._remove_obsolete()
        index, self._index = self._index, None
        if index is not None:
            index.close()

    def rebuild(self, progress: Callable[[Rebuilt], None] | None = None) -> Rebuilt:
        """Make the index anew from the files. Blocks; nothing may be stored meanwhile.

        :param progress: called after every batch of files.
        """
        index, files = self._opened()
        found = Rebuilt()
        index.clear()
        batch: list[NewInstance] = []

        def add() -> None:
            for row in index.add(batch):
                if row is None:
                    found.indexed += 1
                else:
                    found.duplicates += 1
            batch.clear()
            if progress is not None:
                progress(found)

        for name in files.names():
            path = files.path(name)
            try:
                head = read_file_head(path)
                batch.append(read_instance(path, head.data_set_offset, head.transfer_syntax_uid, name))
            except (DataSetError, OSError):
                logger.warning("not a whole instance, left out of the index: %s", name)
                found.damaged += 1
                continue
            if len(batch) >= 256:
                add()
        if batch:
            add()
        return found

    def _opened(self) -> tuple[Index, Files]:
        if self._index is None or self._files is None:
            raise RuntimeError("the archive is not open")
        return self._index, self._files

    # Files that were replaced are removed when no retrieval may still be about to read them.

    def _make_obsolete(self, name: str) -> None:
        self._obsolete.append(name)
        if not self._reading:
            self._remove_obsolete()

    def _remove_obsolete(self) -> None:
        assert self._files is not None or not self._obsolete
        while self._obsolete and self._files is not None:
            try:
                self._files.discard(self._obsolete.pop())
            except OSError as exc:
                logger.warning("a replaced file cannot be removed: %s", type(exc).__name__)

    # The services.

    def _make_services(self) -> Services:
        services = Services()
        services.store("*", unknown=True)(self._store)
        services.find(*sop.FIND)(self._find)
        services.move(*sop.MOVE)(self._retrieve)
        services.get(*sop.GET)(self._retrieve)
        for uid in sop.FIND:
            services.extended_negotiation[uid] = partial(_supported, _FIND_SUPPORTED)
        for uid in (*sop.MOVE, *sop.GET):
            if uid not in (sop.COMPOSITE_INSTANCE_ROOT_MOVE, sop.COMPOSITE_INSTANCE_ROOT_GET):
                services.extended_negotiation[uid] = partial(_supported, _RETRIEVE_SUPPORTED)
        return services

    async def _store(self, request: StoreRequest) -> Status:
        _, files = self._opened()
        assert self._ingest is not None
        path = files.stage()
        await request.save(path)
        answer = await self._ingest.take(
            path,
            len(request.part10_head()),
            request.sop_class_uid,
            request.sop_instance_uid,
            request.transfer_syntax_uid,
        )
        if answer.status.is_failure:
            raise StatusError(answer.status, answer.comment)
        return answer.status

    async def _find(self, request: FindRequest) -> AsyncIterator[tuple[Status, bytes]]:
        index, _ = self._opened()
        negotiated = request.association.extended_negotiation.get(request.sop_class_uid, b"")
        relational, combined, fuzzy, timezone = (_flag(negotiated, place) for place in range(4))
        semantics = Semantics(relational=relational, combined_date_time=combined, fuzzy=fuzzy, timezone=timezone)
        model = Model.of(request.sop_class_uid)
        query = await to_thread.run_sync(_parse_find, _identifier(request), model, semantics)
        status = PENDING if query.is_complete else PENDING_OPTIONAL_KEYS
        pages = index.find(query, retrieve_ae_title=self._ae_title, transfer_syntax=request.transfer_syntax_uid)
        async for page in _in_threads(pages):
            for identifier in page:
                yield status, identifier

    async def _retrieve(self, request: RetrieveRequest) -> AsyncIterator[Instance]:
        index, _ = self._opened()
        negotiated = request.association.extended_negotiation.get(request.sop_class_uid, b"")
        model = Model.of(request.sop_class_uid)
        query = await to_thread.run_sync(
            partial(_parse_retrieve, _identifier(request), model, relational=_flag(negotiated, 0))
        )
        self._reading += 1
        try:
            count, pairs, rows = await to_thread.run_sync(_survey, index, query)
            request.total = count
            request.expect(pairs)
            pages = iter([rows]) if rows is not None else index.instances(query)
            async for page in _in_threads(pages):
                for row in page:
                    yield self._instance(row)
        finally:
            self._reading -= 1
            if not self._reading:
                self._remove_obsolete()

    def _instance(self, row: InstanceRow) -> Instance:
        return Instance(
            row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, partial(self._open_instance, row)
        )

    def _open_instance(self, row: InstanceRow) -> Source:
        """Open a stored instance; one that is not as it was stored is never served."""
        _, files = self._opened()
        source = FileSource.open(files.path(row.path))
        if source.head.size != row.size or source.head.transfer_syntax_uid != row.transfer_syntax_uid:
            source.close()
            logger.error("a stored instance is damaged: %s", row.path)
            raise OSError("the stored instance is damaged")
        return source


def _supported(ours: bytes, proposed: bytes) -> bytes:
    """Answer an extended negotiation: what was proposed and is supported, in as many bytes as were proposed."""
    return bytes(int(bool(want) and bool(have)) for want, have in zip(proposed, ours, strict=False))


def _flag(negotiated: bytes, place: int) -> bool:
    return len(negotiated) > place and negotiated[place] == 1


def _identifier(request: FindRequest | RetrieveRequest) -> Attributes:
    """Decode the identifier of a request.

    :raises DataSetError: it cannot be decoded.
    """
    return decode_data_set(request.identifier_bytes, request.transfer_syntax_uid)


def _parse_find(identifier: Attributes, model: Model, semantics: Semantics) -> Query:
    try:
        query = parse_find(identifier, model, semantics)
        if not semantics.relational:
            check_hierarchy(identifier, model)
    except IdentifierError as exc:
        raise StatusError(IDENTIFIER_MISMATCH, str(exc)) from None
    return query


def _parse_retrieve(identifier: Attributes, model: Model, *, relational: bool) -> Query:
    try:
        return parse_retrieve(identifier, model, relational=relational)
    except IdentifierError as exc:
        raise StatusError(IDENTIFIER_MISMATCH, str(exc)) from None


def _survey(index: Index, query: Query) -> tuple[int, list[tuple[str, str]], list[InstanceRow] | None]:
    """Count what a retrieval will send and collect its (SOP class, transfer syntax) pairs; keep the rows if they are few."""
    count = 0
    pairs: dict[tuple[str, str], None] = {}
    rows: list[InstanceRow] | None = []
    for page in index.instances(query):
        count += len(page)
        for row in page:
            pairs[row.sop_class_uid, row.transfer_syntax_uid] = None
        if rows is not None:
            rows.extend(page)
            if len(rows) > _ROWS:
                rows = None
    return count, list(pairs), rows


async def _in_threads(pages: Iterator[list[T]]) -> AsyncIterator[list[T]]:
    """Iterate over what blocks, a page at a time."""
    while (page := await to_thread.run_sync(next, pages, None)) is not None:
        yield page
