"""The adversary against ``asyncdicom archive``, a process of its own, over TCP and over TLS, on both event loops."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from ..interop.conftest import Certificates
from .cases import ASSOCIATED, BEFORE, ESTABLISHED, PATHS, SILENT
from .process import PATIENT, ArchiveProcess, archive_process
from .wire import (
    CT,
    ECHO,
    FIND,
    RELEASE,
    RELEASE_RESPONSE,
    REQUEST,
    abort,
    associate,
    cancel,
    context,
    element,
    find_command,
    message,
    p_data,
    pdv,
    statuses,
    store_command,
)

pytest.importorskip("sqlalchemy")

_DEADLINES = ("--artim-timeout", "2", "--network-timeout", "1", "--dimse-timeout", "2")
_NUMBERS = count(1)


@pytest.fixture(scope="module", params=["plain-asyncio", "tls-asyncio", "tls-trio"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[ArchiveProcess]:
    """Run an archive for all tests of the module."""
    kind, _, loop = request.param.partition("-")
    folder = tmp_path_factory.mktemp("hostile") / "archive"
    with archive_process(
        folder, *_DEADLINES, certificates=certificates if kind == "tls" else None, loop=loop
    ) as running:
        yield running


def test_before_an_association_each_breach_gets_its_answer(archive: ArchiveProcess) -> None:
    for name, (data, answer) in BEFORE.items():
        with archive.unharmed(name, 1):
            assert archive.say(data, len(answer)) == answer, name


def test_whoever_is_silent_is_closed_at_artim(archive: ArchiveProcess) -> None:
    for name, data in SILENT.items():
        with archive.unharmed(name, 1):
            assert archive.say(data) == b"", name


def test_on_an_association_each_breach_gets_its_abort(archive: ArchiveProcess) -> None:
    with archive.unharmed("no release", 2):
        accepted = len(archive.say(REQUEST, 10))
    for name, (data, answer) in ESTABLISHED.items():
        with archive.unharmed(name, 2):
            assert archive.say(REQUEST + data, accepted + len(answer))[accepted:] == answer, name


def test_what_is_odd_and_allowed_is_accepted(archive: ArchiveProcess) -> None:
    for name, request in ASSOCIATED.items():
        with archive.unharmed(name, 2):
            assert statuses(archive.converse(request, message(1, ECHO), 1)) == [0], name


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_whoever_leaves_at_any_moment_is_noticed_and_forgotten(archive: ArchiveProcess, reset: bool) -> None:
    whole = REQUEST + message(1, ECHO) + message(5, store_command(b"1.2.3"), instance(b"1.2.3"))
    for cut in sorted({*range(0, len(whole), 61), len(REQUEST), len(whole) - 1}):
        with archive.unharmed(f"{cut} bytes", None), closing(archive.connect()) as connection:
            connection.sendall(whole[:cut])
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_another_protocol_on_the_port_is_closed_and_named(archive: ArchiveProcess) -> None:
    """On the plain port a ClientHello is another protocol, on the TLS port an A-ASSOCIATE-RQ is."""
    if archive.is_tls:
        with archive.unharmed("DICOM on the TLS port", 1), closing(archive.connect_plainly()) as connection:
            connection.sendall(REQUEST)
            while connection.recv(1 << 16):
                pass
        with archive.unharmed("half a ClientHello", None):
            held = [archive.connect_plainly() for _ in range(200)]
            for connection in held:
                connection.sendall(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(32))
            archive.echo()
            for connection in held:
                connection.close()
    else:
        start = len(archive.log.lines)
        for data, name in (
            (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
            (b"SSH-2.0-x\r\n", "SSH"),
            (b"\x16\x03\x01\x02\0", "TLS"),
        ):
            with archive.unharmed(name, 1):
                assert archive.say(data) == b"\x07\0\0\0\0\x04\0\0\0\0"
            assert archive.log.wait(name, start)


# Instances.


def instance(uid: bytes, *more: bytes) -> bytes:
    """Return a small instance, in Implicit VR Little Endian."""
    return b"".join(
        (
            element(0x00080016, b"1.2.840.10008.5.1.4.1.1.2\0"),
            element(0x00080018, uid),
            element(0x00100010, PATIENT),
            element(0x00100020, PATIENT),
            element(0x0020000D, b"1.2.3\0"),
            element(0x0020000E, b"1.2.3.4\0"),
            *more,
        )
    )


def new_uid() -> bytes:
    return b"1.2.3.4.%d" % next(_NUMBERS)


def fragments(number: int, command_set: bytes, data: bytes, length: int = 16_000) -> bytes:
    """Return a message whose data set comes in fragments."""
    sent = p_data(pdv(number, 3, command_set))
    for start in range(0, len(data), length):
        last = start + length >= len(data)
        sent += p_data(pdv(number, 2 if last else 0, data[start : start + length]))
    return sent


def store(archive: ArchiveProcess, uid: bytes, data: bytes) -> int:
    """Store an instance; return the status."""
    (status,) = statuses(archive.converse(REQUEST, fragments(5, store_command(uid), data), 1))
    return status


def test_no_uid_ever_becomes_a_path(archive: ArchiveProcess) -> None:
    around = {path for path in archive.folder.parent.rglob("*") if archive.folder not in path.parents}
    for uid in PATHS:
        with archive.unharmed(repr(uid), 2):
            assert store(archive, uid, instance(uid)) == 0x0117, uid
        with archive.unharmed(f"{uid!r} in the data set", 2):
            assert store(archive, new_uid(), instance(uid)) == (0x0117 if uid.strip() else 0xA900), uid
    assert {path for path in archive.folder.parent.rglob("*") if archive.folder not in path.parents} == around


NESTED = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)

#: What an identifier or an instance may be made of, to hurt whoever decodes it.
POISON = {
    "10 000 nested sequences": NESTED * 10_000,
    "an element of 4 GiB": element(0x00104000, b"x", 0xFFFFFFFE),
    "an element of undefined length": element(0x00104000, b"x", 0xFFFFFFFF),
    "random bytes": bytes(range(256)) * 40,
}


def test_instances_that_hurt_whoever_decodes_them_are_stored_or_refused(archive: ArchiveProcess) -> None:
    for name, poison in POISON.items():
        uid = new_uid()
        with archive.unharmed(name, 2):
            assert store(archive, uid, instance(uid) + poison) in (0, 0xA900, 0xC210), name
        with archive.unharmed(f"only {name}", 2):
            assert store(archive, new_uid(), poison) >= 0xA000, name


def find(archive: ArchiveProcess, *keys: bytes) -> list[int]:
    """Query studies; return the statuses."""
    return statuses(archive.converse(REQUEST, fragments(3, find_command(), b"".join(keys)), 1))


LEVEL = element(0x00080052, b"STUDY")

#: Keys that match nothing of what is stored, or are none, whatever they look like.
KEYS = {
    "stars and question marks": element(0x00100010, b"*?" * 500 + b"X"),
    "60 KiB of stars": element(0x00100020, b"*" * 61_440 + b"X*"),
    "60 KiB of text": element(0x00100020, b"A" * 61_440),
    "quotes": element(0x00100020, b"' OR '1'='1"),
    "SQL": element(0x00100020, b"x'; DROP TABLE studies; --"),
    "wildcards of SQL": element(0x00100020, b"%_%"),
    "brackets": element(0x00100020, b"[A-Z]*["),
    "an impossible date": element(0x00080020, b"20241399"),
    "a range of nonsense": element(0x00080020, b"-----"),
    "a time past midnight": element(0x00080030, b"996199"),
    "bad escapes": element(0x00080005, b"\\ISO 2022 IR 87") + element(0x00100010, b"\x1b$B\x1b\x1b$"),
    "an unknown character set": element(0x00080005, b"ISO_IR 6666") + element(0x00100010, b"\xff\xfe"),
    "a wildcard in a UID": element(0x0020000D, b"1.2.*"),
    "a UID that is a path": element(0x0020000D, b"../../etc"),
    "4 000 UIDs": element(0x0020000D, b"\\".join(b"9.%d" % number for number in range(4000))),
}


def test_no_key_of_a_query_loses_its_filter_or_takes_long(archive: ArchiveProcess) -> None:
    uid = new_uid()
    assert store(archive, uid, instance(uid)) == 0
    assert find(archive, LEVEL, element(0x00100020, PATIENT)) in ([0xFF00, 0], [0xFF01, 0])
    for name, key in KEYS.items():
        with archive.unharmed(name, None):
            parts = sorted((key, LEVEL), key=lambda part: struct.unpack("<HH", part[:4]))
            found = find(archive, *parts)
            assert len(found) == 1, (name, found)
    for name, poison in POISON.items():
        with archive.unharmed(name, None):
            (status,) = find(archive, LEVEL, poison)
            assert status >= 0xA000, name
    assert len(find(archive, LEVEL, element(0x00100020, PATIENT))) == 2


def test_a_deflate_bomb_goes_off_in_a_small_room(archive: ArchiveProcess) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = b"".join(deflater.compress(zeros) for _ in range(512)) + deflater.flush()
    request = associate(context(3, b"1.2.840.10008.5.1.4.1.2.2.1", b"1.2.840.10008.1.2.1.99"))
    with archive.unharmed("a deflate bomb", None):
        (status,) = statuses(archive.converse(request, fragments(3, find_command(), bomb), 1))
        assert status >= 0xA000


def test_the_same_instance_on_two_associations_at_once_is_stored_once(archive: ArchiveProcess) -> None:
    uid = new_uid()
    first, second = (instance(uid, element(0x00104000, letter * 20_000)) for letter in (b"a", b"b"))
    with archive.unharmed("two at once", 4), closing(archive.connect()) as connection:
        connection.sendall(REQUEST + message(5, store_command(uid)) + p_data(pdv(5, 0, first[:9000])))
        assert store(archive, uid, second) == 0
        connection.sendall(p_data(pdv(5, 2, first[9000:])))
        received = b""
        while not statuses(received):
            received += connection.recv(1 << 16)
        assert statuses(received) == [0x0111]
        connection.sendall(RELEASE)
        while not received.endswith(RELEASE_RESPONSE):
            received += connection.recv(1 << 16)
    (path,) = (archive.folder / "instances").rglob(f"{uid.decode()}-*")
    assert path.read_bytes().endswith(second)


def test_cancels_for_nobody_change_nothing(archive: ArchiveProcess) -> None:
    cancels = b"".join(message(3, cancel(number)) for number in range(11))
    with archive.unharmed("eleven cancels", 2):
        assert statuses(archive.converse(REQUEST, cancels + message(1, ECHO) + cancels, 1)) == [0]


def test_a_store_that_is_left_in_the_middle_leaves_nothing(archive: ArchiveProcess) -> None:
    big = p_data(pdv(5, 0, bytes(100_000))) * 30  # more than is kept in memory
    for name, end in {
        "an abort": abort(0, 0),
        "a release": RELEASE,
        "another request": REQUEST,
        "silence": b"",
    }.items():
        uid = new_uid()
        with archive.unharmed(name, 2):
            begun = message(5, store_command(uid)) + p_data(pdv(5, 0, instance(uid)))
            archive.say(REQUEST + begun + big + end)
        assert not list((archive.folder / "instances").rglob(f"{uid.decode()}-*"))


def test_contexts_of_this_module_are_those_of_the_tables() -> None:
    assert FIND in REQUEST
    assert CT in REQUEST
