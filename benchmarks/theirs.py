"""pynetdicom as it is measured: a server and a client, each in a process of its own.

``python -m benchmarks.theirs serve|call OPTIONS``. It is used as its documentation shows, with its defaults, except that
what arrives is written to files as it came, without being decoded, which is its fastest way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt

from . import material
from .worker import Stopwatch, main, percentiles, raise_descriptor_limit, say, wait

Options = dict[str, Any]
Facts = dict[str, Any]

_VERIFICATION = "1.2.840.10008.1.1"
_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_SYNTAXES = [material.EXPLICIT, material.IMPLICIT]


def _serve(options: Options) -> None:
    raise_descriptor_limit()
    out = options.get("out")
    paths = sorted(Path(options["source"]).glob("*.dcm")) if "source" in options else []
    matches = material.matches(options.get("matches", 0))

    def store(event: Any) -> int:
        with open(f"{out}/{event.request.AffectedSOPInstanceUID}.dcm", "wb") as file:
            file.write(event.encoded_dataset())
        return 0x0000

    def find(event: evt.Event) -> Iterator[tuple[int, Any]]:
        if event.identifier.StudyInstanceUID != material.NOBODY:
            for match in matches:
                yield 0xFF00, match

    def get(event: evt.Event) -> Iterator[Any]:
        from pydicom import dcmread

        yield len(paths)
        for path in paths:
            yield 0xFF00, dcmread(path)

    ae = AE("BENCH")
    ae.maximum_associations = 10_000
    for context in AllStoragePresentationContexts[:126]:
        ae.add_supported_context(str(context.abstract_syntax), _SYNTAXES, scu_role=True, scp_role=True)
    for uid in (_VERIFICATION, _FIND, _GET):
        ae.add_supported_context(uid, _SYNTAXES)
    handlers: list[tuple[evt.EventType, Callable[..., Any]]] = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_C_FIND, find),
        (evt.EVT_C_GET, get),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    assert server is not None
    say(port=server.server_address[1])
    while True:
        wait()
        say()


def _associate_with(options: Options, *classes: str, **more: Any) -> Any:
    ae = AE("BENCHSCU")
    contexts = [build_context(uid, _SYNTAXES) for uid in (_VERIFICATION, *classes)]
    association = ae.associate(
        "127.0.0.1", options["port"], contexts=contexts, ae_title=options.get("called", "BENCH"), **more
    )
    if not association.is_established:
        raise RuntimeError("no association")
    return association


def _measure(work: Callable[[], Facts | None]) -> None:
    say(event="ready")
    wait()
    watch = Stopwatch()
    facts = work()
    say(**watch.facts(**(facts or {})))


def _check(status: Any) -> None:
    if not status or status.Status != 0x0000:
        raise RuntimeError(f"an operation failed: {status}")


def _paths(options: Options) -> list[Path]:
    return sorted(Path(options["source"]).glob("*.dcm"))[: options.get("count")]


def _store(options: Options) -> None:
    number = options.get("associations", 1)
    paths = _paths(options)
    associations = [_associate_with(options, material.CT_IMAGE_STORAGE) for _ in range(number)]

    def send(association: Any, mine: list[Path]) -> None:
        for path in mine:
            _check(association.send_c_store(path))

    def work() -> None:
        with ThreadPoolExecutor(number) as pool:
            for future in [pool.submit(send, one, paths[n::number]) for n, one in enumerate(associations)]:
                future.result()

    for association in associations:
        _check(association.send_c_store(options["warm"]))
    _measure(work)
    for association in associations:
        association.release()


def _store_each(options: Options) -> None:
    def work() -> None:
        for path in _paths(options):
            association = _associate_with(options, material.CT_IMAGE_STORAGE)
            _check(association.send_c_store(path))
            association.release()

    _measure(work)


def _echo(options: Options) -> None:
    association = _associate_with(options)
    _check(association.send_c_echo())
    latencies = []

    def work() -> Facts:
        for _ in range(options["count"]):
            begun = time.perf_counter()
            _check(association.send_c_echo())
            latencies.append(time.perf_counter() - begun)
        return {"extra": percentiles(latencies)}

    _measure(work)
    association.release()


def _associate(options: Options) -> None:
    classes = [str(one.abstract_syntax) for one in AllStoragePresentationContexts[: options["contexts"] - 1]]

    def once() -> None:
        association = _associate_with(options, *classes)
        _check(association.send_c_echo())
        association.release()

    def work() -> None:
        for _ in range(options["count"]):
            once()

    once()
    _measure(work)


def _hold(options: Options) -> None:
    latencies: list[float] = []
    say(event="ready")
    wait()
    watch = Stopwatch()
    with ThreadPoolExecutor(20) as pool:
        associations = list(pool.map(lambda _: _associate_with(options), range(options["count"])))
    say(**watch.facts(held=len(associations)))
    wait()
    watch = Stopwatch()
    for association in associations:
        begun = time.perf_counter()
        _check(association.send_c_echo())
        latencies.append(time.perf_counter() - begun)
    say(**watch.facts(extra=percentiles(latencies, "echo_")))
    wait()
    say(event="closed")  # whoever measures ends the process: releasing would take long


def _find(options: Options) -> None:
    association = _associate_with(options, _FIND)

    def count(study: str) -> int:
        found = 0
        for status, match in association.send_c_find(material.query(study), _FIND):
            if status.Status in (0xFF00, 0xFF01):
                found += bool(match.SOPInstanceUID)
            else:
                _check(status)
        return found

    def work() -> None:
        found = count(material.STUDY)
        if found != options["count"]:
            raise RuntimeError(f"{found} matches instead of {options['count']}")

    count(material.NOBODY)
    _measure(work)
    association.release()


def _get(options: Options) -> None:
    out, saved = options["out"], 0

    def store(event: Any) -> int:
        nonlocal saved
        with open(f"{out}/{event.request.AffectedSOPInstanceUID}.dcm", "wb") as file:
            file.write(event.encoded_dataset())
        saved += 1
        return 0x0000

    association = _associate_with(
        options,
        _GET,
        material.CT_IMAGE_STORAGE,
        ext_neg=[build_role(material.CT_IMAGE_STORAGE, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )

    def work() -> None:
        query = material.query(QueryRetrieveLevel="SERIES")
        del query.SOPInstanceUID, query.InstanceNumber
        *_, (status, _) = association.send_c_get(query, _GET)
        _check(status)
        if saved != options["count"]:
            raise RuntimeError(f"{saved} instances instead of {options['count']}")

    _measure(work)
    association.release()


_VERBS: dict[str, Callable[[Options], None]] = {
    "store": _store,
    "store each": _store_each,
    "echo": _echo,
    "associate": _associate,
    "hold": _hold,
    "find": _find,
    "get": _get,
}


def _call(options: Options) -> None:
    _VERBS[options["verb"]](options)


if __name__ == "__main__":
    main({"serve": _serve, "call": _call})
