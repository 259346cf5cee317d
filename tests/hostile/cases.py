"""What the adversary says to a server, and what it must get for it.

The tables follow the standard: an A-ABORT (0,0) before there is an association (PS3.8 AA-1), (2, reason) on one (AA-8),
A-ASSOCIATE-RJ where a request is understood and refused. Each is played against a server of this process, in memory, over
TCP and over TLS, and against an archive in a process of its own.
"""

from __future__ import annotations

import struct

from .wire import (
    ABORT_0_0,
    CT,
    ECHO,
    FIND,
    MAXIMUM,
    RELEASE,
    REQUEST,
    VERIFICATION,
    abort,
    associate,
    command,
    context,
    item,
    p_data,
    pdv,
    reject,
    store_command,
    us,
)

__all__ = ["ASSOCIATED", "BEFORE", "ESTABLISHED", "PATHS", "SILENT"]

#: After which nothing comes, until ARTIM runs out.
SILENT = {
    "nothing": b"",
    "one byte": b"\x01",
    "half a request": REQUEST[:100],
    "all of a request but a byte": REQUEST[:-1],
}

_USER_IDENTITY = struct.pack(">BBHH", 2, 0, 5, 5)


def _identity(value: bytes, length: int | None = None) -> bytes:
    return associate(user=MAXIMUM + item(0x58, value, length))


def _role(value: bytes, length: int | None = None) -> bytes:
    return associate(user=MAXIMUM + item(0x54, value, length))


BEFORE = {
    "a length of 0xFFFFFFFF": (b"\x01\0\xff\xff\xff\xff", ABORT_0_0),
    "a length over the limit": (struct.pack(">BxI", 1, (1 << 20) + 1), ABORT_0_0),
    "a request of no length": (b"\x01\0\0\0\0\0", ABORT_0_0),
    "a request that ends in its head": (b"\x01\0\0\0\0\x20" + REQUEST[6:38], ABORT_0_0),
    "PDU type 0": (b"\0\0\0\0\0\x04abcd", ABORT_0_0),
    "PDU type 8": (b"\x08\0\0\0\0\x04abcd", ABORT_0_0),
    "PDU type 255": (b"\xff\0\0\0\0\x04abcd", ABORT_0_0),
    "P-DATA-TF": (p_data(pdv(1, 3, ECHO)), ABORT_0_0),
    "A-RELEASE-RQ": (RELEASE, ABORT_0_0),
    "A-ASSOCIATE-AC": (b"\x02" + REQUEST[1:], ABORT_0_0),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ABORT_0_0),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", ABORT_0_0),
    "a TLS ClientHello": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64), ABORT_0_0),
    "an item past its parent": (associate(b"\x20\0\xff\xff\x01\0\0\0"), ABORT_0_0),
    "an item cut off in its head": (associate(b"\x20\0\0"), ABORT_0_0),
    "an abstract syntax past its context": (associate(item(0x20, b"\1\0\0\0" + item(0x30, b"1.2", 99))), ABORT_0_0),
    "a transfer syntax of 0xFFFF": (
        associate(item(0x20, b"\1\0\0\0" + item(0x30, b"1.2") + item(0x40, b"1.2", 0xFFFF))),
        ABORT_0_0,
    ),
    "a context of three bytes": (associate(item(0x20, b"\x01\0\0")), ABORT_0_0),
    "a sub-item past its parent": (associate(user=b"\x51\0\xff\xff\0\0"), ABORT_0_0),
    "a maximum length of three bytes": (associate(user=item(0x51, b"\0\0\x40")), ABORT_0_0),
    "an asynchronous window of one byte": (associate(user=MAXIMUM + item(0x53, b"\0")), ABORT_0_0),
    "a role past its sub-item": (_role(struct.pack(">H", 200) + b"1.2\1\1"), ABORT_0_0),
    "a role of no length": (_role(b""), ABORT_0_0),
    "a role past its parent": (_role(b"\0\x031.2\1\1", 0xFFFF), ABORT_0_0),
    "extended negotiation past its sub-item": (
        associate(user=MAXIMUM + item(0x56, struct.pack(">H", 0xFFFF) + b"1.2")),
        ABORT_0_0,
    ),
    "a user identity past its sub-item": (_identity(_USER_IDENTITY + b"alice"), ABORT_0_0),
    "a user identity past its parent": (_identity(_USER_IDENTITY, 0x7FFF), ABORT_0_0),
    "a user identity of two bytes": (_identity(b"\2\0"), ABORT_0_0),
    "a context without abstract syntax": (associate(item(0x20, b"\x01\0\0\0")), ABORT_0_0),
    "a context with two abstract syntaxes": (
        associate(item(0x20, b"\1\0\0\0" + 2 * item(0x30, b"1.2.3") + item(0x40, b"1.2.840.10008.1.2"))),
        ABORT_0_0,
    ),
    "an even context id": (associate(context(2, b"1.2", b"1.2")), ABORT_0_0),
    "two contexts of one id": (associate(VERIFICATION, VERIFICATION), ABORT_0_0),
    "protocol version 2": (associate(version=2), reject(1, 2, 2)),
    "protocol version 0": (associate(version=0), reject(1, 2, 2)),
    "another application context": (associate(application=b"1.2.3"), reject(1, 1, 2)),
    "a maximum length of 7": (associate(user=item(0x51, struct.pack(">I", 7))), reject(1, 1, 1)),
    "a maximum length of 1": (associate(user=item(0x51, struct.pack(">I", 1))), reject(1, 1, 1)),
    "an AE title of spaces": (associate(calling=b" "), reject(1, 1, 3)),
    "an AE title of NULs": (associate(calling=bytes(16)), reject(1, 1, 3)),
    "an AE title with control characters": (associate(calling=b"A\x1b[2J\r\nB"), reject(1, 1, 3)),
    "an AE title with a backslash": (associate(calling=b"A\\B"), reject(1, 1, 3)),
}

_MESSAGE_OF_SEQUENCES = b"".join(struct.pack("<HHI", 0, 0x5555, 0xFFFFFFFF) for _ in range(500))

#: On an association; what was accepted for it comes first.
ESTABLISHED = {
    "a second request": (REQUEST, abort(2, 2)),
    "an A-ASSOCIATE-AC": (b"\x02" + REQUEST[1:], abort(2, 2)),
    "an A-RELEASE-RP": (b"\x06\0\0\0\0\x04\0\0\0\0", abort(2, 2)),
    "an unknown PDU": (b"\xff\0\0\0\0\x04abcd", abort(2, 1)),
    "a PDV of length 0": (p_data(pdv(1, 3, b"", 0)), abort(2, 6)),
    "a PDV of length 1": (p_data(pdv(1, 3, b"", 1)), abort(2, 6)),
    "a PDV past its PDU": (p_data(pdv(1, 3, b"ab", 100)), abort(2, 6)),
    "a PDV of 2 GiB": (p_data(pdv(1, 3, b"ab", 0x80000000)), abort(2, 6)),
    "a PDU over the maximum": (struct.pack(">BxI", 4, 131_072 + 65), abort(2, 6)),
    "a PDU of 4 GiB": (struct.pack(">BxI", 4, 0xFFFFFFFF), abort(2, 6)),
    "an unknown context": (p_data(pdv(99, 3, ECHO)), abort(2, 6)),
    "a context that was rejected": (p_data(pdv(7, 3, ECHO)), abort(2, 6)),
    "data where a command is due": (p_data(pdv(1, 2, b"ab")), abort(2, 5)),
    "a context that changes": (p_data(pdv(1, 1, ECHO[:20]), pdv(3, 3, ECHO[20:])), abort(2, 6)),
    "a command in a data set": (p_data(pdv(5, 3, store_command(b"1.2")), pdv(5, 3, ECHO)), abort(2, 5)),
    "a random command set": (p_data(pdv(1, 3, b"\xff" * 40)), ABORT_0_0),
    "a command set of sequences": (p_data(pdv(1, 3, command((0x100, us(0x30))) + _MESSAGE_OF_SEQUENCES)), ABORT_0_0),
    "a command without Command Field": (p_data(pdv(1, 3, command((0x110, us(1)), (0x800, us(0x101))))), ABORT_0_0),
    "a command without Message ID": (p_data(pdv(1, 3, command((0x100, us(0x30)), (0x800, us(0x101))))), ABORT_0_0),
    "an empty command set": (p_data(pdv(1, 3, b"")), ABORT_0_0),
    "a command set over 64 KiB": (p_data(pdv(1, 1, bytes(65_537))), ABORT_0_0),
    "a stall inside a PDU": (p_data(pdv(1, 3, ECHO))[:30], ABORT_0_0),
    "a stall between fragments": (
        p_data(pdv(5, 3, store_command(b"1.2"))) + p_data(pdv(5, 0, b"ab")),
        ABORT_0_0,
    ),
}

_MANY = tuple(context(number, b"1.2.840.10008.1.1", b"1.2.840.10008.1.2") for number in range(1, 256, 2))

#: Requests that are odd, and must be accepted: an echo on context 1, and a release, follow.
ASSOCIATED = {
    "128 contexts": associate(*_MANY),
    "2 000 transfer syntaxes in a context": associate(
        VERIFICATION, context(3, b"1.2.840.10008.1.1", *(b"1.2.%d" % number for number in range(2000)))
    ),
    "an AE title that is a path": associate(calling=b"../../etc"),
    "an AE title for a shell": associate(calling=b"$(reboot)"),
    "roles for classes that were not proposed": _role(b"\0\x051.2.3\1\1"),
    "an unlimited maximum length": associate(user=item(0x51, bytes(4))),
    "no maximum length": associate(user=b""),
    "unknown items and sub-items": associate(
        VERIFICATION, FIND, CT, item(0x99, b"x" * 100), user=MAXIMUM + item(0x66, b"y" * 100)
    ),
}

#: SOP Instance UIDs that must never be part of a path.
PATHS = (
    b"../../x",
    b"/etc/passwd",
    b"..",
    b"1.2\0.3",
    b"1..2",
    b"1" * 65,
    b"1.a",
    b" ",
    b"C:\\x",
    b"\x1b[2J",
)
