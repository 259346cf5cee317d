"""How fast the archive takes instances in: many small ones over one association or several, against a server of its own.

.. code-block:: console

    $ python benchmarks/archive_ingest.py --count 2000 --size 16384 --associations 1 --window 1 --sync batch

Prints the seconds from the first request to the last response, milliseconds per instance, and the seconds of CPU that
the server's process took, with what a plain file system does with the same bytes for comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import anyio

import asyncdicom
from asyncdicom import Instance, PresentationContext, sop

SYNTAX = sop.EXPLICIT_VR_LITTLE_ENDIAN

SERVER = """
import asyncio, resource, sys
import anyio, asyncdicom
from asyncdicom.archive import Archive

async def main(folder, sync, profile):
    async with Archive(folder, sync=sync) as archive:
        async with asyncdicom.Server(archive.services, "ARCHIVE@127.0.0.1:0") as server:
            print(server.addresses[0].port, flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_utime + usage.ru_stime, flush=True)

folder, sync, profile = sys.argv[1:]
if profile:
    import cProfile
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(main(folder, sync, profile))
    profiler.disable()
    profiler.dump_stats(profile)
else:
    asyncio.run(main(folder, sync, profile))
"""


def element(group: int, number: int, vr: str, value: str) -> bytes:
    """Encode a short element in Explicit VR Little Endian."""
    raw = value.encode("latin-1")
    raw += (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)
    return pack("<HH2sH", group, number, vr.encode(), len(raw)) + raw


def ct(number: int, size: int, run: str) -> tuple[str, bytes]:
    """Encode a CT image of about *size* bytes: 100 to a series, five series to a study."""
    study, series = f"1.2.826.0.1.{run}.{number // 500}", f"1.2.826.0.1.{run}.{number // 500}.{number // 100}"
    uid = f"{series}.{number}"
    head = b"".join(
        [
            element(0x0008, 0x0005, "CS", "ISO_IR 100"),
            element(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
            element(0x0008, 0x0016, "UI", sop.CT_IMAGE_STORAGE),
            element(0x0008, 0x0018, "UI", uid),
            element(0x0008, 0x0020, "DA", "20240229"),
            element(0x0008, 0x0021, "DA", "20240229"),
            element(0x0008, 0x0030, "TM", "101530.25"),
            element(0x0008, 0x0050, "SH", f"A{number // 500}"),
            element(0x0008, 0x0060, "CS", "CT"),
            element(0x0008, 0x0070, "LO", "Makers"),
            element(0x0008, 0x0090, "PN", "Who^Referred"),
            element(0x0008, 0x1030, "LO", "Thorax nativ"),
            element(0x0008, 0x103E, "LO", f"Series {number // 100}"),
            element(0x0010, 0x0010, "PN", f"Family^Given {number // 500}"),
            element(0x0010, 0x0020, "LO", f"P{number // 500}"),
            element(0x0010, 0x0030, "DA", "19700101"),
            element(0x0010, 0x0040, "CS", "O"),
            element(0x0018, 0x0015, "CS", "CHEST"),
            element(0x0018, 0x0050, "DS", "1.25"),
            element(0x0018, 0x0060, "DS", "120"),
            element(0x0020, 0x000D, "UI", study),
            element(0x0020, 0x000E, "UI", series),
            element(0x0020, 0x0010, "SH", f"{number // 500}"),
            element(0x0020, 0x0011, "IS", f"{number // 100}"),
            element(0x0020, 0x0013, "IS", f"{number}"),
            element(0x0020, 0x0032, "DS", f"-158.1\\-179.0\\{number}.75"),
            element(0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0"),
            element(0x0028, 0x0004, "CS", "MONOCHROME2"),
            pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 128),
            pack("<HH2sHH", 0x0028, 0x0011, b"US", 2, 64),
        ]
    )
    size -= len(head) + 12
    return uid, head + pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size) + os.urandom(64) * (size // 64) + bytes(
        size % 64
    )


@contextlib.contextmanager
def server(folder: Path, sync: str, profile: str) -> Iterator[tuple[int, list[float]]]:
    """Run an archive in a process of its own; gives its port, and at the end the seconds of CPU that it took."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), sync, profile],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seconds: list[float] = []
    try:
        yield int(process.stdout.readline()), seconds
        process.stdin.write("\n")
        process.stdin.flush()
        seconds.append(float(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(30)


async def store(port: int, instances: list[Instance], associations: int, window: int) -> float:
    """Store instances; return the seconds from the first request to the last response."""
    contexts = [PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(SYNTAX,))]
    begin = 0.0

    async def one(part: list[Instance]) -> None:
        nonlocal begin
        async with asyncdicom.connect(
            f"ARCHIVE@127.0.0.1:{port}", contexts=contexts, async_operations=(window, 1)
        ) as association:
            begin = begin or time.perf_counter()
            todo = iter(part)

            async def work() -> None:
                for instance in todo:
                    assert (await association.store(instance)).status == 0

            async with anyio.create_task_group() as tasks:
                for _ in range(window):
                    tasks.start_soon(work)

    async with anyio.create_task_group() as tasks:
        for number in range(associations):
            tasks.start_soon(one, instances[number::associations])
    return time.perf_counter() - begin


def plain(folder: Path, instances: list[tuple[str, bytes]], sync: bool) -> float:
    """Write the same bytes to files, renamed when they are whole; return the seconds."""
    folder.mkdir()
    begin = time.perf_counter()
    for uid, data in instances:
        path = folder / uid
        with open(f"{path}.part", "wb") as file:
            file.write(data)
            if sync:
                os.fsync(file.fileno())
        os.rename(f"{path}.part", path)
    return time.perf_counter() - begin


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=16_384, help="bytes of a data set")
    parser.add_argument("--associations", type=int, default=1)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--sync", default="batch", choices=("always", "batch", "never"))
    parser.add_argument("--folder", type=Path, help="where to make the archive's folder; default: the temporary folder")
    parser.add_argument("--profile", default="", help="write a profile of the server's event loop to this file")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="asyncdicom-") as folder:
        with server(Path(folder) / "archive", options.sync, options.profile) as (port, seconds):
            for number in range(options.rounds):
                made = [ct(index, options.size, f"{os.getpid()}{number}") for index in range(options.count)]
                instances = [Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, uid, SYNTAX) for uid, data in made]
                own = time.process_time()
                took = anyio.run(store, port, instances, options.associations, options.window)
                own = time.process_time() - own
                print(
                    f"{options.count} instances of {options.size} bytes, {options.associations} associations, "
                    f"window {options.window}, sync {options.sync}: {took:.2f} s, {1000 * took / options.count:.3f} ms each "
                    f"(CPU of the client {own:.2f} s)"
                )
                took = plain(Path(folder) / f"plain{number}", made, options.sync != "never")
                print(f"  the same bytes to plain files: {took:.2f} s, {1000 * took / options.count:.3f} ms each")
        total = options.count * options.rounds
        print(f"CPU of the server: {seconds[0]:.2f} s, {1000 * seconds[0] / total:.3f} ms each")


if __name__ == "__main__":
    main()
