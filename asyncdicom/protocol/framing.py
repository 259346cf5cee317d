"""Framing: a stream of bytes to PDUs and fragments, and messages to the bytes of P-DATA-TF PDUs (PS3.8 9.3).

Theory of operation
-------------------
*In.* Control PDUs are small and are collected whole, up to a limit for each type. A P-DATA-TF PDU (PS3.8 9.3.5) is
never collected: its header and the headers of its presentation data values are parsed, and the payload comes out as
:class:`Fragment` objects whose ``data`` is a slice of the immutable chunk that was received. Memory therefore does not
depend on the size of the peer's PDUs, and nothing is copied. No length field ever leads to an allocation.

*Out.* A message is laid out with its headers in place, one presentation data value per PDU, in buffers of at most
:data:`SEND_SIZE` bytes that hold several PDUs, the last of them with a short rest behind them; the payload is read *into*
its place between the headers. The PDUs are a little shorter than the peer's maximum where one more of them then fits into a
buffer: with a maximum of 128 KiB, two instead of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple, TypeVar

from .pdu import AbortReason, InvalidPDU

__all__ = [
    "COMMAND_SIZE",
    "RECEIVE_SIZE",
    "REST_SIZE",
    "SEND_SIZE",
    "Buffer",
    "ControlPDU",
    "ForeignProtocol",
    "Fragment",
    "Framer",
    "Layout",
    "make_tuple",
    "recycle",
]

#: What is sent.
Buffer = bytes | bytearray | memoryview

#: Bytes to ask of the transport at once; a smaller number costs most of the throughput.
RECEIVE_SIZE = 256 * 1024
#: Most bytes in one buffer to send; one write per buffer, not one per PDU.
SEND_SIZE = 256 * 1024
#: What the last buffer of a data set may hold more: a buffer of its own for a short rest costs a read of the file, a write,
#: and another turn of the peer.
REST_SIZE = 16 * 1024
#: What a buffer leaves of that to the PDUs of a command set in front of its payload; hardly any command set needs more.
COMMAND_SIZE = 1024
#: The variable field of our P-DATA-TF PDUs when the peer announced no maximum (0, PS3.8 D.1).
UNLIMITED_PDU = 128 * 1024 - 6

#: PDU type, reserved, PDU length, then PDV length, context ID, message control header (PS3.8 Tables 9-22, 9-23, E.1-1).
_DATA_HEADER = Struct(">BxIIBB")
_unpack_data_header = _DATA_HEADER.unpack_from
_PDU_HEADER = Struct(">BxI")
_PDV_HEADER = Struct(">IBB")

_P_DATA_TF = 4

_NOTHING = memoryview(b"")


#: Longest variable field of each control PDU; ``None`` is the settable limit of A-ASSOCIATE PDUs. The other control PDUs
#: have a fixed length of 4 (PS3.8 Tables 9-21, 9-24, 9-25, 9-26).
_CONTROL_LENGTHS: dict[int, int | None] = {1: None, 2: None, 3: 4, 5: 4, 6: 4, 7: 4}


class Fragment(NamedTuple):
    """A piece of the payload of one presentation data value, in order (PS3.8 9.3.5.1).

    ``is_last`` is true only for the piece that ends a message's command or data set.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


T = TypeVar("T", bound=tuple[object, ...])

#: Makes a named tuple of a tuple. Its class does so through a function, and pieces of data sets come by the thousand.
make_tuple: Callable[[type[T], tuple[object, ...]], T] = tuple.__new__


class ControlPDU(NamedTuple):
    """A whole control PDU: its type, and its variable field."""

    type: int
    body: bytes


class ForeignProtocol(InvalidPDU):
    """The first octet of a connection is not a PDU type: it speaks another protocol."""


_FOREIGN = (
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"OPTI", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"SSH-", "SSH"),
    (b"\x16\x03", "TLS"),
)


def _name_protocol(start: bytes) -> str:
    for prefix, name in _FOREIGN:
        if start[: len(prefix)] == prefix[: len(start)]:
            return name
    return "not DICOM"


class Framer:
    """Cut received bytes into control PDUs and fragments; pull one with :meth:`next`.

    :ivar chunk: the bytes that are being read. It is empty once all of them were: an idle association holds no memory,
        and :meth:`next` would return ``None``.
    :param associate_pdu: the longest A-ASSOCIATE PDU in bytes that is collected.
    :param maximum_length: the longest variable field of a P-DATA-TF PDU that we announced, in bytes; 0 is no limit.
    :param slack: bytes over the announced maximum that are tolerated.
    """

    __slots__ = (
        "_associate_pdu",
        "_at_start",
        "_body",
        "_body_type",
        "_body_wanted",
        "_context_id",
        "_control",
        "_in_pdu",
        "_longest",
        "_maximum_length",
        "_pdu_left",
        "_pdv_left",
        "_position",
        "chunk",
    )

    def __init__(self, *, associate_pdu: int = 1 << 20, maximum_length: int = 0, slack: int = 64) -> None:
        self._associate_pdu = associate_pdu
        self._maximum_length = maximum_length
        self._longest = maximum_length + slack if maximum_length else 0xFFFFFFFF
        self.chunk = _NOTHING
        self._position = 0  # in the chunk, before its end
        self._at_start = True  # nothing before the current chunk was consumed
        self._in_pdu = False  # the header of a PDU was consumed and its variable field was not
        # A P-DATA-TF PDU in progress: what is left of it after the current PDV, and what is left of that PDV.
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = -1  # the message control header of the PDV in progress, -1 between PDVs
        # A control PDU in progress.
        self._body: bytearray | None = None
        self._body_type = 0
        self._body_wanted = 0

    def receive_data(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream, which do not change; nothing is parsed until :meth:`next` is called."""
        if self.chunk:
            data = bytes(self.chunk[self._position :]) + data
            if self._position:
                self._at_start = False
                self._position = 0
        self.chunk = memoryview(data)

    def _advance(self, position: int) -> None:
        """Go on at a position of the chunk; let go of it at its end."""
        if position == len(self.chunk):
            self.chunk = _NOTHING
            self._at_start = False
            self._position = 0
        else:
            self._position = position

    @property
    def mid_pdu(self) -> bool:
        """Whether the bytes so far end inside a PDU, once :meth:`next` has returned ``None``."""
        return self._in_pdu or bool(self.chunk)

    def next(self) -> Fragment | ControlPDU | None:
        """Return what comes next, or ``None`` when more bytes are needed.

        :raises InvalidPDU: the stream breaks PS3.8 9.3; it cannot be read any further.
        """
        chunk = self.chunk
        position = self._position
        size = len(chunk)
        if self._in_pdu or size - position < 12:
            return self._next_part()
        # The common case, without a call: a P-DATA-TF PDU that is all here and holds one PDV.
        pdu_type, pdu_length, length, context_id, control = _unpack_data_header(chunk, position)
        end = position + pdu_length + 6
        if pdu_type == _P_DATA_TF and 6 <= pdu_length == length + 4 and pdu_length <= self._longest and end <= size:
            if end == size:
                self.chunk = _NOTHING
                self._at_start = False
                self._position = 0
            else:
                self._position = end
            return make_tuple(Fragment, (context_id, control & 1 == 1, control & 2 == 2, chunk[position + 12 : end]))
        return self._next_pdu()

    def _next_part(self) -> Fragment | ControlPDU | None:
        if not self._in_pdu:
            return self._next_pdu()
        return self._next_fragment() if self._body is None else self._next_control()

    def _next_pdu(self) -> Fragment | ControlPDU | None:
        """Start a PDU with its header."""
        chunk = self.chunk
        if not chunk:
            return None
        position = self._position
        pdu_type = chunk[position]
        if not 1 <= pdu_type <= 7:
            if self._at_start and not position:
                name = _name_protocol(bytes(chunk[:4]))
                raise ForeignProtocol(
                    f"first octet {pdu_type:#04x} is no PDU type ({name})", AbortReason.UNRECOGNIZED_PDU
                )
            raise InvalidPDU(f"unrecognized PDU type {pdu_type:#04x}", AbortReason.UNRECOGNIZED_PDU)
        if len(chunk) - position < 6:
            return None
        _, length = _PDU_HEADER.unpack_from(chunk, position)
        if pdu_type == _P_DATA_TF:
            self._check_data_length(length)
            self._pdu_left = length
        else:
            self._check_control_length(pdu_type, length)
            self._body = bytearray()
            self._body_type = pdu_type
            self._body_wanted = length
        self._advance(position + 6)
        self._in_pdu = True
        return self._next_part()

    def _check_data_length(self, length: int) -> None:
        if length > self._longest:
            raise InvalidPDU(
                f"P-DATA-TF PDU of {length} bytes, the maximum announced is {self._maximum_length}",
                AbortReason.INVALID_VALUE,
            )
        if length < 6:
            raise InvalidPDU(f"P-DATA-TF PDU of {length} bytes holds no PDV", AbortReason.INVALID_VALUE)

    def _check_control_length(self, pdu_type: int, length: int) -> None:
        expected = _CONTROL_LENGTHS[pdu_type]
        if expected is None:
            if length > self._associate_pdu:
                raise InvalidPDU(
                    f"A-ASSOCIATE PDU of {length} bytes, the limit is {self._associate_pdu}", AbortReason.NOT_SPECIFIED
                )
        elif length != expected:
            raise InvalidPDU(
                f"PDU type {pdu_type:#04x} of {length} bytes instead of {expected}", AbortReason.INVALID_VALUE
            )

    def _next_fragment(self) -> Fragment | None:
        """Go on inside a P-DATA-TF PDU."""
        chunk = self.chunk
        position = self._position
        available = len(chunk) - position
        control = self._control
        if control < 0:
            if available < 6:
                return None
            # The PDV length counts the context ID, the control header and the fragment (PS3.8 Table 9-23).
            length, self._context_id, control = _PDV_HEADER.unpack_from(chunk, position)
            room = self._pdu_left - 4
            if not 2 <= length <= room:
                raise InvalidPDU(
                    f"PDV length {length} in a P-DATA-TF PDU with {room} bytes left", AbortReason.INVALID_VALUE
                )
            if 0 < room - length < 6:
                raise InvalidPDU(
                    f"{room - length} bytes after the last PDV of a P-DATA-TF PDU", AbortReason.INVALID_VALUE
                )
            self._pdu_left = room - length
            self._pdv_left = length - 2
            self._control = control
            position += 6
            available -= 6
        left = self._pdv_left
        if left <= available:
            end = position + left
            self._control = -1
            self._in_pdu = self._pdu_left > 0
            is_last = control & 2 == 2
        elif available:
            end = position + available
            self._pdv_left = left - available
            is_last = False
        else:
            self._advance(position)
            return None
        self._advance(end)
        return Fragment(self._context_id, control & 1 == 1, is_last, chunk[position:end])

    def _next_control(self) -> ControlPDU | None:
        body = self._body
        assert body is not None
        position = self._position
        end = min(len(self.chunk), position + self._body_wanted - len(body))
        body += self.chunk[position:end]
        self._advance(end)
        if len(body) < self._body_wanted:
            return None
        self._body = None
        self._in_pdu = False
        return ControlPDU(self._body_type, bytes(body))


#: Buffers that were sent and can be filled again, by their size: new ones cost more than filling them. There are never more
#: than _SPARE of a size.
_SPARE = 8
_spare: dict[int, list[bytearray]] = {64 * 1024: [], SEND_SIZE + REST_SIZE: []}


def _buffer(size: int) -> memoryview:
    """Return a buffer with any content."""
    for whole, spare in _spare.items():
        if whole // 8 < size <= whole:
            try:
                return memoryview(spare.pop())[:size]
            except IndexError:
                return memoryview(bytearray(whole))[:size]
    return memoryview(bytearray(size))


def recycle(buffer: Buffer) -> None:
    """Let a buffer of :meth:`Layout.place` be used again, once all of it was sent and nobody looks at it any more."""
    if isinstance(buffer, memoryview) and isinstance(whole := buffer.obj, bytearray):
        spare = _spare.get(len(whole))
        if spare is not None and len(spare) < _SPARE:
            spare.append(whole)


class Layout:
    """Lay out the P-DATA-TF PDUs of messages for a peer (PS3.8 9.3.5, Annex E), one PDV per PDU.

    :param maximum_length: the variable field's maximum that the peer announced, in bytes: 0 (unlimited), or 8 and more,
        as less cannot carry anything.
    :ivar payload: payload bytes of a PDU.
    :ivar buffer_payload: those of a buffer: :data:`SEND_SIZE` less the headers and :data:`COMMAND_SIZE`.
    """

    __slots__ = ("_longest", "buffer_payload", "payload")

    def __init__(self, maximum_length: int) -> None:
        space = SEND_SIZE - COMMAND_SIZE
        longest = min(6 + (maximum_length or UNLIMITED_PDU), space)
        count = space // longest
        # PDUs as long as the peer takes or, if that makes more of a buffer, one more of them. Each has 12 bytes of
        # headers, and "the fragment shall be of an even number of bytes" (PS3.8 Table 9-23).
        self.payload, count = max(
            ((longest - 12) & ~1, count),
            ((space // (count + 1) - 12) & ~1, count + 1),
            key=lambda choice: choice[0] * choice[1],
        )
        self.buffer_payload = count * self.payload
        rest = max(REST_SIZE // (self.payload + 12) * self.payload, min(REST_SIZE - 12, self.payload))
        self._longest = self.buffer_payload + rest

    def portion(self, left: int) -> int:
        """Return how many of the *left* bytes of a data set go into the next buffer: as many as it holds, or all of them."""
        return self.buffer_payload if left > self._longest else left

    def command(self, context_id: int, command: bytes) -> bytes:
        """Return the PDUs of a command set."""
        payload = self.payload
        size = len(command)
        if size <= payload:
            return _DATA_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, 3) + command
        parts: list[bytes] = []
        for start in range(0, size, payload):
            piece = command[start : start + payload]
            control = 3 if start + payload >= size else 1
            parts += (_DATA_HEADER.pack(_P_DATA_TF, len(piece) + 6, len(piece) + 2, context_id, control), piece)
        return b"".join(parts)

    def with_data_set(self, prefix: bytes, context_id: int, data_set: bytes) -> bytes:
        """Append a data set that fits into one PDU to the PDUs of its command set."""
        size = len(data_set)
        return b"".join((prefix, _DATA_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, 2), data_set))

    def place(
        self, context_id: int, size: int, *, last: bool, prefix: bytes = b""
    ) -> tuple[memoryview, list[memoryview]]:
        """Return a buffer with the headers for ``size`` bytes of a data set in place, and the gaps to fill, in order.

        :param size: payload bytes, as :meth:`portion` gives them; unless ``last``, a multiple of :attr:`payload`.
        :param last: whether the data set ends with them.
        :param prefix: bytes to put in front: the command's PDUs. Only more than :data:`COMMAND_SIZE` of them, and a
            rest, make the buffer longer than :data:`SEND_SIZE`.
        """
        payload = self.payload
        count = max(1, -(-size // payload))
        position = len(prefix)
        view = _buffer(position + size + 12 * count)
        view[:position] = prefix
        gaps = []
        left = size
        for _ in range(count):
            piece = payload if left > payload else left
            left -= piece
            control = 2 if last and not left else 0
            _DATA_HEADER.pack_into(view, position, _P_DATA_TF, piece + 6, piece + 2, context_id, control)
            position += 12
            gaps.append(view[position : position + piece])
            position += piece
        return view, gaps

    def places(
        self, context_id: int, size: int, *, prefix: bytes = b""
    ) -> Iterator[tuple[memoryview, list[memoryview]]]:
        """Yield the buffers of a data set of ``size`` bytes, each with its gaps, ``prefix`` in front of the first."""
        while True:
            take = self.portion(size)
            size -= take
            yield self.place(context_id, take, last=not size, prefix=prefix)
            prefix = b""
            if not size:
                return

    def buffers(self, context_id: int, data_set: bytes | memoryview, *, prefix: bytes = b"") -> Iterator[memoryview]:
        """Yield the buffers of a data set that is in memory, ``prefix`` in front of the first."""
        view = memoryview(data_set)
        start = 0
        for buffer, gaps in self.places(context_id, len(view), prefix=prefix):
            for gap in gaps:
                gap[:] = view[start : start + len(gap)]
                start += len(gap)
            yield buffer
