"""``python -m tests.endurance``: all of it, with the figures."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import anyio

from ..hostile.crowd import half_handshakes, half_open
from ..hostile.process import ArchiveProcess, archive_process
from ..interop.conftest import Certificates, make_certificates
from . import strain


def _row(name: str, held: dict[str, int], note: str = "") -> None:
    values = (f"{value >> 10} KiB" if key == "memory" else str(value) for key, value in held.items())
    print(f"  {name:<40}" + "".join(f"{value:>12}" for value in values) + f"  {note}", flush=True)


def strain_archive(archive: ArchiveProcess, share: float) -> None:
    """Do everything to an archive, each twice: what is held once is a cache, what is held twice is a leak."""
    print(f"  {'':<40}{'memory':>12}{'descriptors':>12}{'threads':>12}")
    _row("before", archive.figures())
    for name, (strain_it, times) in strain.ARCHIVE.items():
        for attempt in ("", ", again"):
            begin = time.perf_counter()
            strain_it(archive, max(1, int(times * share)))
            with archive.unharmed(name, None):
                pass
            _row(f"{int(times * share)} x {name}{attempt}", archive.figures(), f"{time.perf_counter() - begin:.1f} s")


def crowd(archive: ArchiveProcess, certificates: Certificates | None) -> None:
    """Hold a crowd of connections, and time a good client beside it."""
    with ExitStack() as held:
        held.callback(half_open(archive, 500))
        if certificates is not None:
            held.callback(half_handshakes(archive, certificates, 200))
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            archive.echo()
            times.append(time.perf_counter() - begin)
    also = "" if certificates is None else " and 200 half-done TLS handshakes"
    print(
        f"  beside 500 half-open connections{also}: associate, echo and release in {sorted(times)[10] * 1e3:.1f} ms "
        f"(median of 20; slowest {max(times) * 1e3:.1f} ms)"
    )


async def strain_here(share: float) -> None:
    """Do everything to a server and clients of this process."""
    print(f"  {'':<40}{'memory':>12}{'descriptors':>12}{'threads':>12}{'tasks':>12}")
    async with strain.served() as server:
        await strain.cancel_queries(server, 10)
        for name, (strain_it, times) in strain.HERE.items():
            for attempt in ("before", "", ", again"):
                begin = time.perf_counter()
                if attempt != "before":
                    await strain_it(server, max(1, int(times * share)))
                    while server.associations:
                        await anyio.lowlevel.checkpoint()
                found = strain.figures()
                held = {key: getattr(found, key) for key in ("memory", "descriptors", "threads", "tasks")}
                label = "before" if attempt == "before" else f"{int(times * share)} x {name}{attempt}"
                _row(label, held, f"{time.perf_counter() - begin:.1f} s" if attempt != "before" else "")


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description="Thousands of connections, aborts and cancelled operations.")
    parser.add_argument("--share", type=float, default=1.0, help="do this part of it (default: 1, all)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "trio"), default="asyncio")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asyncdicom-endurance-") as folder:
        certificates = make_certificates(Path(folder))
        for name, tls in (("an archive", None), ("an archive, through TLS", certificates)):
            print(f"{name} ({options.loop})")
            with archive_process(Path(folder) / name, certificates=tls, loop=options.loop) as archive:
                strain_archive(archive, options.share)
                crowd(archive, tls)
    backend = "trio" if options.loop == "trio" else "asyncio"
    print(f"a server and its clients in one process ({backend})")
    anyio.run(strain_here, options.share, backend=backend)


if __name__ == "__main__":
    main()
