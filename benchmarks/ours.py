"""asyncdicom as it is measured: a server and a client, each in a process of its own.

``python -m benchmarks.ours serve|call OPTIONS``, with options in JSON, as :mod:`.sides` makes them.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio import CapacityLimiter, create_task_group, to_thread

import asyncdicom
from asyncdicom import sop

from . import material
from .worker import Stopwatch, main, percentiles, raise_descriptor_limit, say, wait

Options = dict[str, Any]
Facts = dict[str, Any]


def _run(options: Options, function: Callable[[Options], Awaitable[None]]) -> None:
    loop = options.get("loop", "asyncio")
    raise_descriptor_limit()
    anyio.run(
        function,
        options,
        backend="trio" if loop == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if loop == "uvloop" else {},
    )


# The server.


class _Server:
    """Handlers that store to files, and answer queries and retrievals from what was made beforehand."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.out = options.get("out")
        self.paths = sorted(Path(options["source"]).glob("*.dcm")) if "source" in options else []
        count = options.get("matches", 0)
        self.as_data_sets = material.matches(count) if options.get("data_sets") else None
        self.encoded = {
            syntax: material.encoded_matches(count, syntax) for syntax in (material.EXPLICIT, material.IMPLICIT)
        }
        self.outstanding = 0
        self.most_outstanding = 0

    def services(self) -> asyncdicom.Services:
        services = asyncdicom.Services()
        services.store("*", unknown=True)(self.store)
        services.find(*sop.FIND)(self.find)
        services.retrieve(*sop.GET, *sop.MOVE)(self.retrieve)
        return services

    async def store(self, request: asyncdicom.StoreRequest) -> None:
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        try:
            await request.save(f"{self.out}/{request.sop_instance_uid}.dcm")
        finally:
            self.outstanding -= 1

    async def find(self, request: asyncdicom.FindRequest) -> AsyncIterator[Any]:
        if request.identifier.StudyInstanceUID != material.NOBODY:
            for match in self.as_data_sets or self.encoded[request.transfer_syntax_uid]:
                yield match

    async def retrieve(self, request: asyncdicom.RetrieveRequest) -> AsyncIterator[Path]:
        paths = [] if request.identifier.StudyInstanceUID == material.NOBODY else self.paths
        request.total = len(paths)
        request.expect([(material.CT_IMAGE_STORAGE, material.EXPLICIT)])
        for path in paths:
            yield path


async def _serve(options: Options) -> None:
    tls = None
    if "tls" in options:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options["tls"]["cert"], options["tls"]["key"])
    handlers = _Server(options)
    server = asyncdicom.Server(
        handlers.services(),
        "BENCH@127.0.0.1:0",
        ssl=tls,
        peers=options.get("peers"),
        async_operations=(64, 64),
        limits=asyncdicom.Limits(associations=None, unassociated=None),
    )
    async with server:
        say(port=server.addresses[0].port)
        while True:
            await to_thread.run_sync(wait)
            say(outstanding=handlers.most_outstanding)


# The client.


def _connect(options: Options, *contexts: str, window: int = 1) -> asyncdicom.connect:
    tls = ssl.create_default_context(cafile=options["tls"]["ca"]) if "tls" in options else None
    return asyncdicom.connect(
        f"{options.get('called', 'BENCH')}@127.0.0.1:{options['port']}",
        contexts=[sop.VERIFICATION, *contexts],
        ssl=tls,
        async_operations=(window, 1),
    )


async def _measure(work: Callable[[], Awaitable[Facts | None]]) -> None:
    """Say that everything is ready, wait for the word, and measure."""
    say(event="ready")
    await to_thread.run_sync(wait)
    watch = Stopwatch()
    facts = await work()
    say(**watch.facts(**(facts or {})))


def _paths(options: Options) -> list[Path]:
    return sorted(Path(options["source"]).glob("*.dcm"))[: options.get("count")]


async def _send(association: asyncdicom.Association, paths: Iterator[Path]) -> None:
    """Send files until there are no more, beside others that take from the same iterator."""
    async for stored in association.store_many(paths):
        if stored.error is not None:
            raise stored.error


async def _send_each(association: asyncdicom.Association, paths: Iterator[Path]) -> None:
    """Send files, each by a call of its own that knows nothing of the next."""
    for path in paths:
        await association.store(path)


async def _store(options: Options) -> None:
    """Store files over ``associations`` associations, each with up to ``window`` instances under way.

    ``alone``: by calls of ``store`` instead of one of ``store_many``.
    """
    window, number = options.get("window", 1), options.get("associations", 1)
    send = _send_each if options.get("alone") else _send
    paths = _paths(options)
    associations: list[asyncdicom.Association] = []
    async with _many([_connect(options, sop.CT_IMAGE_STORAGE, window=window) for _ in range(number)], associations):
        for association in associations:
            if association.async_operations[0] not in (0, window):
                raise RuntimeError(f"a window of {window} became {association.async_operations[0]}")
            await association.store(options["warm"])

        async def work() -> None:
            queue = iter(paths)
            if number == 1:
                await send(associations[0], queue)
                return
            async with create_task_group() as tasks:
                for association in associations:
                    tasks.start_soon(send, association, queue)

        await _measure(work)


async def _store_each(options: Options) -> None:
    """Store files, each over an association of its own."""

    async def work() -> None:
        for path in _paths(options):
            async with _connect(options, sop.CT_IMAGE_STORAGE) as association:
                await association.store(path)

    async with _connect(options, sop.CT_IMAGE_STORAGE) as association:
        await association.store(options["warm"])
    await _measure(work)


async def _store_until_told(options: Options) -> None:
    """Store files again and again over ``associations`` associations."""
    number = options["associations"]
    paths = _paths(options)
    stored = 0
    over = False

    async def send(association: asyncdicom.Association, mine: list[Path]) -> None:
        nonlocal stored
        while not over:
            for path in mine:
                await association.store(path)
                stored += 1
                if over:
                    break

    associations: list[asyncdicom.Association] = []
    async with _many([_connect(options, sop.CT_IMAGE_STORAGE) for _ in range(number)], associations):

        async def work() -> Facts:
            nonlocal over
            async with create_task_group() as tasks:
                for n, association in enumerate(associations):
                    tasks.start_soon(send, association, paths[n::number])
                say(event="going")
                await to_thread.run_sync(wait)
                over = True
            return {"stored": stored}

        await _measure(work)


class _many:  # noqa: N801 - used as a function
    """Enter many connections, in tasks of their own, and leave them."""

    def __init__(
        self, connections: list[asyncdicom.connect], into: list[asyncdicom.Association], at_once: int = 50
    ) -> None:
        self._connections = connections
        self._into = into
        self._limiter_size = at_once

    async def __aenter__(self) -> None:
        limiter = CapacityLimiter(self._limiter_size)

        async def enter(connection: asyncdicom.connect) -> None:
            async with limiter:
                self._into.append(await connection.__aenter__())

        async with create_task_group() as tasks:
            for connection in self._connections:
                tasks.start_soon(enter, connection)

    async def __aexit__(self, *exc: object) -> None:
        limiter = CapacityLimiter(self._limiter_size)

        async def leave(connection: asyncdicom.connect) -> None:
            async with limiter:
                await connection.__aexit__(None, None, None)

        async with create_task_group() as tasks:
            for connection in self._connections:
                tasks.start_soon(leave, connection)


async def _echo(options: Options) -> None:
    """Echo ``count`` times, one after the other, with ``pause`` seconds between."""
    pause = options.get("pause", 0)
    latencies: list[float] = []
    async with _connect(options) as association:
        for _ in range(20):
            await association.echo()

        async def work() -> Facts:
            for _ in range(options["count"]):
                begun = time.perf_counter()
                await association.echo()
                latencies.append(time.perf_counter() - begun)
                if pause:
                    await anyio.sleep(pause)
            return {"extra": percentiles(latencies)}

        await _measure(work)


async def _associate(options: Options) -> None:
    """Associate with ``contexts`` presentation contexts, echo, release; ``count`` times, one after the other."""
    contexts = sop.STORAGE[: options["contexts"] - 1]

    async def once() -> None:
        async with _connect(options, *contexts) as association:
            await association.echo()

    async def work() -> None:
        for _ in range(options["count"]):
            await once()

    await once()
    await _measure(work)


async def _hold(options: Options) -> None:
    """Hold ``count`` associations open; then echo on each."""
    associations: list[asyncdicom.Association] = []
    latencies: list[float] = []
    connections = [_connect(options) for _ in range(options["count"])]
    async with _connect(options) as association:
        await association.echo()
    say(event="ready")
    await to_thread.run_sync(wait)
    watch = Stopwatch()
    async with _many(connections, associations):
        say(**watch.facts(held=len(associations)))
        await to_thread.run_sync(wait)  # they are idle meanwhile
        watch = Stopwatch()
        for association in associations:
            begun = time.perf_counter()
            await association.echo()
            latencies.append(time.perf_counter() - begun)
        together = time.perf_counter()
        async with create_task_group() as tasks:
            for association in associations:
                tasks.start_soon(association.echo)
        together = time.perf_counter() - together
        say(**watch.facts(extra={**percentiles(latencies, "echo_"), "echo_all_at_once": together}))
        await to_thread.run_sync(wait)
    say(event="closed")


async def _find(options: Options) -> None:
    """Query, and count the matches."""

    async def count(study: str) -> int:
        found = 0
        async for match in association.find(material.query(study)):
            found += bool(match.SOPInstanceUID)
        return found

    async def work() -> None:
        found = await count(material.STUDY)
        if found != options["count"]:
            raise RuntimeError(f"{found} matches instead of {options['count']}")

    async with _connect(options, sop.STUDY_ROOT_FIND) as association:
        await count(material.NOBODY)
        await _measure(work)


async def _query(options: Options) -> None:
    """Query ``count`` times, for whatever ``query`` says."""

    async def once() -> int:
        return len([match async for match in association.find(options["query"])])

    async def work() -> Facts:
        latencies, found = [], 0
        for _ in range(options["count"]):
            begun = time.perf_counter()
            found = await once()
            latencies.append(time.perf_counter() - begun)
        return {"extra": {**percentiles(latencies), "matches": found}}

    async with _connect(options, sop.STUDY_ROOT_FIND) as association:
        await once()
        await _measure(work)


async def _get(options: Options) -> None:
    """Retrieve by C-GET, to files."""
    out = options["out"]

    async def work() -> None:
        saved = 0
        query = {
            "QueryRetrieveLevel": "SERIES",
            "StudyInstanceUID": material.STUDY,
            "SeriesInstanceUID": material.SERIES,
        }
        async for instance in association.get(query):
            await instance.save(f"{out}/{instance.sop_instance_uid}.dcm")
            saved += 1
        if saved != options["count"]:
            raise RuntimeError(f"{saved} instances instead of {options['count']}")

    async with _connect(options, sop.STUDY_ROOT_GET, sop.CT_IMAGE_STORAGE) as association:
        await association.echo()
        await _measure(work)


async def _move(options: Options) -> None:
    """Have instances sent to DEST, by C-MOVE."""

    async def work() -> None:
        query = {
            "QueryRetrieveLevel": "SERIES",
            "StudyInstanceUID": material.STUDY,
            "SeriesInstanceUID": material.SERIES,
        }
        operation = association.move(query, destination="DEST")
        async for _ in operation:
            pass
        completed = operation.progress.completed
        if completed != options["count"]:
            raise RuntimeError(f"{completed} instances instead of {options['count']}")

    async with _connect(options, sop.STUDY_ROOT_MOVE) as association:
        await association.echo()
        await _measure(work)


_VERBS: dict[str, Callable[[Options], Awaitable[None]]] = {
    "store": _store,
    "store each": _store_each,
    "store until told": _store_until_told,
    "echo": _echo,
    "associate": _associate,
    "hold": _hold,
    "find": _find,
    "query": _query,
    "get": _get,
    "move": _move,
}


def _call(options: Options) -> None:
    _run(options, _VERBS[options["verb"]])


if __name__ == "__main__":
    main({"serve": partial(_run, function=_serve), "call": _call})
