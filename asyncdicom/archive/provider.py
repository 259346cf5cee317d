"""The embedded Query/Retrieve archive: an index, a folder of instances, and the services on them.

It uses the public API of asyncdicom only, as an application of yours would.
"""

from __future__ import annotations

import logging
import os
import uuid
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from .. import (
    FindNegotiation,
    FindRequest,
    Instance,
    RetrieveNegotiation,
    RetrieveRequest,
    Services,
    Status,
    StatusError,
    StorageNegotiation,
    StoreRequest,
    sop,
)
from ..dataset import Source
from ..exceptions import DataSetError
from ..status import CANNOT_EXTRACT_FRAMES, IDENTIFIER_MISMATCH, PENDING, PENDING_OPTIONAL_KEYS
from .entities import InstanceRow
from .files import Files, FolderFiles, Stored, Sync
from .frames import FrameError, FrameSelection, extract_frames, parse_frames
from .identifier import Attributes, decode_data_set
from .index import Index
from .ingest import Answer, Arrival, Ingest, OnDuplicate, is_intact
from .leases import Leases
from .matching import IdentifierError
from .model import UNIQUE, Level, Model
from .query import (
    QUERY_RETRIEVE_LEVEL,
    Query,
    Semantics,
    check_hierarchy,
    check_unique,
    parse_find,
    parse_retrieve,
)
from .rebuild import Rebuilt, rebuild, rebuild_file

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Archive", "Rebuilt"]

logger = logging.getLogger("asyncdicom.archive")

T = TypeVar("T")

#: Bytes of an instance that are kept in memory until they are written.
_HOP = 1 << 20
#: Instances that are stored at once; more wait.
_STORES = 32
#: Rows of a retrieval that are kept at once; more are looked up again while they are sent.
_ROWS = 20_000

#: Extended negotiation that is really supported, and how long an answer may be (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1).
_FIND_SUPPORTED = FindNegotiation(
    relational=True, combined_date_time=True, fuzzy=True, timezone=True, empty_value=True
).ljust(7, b"\0")
_RETRIEVE_SUPPORTED = RetrieveNegotiation(relational=True).ljust(2, b"\0")
#: Everything is stored, and comes back byte for byte (PS3.4 B.4.1).
_STORAGE = StorageNegotiation(level=2, digital_signature=3, element_coercion=0)


class Archive:
    """A Query/Retrieve archive in a folder.

    ``async with Archive("folder") as archive`` opens it; :attr:`services` are to be served by a
    :class:`asyncdicom.Server`.

    :param folder: where the index and the instances are; made if it is not there.
    :param ae_title: what responses give as Retrieve AE Title.
    :param on_duplicate: another content for a SOP Instance UID that is there: ``"refuse"`` (0x0111), ``"keep"`` the first
        and answer Success, or ``"replace"`` it. Identical bytes are a success in any case, and an instance whose file is
        missing or damaged is stored anew.
    :param sync: when an instance is forced to the disk before it is acknowledged.
    :param index_url: a SQLAlchemy URL for the index instead of an SQLite file in the folder.
    :param files: where to keep the instances instead of the folder; closed with the archive.
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
        self._files: Files | None = None
        self._index: Index | None = None
        self._ingest: Ingest | None = None
        self._limiter = CapacityLimiter(_STORES)
        self._leases = Leases()
        self.services = self._make_services()

    # Life.

    async def __aenter__(self) -> Self:
        await to_thread.run_sync(self.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(self.close)

    def open(self) -> None:
        """Open the index and the folder; what an earlier process left half done is removed. Blocks.

        An index that is missing while there are instances is made anew.

        :raises OSError: the folder cannot be made, read or written, or the index is damaged.
        """
        try:
            files = self._open_files()
            if self._url is None and not self._index_path.exists() and any(files.names()):
                logger.warning("the index is missing, and is made anew")
                self._make_index(files)
            index = self._open_index()
            removed = files.clean(partial(_is_known, index))
        except BaseException:
            self.close()
            raise
        if removed:
            logger.info("removed %d instances that were not completely stored", removed)

    def close(self) -> None:
        """Close the index. Blocks; may be called again."""
        self._remove_retired()
        self._ingest = None
        index, self._index = self._index, None
        if index is not None:
            index.close()
        files, self._files = self._files, None
        if files is not None:
            files.close()

    def rebuild(self, progress: Callable[[Rebuilt], None] | None = None) -> Rebuilt:
        """Make the index anew from the files. Blocks; nothing may be stored or asked for meanwhile.

        The archive need not be open: a damaged index cannot be. The SQLite file of the default is replaced at the end, in
        one step; what is behind another URL is emptied first.

        :param progress: called after every batch of files.
        :raises OSError: the files cannot be read, or the index not be written.
        """
        was_open = self._index is not None
        try:
            files = self._open_files()
            if self._url is not None:
                index = self._index or self._open_index()
                index.clear()
                return rebuild(files, index, None, newest=self._newest, progress=progress)
            if self._index is not None:
                self._index.close()
            found = self._make_index(files, progress)
            if was_open:
                self._open_index()
            return found
        finally:
            if not was_open:
                self.close()

    @property
    def _index_path(self) -> Path:
        return self._folder / "index.sqlite"

    @property
    def _newest(self) -> bool:
        return self._on_duplicate == "replace"

    def _open_files(self) -> Files:
        if self._files is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files = self._given_files or FolderFiles(self._folder)
        return self._files

    def _open_index(self) -> Index:
        files = self._open_files()
        self._index = index = self._connect(self._url or _sqlite_url(self._index_path))
        self._ingest = Ingest(
            index, files, on_duplicate=self._on_duplicate, sync=self._sync, retire=self._leases.retire
        )
        return index

    def _connect(self, url: str) -> Index:
        try:
            return Index(url, durable=self._sync is not Sync.NEVER)
        except SQLAlchemyError as exc:
            raise OSError(f"the index cannot be opened: {type(exc).__name__}") from None

    def _make_index(self, files: Files, progress: Callable[[Rebuilt], None] | None = None) -> Rebuilt:
        return rebuild_file(
            files,
            self._index_path,
            lambda path: self._connect(_sqlite_url(path)),
            newest=self._newest,
            progress=progress,
        )

    def _opened(self) -> tuple[Index, Files, Ingest]:
        if self._index is None or self._files is None or self._ingest is None:
            raise RuntimeError("the archive is not open")
        return self._index, self._files, self._ingest

    def _remove_retired(self) -> None:
        """Remove the files that were replaced, when no retrieval may still be about to read them."""
        for name in self._leases.expired():
            try:
                if self._files is not None:
                    self._files.discard(name)
            except OSError as exc:
                logger.warning("a replaced instance cannot be removed: %s", type(exc).__name__)

    # The services.

    def _make_services(self) -> Services:
        services = Services()
        services.store("*", unknown=True)(self._store)
        services.find(*sop.FIND)(self._find)
        services.move(*sop.MOVE)(self._retrieve)
        services.get(*sop.GET)(self._retrieve)
        for uid in sop.FIND:
            services.extended_negotiation[uid] = partial(_supported, _FIND_SUPPORTED)
        services.extended_negotiation.update(dict.fromkeys(sop.STORAGE, _STORAGE))
        for uid in (*sop.MOVE, *sop.GET):
            if len(Model.of(uid).levels) > 1:
                services.extended_negotiation[uid] = partial(_supported, _RETRIEVE_SUPPORTED)
        return services

    async def _store(self, request: StoreRequest) -> Status:
        _, _, ingest = self._opened()
        arrival = ingest.arrival(
            request.part10_head(), request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )
        chunks: list[bytes] = []
        size = 0
        try:
            async for piece in request.iter_data():
                chunks.append(piece)
                size += len(piece)
                if size >= _HOP:
                    await self._in_thread(partial(arrival.write, chunks))
                    chunks, size = [], 0
            answer = await self._in_thread(partial(self._finish, arrival, chunks))
        except BaseException:
            arrival.abort()
            raise
        if answer.comment is not None:
            raise StatusError(answer.status, answer.comment, offending_elements=_offending(answer.offending))
        return answer.status

    def _finish(self, arrival: Arrival, chunks: Sequence[bytes]) -> Answer:
        answer = arrival.finish(chunks)
        self._remove_retired()
        return answer

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await to_thread.run_sync(call, limiter=self._limiter)

    async def _find(self, request: FindRequest) -> AsyncIterator[tuple[Status, bytes]]:
        index, _, _ = self._opened()
        agreed = FindNegotiation.read(request.association.extended_negotiation.get(request.sop_class_uid, b""))
        semantics = Semantics(
            relational=agreed.relational,
            combined_date_time=agreed.combined_date_time,
            fuzzy=agreed.fuzzy,
            timezone=agreed.timezone,
        )
        query = await to_thread.run_sync(_parse_find, request, semantics)
        status = PENDING if query.is_complete else PENDING_OPTIONAL_KEYS
        pages = index.find(query, retrieve_ae_title=self._ae_title, transfer_syntax=request.transfer_syntax_uid)
        async with aclosing(_in_threads(pages)) as found:
            async for page in found:
                for identifier in page:
                    yield status, identifier

    async def _retrieve(self, request: RetrieveRequest) -> AsyncIterator[Instance]:
        index, files, _ = self._opened()
        agreed = RetrieveNegotiation.read(request.association.extended_negotiation.get(request.sop_class_uid, b""))
        lease = self._leases.begin()
        try:
            parse = partial(_parse_retrieve, request, relational=agreed.relational)
            query, frames = await to_thread.run_sync(parse)
            total, rows = await self._survey(request, index, query)
            if frames is not None and rows:
                instance = await to_thread.run_sync(_extract, index, files, rows[0], frames)
                request.total = 1
                request.expect([(instance.sop_class_uid, instance.transfer_syntax_uid)])
                yield self._leased(instance)
                return
            request.total = total
            pages = index.instances(query) if rows is None else iter([rows])
            async with aclosing(_in_threads(pages)) as found:
                async for page in found:
                    for row in page[:total]:
                        yield self._leased(_instance(index, files, row))
                    total -= len(page)
                    if total <= 0:  # what has been stored meanwhile was not asked for
                        break
        finally:
            self._leases.end(lease)
            if self._leases.has_expired():
                with CancelScope(shield=True):
                    await to_thread.run_sync(self._remove_retired)

    @staticmethod
    async def _survey(request: RetrieveRequest, index: Index, query: Query) -> tuple[int, list[InstanceRow] | None]:
        """Count what a retrieval will send, and tell the request what that is; return the rows too if they are few."""
        total = 0
        rows: list[InstanceRow] | None = []
        async with aclosing(_in_threads(index.instances(query))) as pages:
            async for page in pages:
                total += len(page)
                request.expect(dict.fromkeys((row.sop_class_uid, row.transfer_syntax_uid) for row in page))
                if rows is not None:
                    rows = None if total > _ROWS else rows + page
        return total, rows

    def _leased(self, instance: Instance) -> Instance:
        """Keep the files that are there now until an instance is read: that may be after the operation has ended."""
        lease = self._leases.begin()
        weakref.finalize(instance, self._leases.end, lease).atexit = False
        return instance


def _instance(index: Index, files: Files, row: InstanceRow) -> Instance:
    return Instance(
        row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, partial(_open_stored, index, files, row)
    )


def _extract(index: Index, files: Files, row: InstanceRow, frames: FrameSelection) -> Instance:
    """Make a new instance of frames of a stored one.

    :raises FrameError: they cannot be taken out of it.
    """
    try:
        _open_stored(index, files, row).close()
        made = extract_frames(files.path(row.path), frames, new_uid=f"2.25.{uuid.uuid4().int}")
    except (DataSetError, OSError):
        raise FrameError(CANNOT_EXTRACT_FRAMES, "the stored instance is damaged or missing") from None
    return Instance(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid, made.open_source)


def _open_stored(index: Index, files: Files, row: InstanceRow) -> Source:
    """Open a stored instance; one that is not as it was stored is never served."""
    try:
        stored = _open_file(index, files, row)
    except (DataSetError, OSError, SQLAlchemyError) as exc:
        logger.error("a stored instance cannot be read: %s (%s)", row.path, type(exc).__name__)
        raise OSError("the stored instance cannot be read") from None
    if stored is None:
        logger.error("a stored instance is damaged, and not served: %s", row.path)
        raise OSError("the stored instance is damaged")
    return stored


def _open_file(index: Index, files: Files, row: InstanceRow) -> Stored | None:
    """Open the file of an instance; ``None`` if it is not as it was stored."""
    try:
        stored = files.open(row.path)
    except FileNotFoundError:
        # Another process may have replaced it meanwhile: what is there now can take its place.
        there = index.get([row.sop_instance_uid]).get(row.sop_instance_uid)
        if there is None or there.path == row.path or there.transfer_syntax_uid != row.transfer_syntax_uid:
            raise
        stored, row = files.open(there.path), there
    if is_intact(stored, row):
        return stored
    stored.close()
    return None


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"


def _is_known(index: Index, sop_instance_uid: str, name: str) -> bool:
    row = index.get([sop_instance_uid]).get(sop_instance_uid)
    return row is not None and row.path == name


def _offending(tag: int | None) -> tuple[int, ...]:
    return () if tag is None else (tag,)


def _supported(ours: bytes, proposed: bytes) -> bytes:
    """Answer an extended negotiation: what was proposed and is supported, in as many bytes as were proposed."""
    return bytes(int(want == 1 and have == 1) for want, have in zip(proposed, ours, strict=False))


def _identifier(request: FindRequest | RetrieveRequest) -> Attributes:
    """Decode the identifier of a request.

    :raises DataSetError: it cannot be decoded.
    """
    return decode_data_set(request.identifier_bytes, request.transfer_syntax_uid)


def _parse_find(request: FindRequest, semantics: Semantics) -> Query:
    model = Model.of(request.sop_class_uid)
    identifier = _identifier(request)
    try:
        query = parse_find(identifier, model, semantics)
        if not semantics.relational:
            check_hierarchy(identifier, model)
    except IdentifierError as exc:
        raise StatusError(IDENTIFIER_MISMATCH, str(exc), offending_elements=_offending(exc.tag)) from None
    return query


def _parse_retrieve(request: RetrieveRequest, *, relational: bool) -> tuple[Query, FrameSelection | None]:
    """Return what is asked for, and which of its frames, if it is frames.

    :raises StatusError: the identifier does not fit the model.
    :raises FrameError: it does not say which frames.
    """
    model = Model.of(request.sop_class_uid)
    identifier = _identifier(request)
    try:
        query = parse_retrieve(identifier, model, relational=relational)
        if identifier[QUERY_RETRIEVE_LEVEL].value != "FRAME":
            return query, None
        check_unique(identifier, UNIQUE[Level.IMAGE], single=True)
    except IdentifierError as exc:
        raise StatusError(IDENTIFIER_MISMATCH, str(exc), offending_elements=_offending(exc.tag)) from None
    return query, parse_frames(identifier)


async def _in_threads(pages: Iterator[list[T]]) -> AsyncGenerator[list[T], None]:
    """Iterate over what blocks, a page at a time.

    :raises OSError: the index cannot be read.
    """
    while True:
        try:
            page = await to_thread.run_sync(next, pages, None)
        except SQLAlchemyError as exc:
            raise OSError(f"the index cannot be read: {type(exc).__name__}") from None
        if page is None:
            return
        yield page
