"""Framing: a stream of bytes to PDUs and fragments, and messages to the bytes of P-DATA-TF PDUs (PS3.8 9.3).

Theory of operation
-------------------
*In.* Control PDUs are small and are collected whole, up to a limit for each type. A P-DATA-TF PDU (PS3.8 9.3.5) is
never collected: its header and the headers of its presentation data values are parsed, and the payload comes out as
:class:`Fragment` objects whose ``data`` is a slice of the immutable chunk that was received. Memory therefore does not
depend on the size of the peer's PDUs, and nothing is copied. No length field ever leads to an allocation.

*Out.* A message is laid out with its headers in place, one presentation data value per PDU, in buffers of at most
:data:`SEND_SIZE` bytes that hold several PDUs; the payload is read *into* its place between the headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, pack_into
from typing import NamedTuple

from .pdu import AbortReason, InvalidPDU

__all__ = ["RECEIVE_SIZE", "SEND_SIZE", "ControlPDU", "ForeignProtocol", "Fragment", "Framer", "Layout"]

#: Bytes to ask of the transport at once; a smaller number costs most of the throughput.
RECEIVE_SIZE = 256 * 1024
#: Most bytes in one buffer to send; one write per buffer, not one per PDU.
SEND_SIZE = 256 * 1024
#: The variable field of our P-DATA-TF PDUs when the peer announced no maximum (0, PS3.8 D.1).
UNLIMITED_PDU = 128 * 1024 - 6

#: PDU type, reserved, PDU length, then PDV length, context ID, message control header (PS3.8 Tables 9-22, 9-23, E.1-1).
_DATA_HEADER = Struct(">BxIIBB")
_PDU_HEADER = Struct(">BxI")
_PDV_HEADER = Struct(">IBB")

_P_DATA_TF = 4

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

    :param associate_pdu: the longest A-ASSOCIATE PDU in bytes that is collected.
    :param maximum_length: the longest variable field of a P-DATA-TF PDU that we announced, in bytes; 0 is no limit.
    :param slack: bytes over the announced maximum that are tolerated.
    """

    __slots__ = (
        "_body",
        "_body_type",
        "_body_wanted",
        "_chunk",
        "_context_id",
        "_control",
        "_pdu_left",
        "_pdv_left",
        "_position",
        "_started",
        "_view",
        "associate_pdu",
        "maximum_length",
        "slack",
    )

    def __init__(self, *, associate_pdu: int = 1 << 20, maximum_length: int = 0, slack: int = 64) -> None:
        self.associate_pdu = associate_pdu
        self.maximum_length = maximum_length
        self.slack = slack
        self._chunk = b""
        self._view = memoryview(b"")
        self._position = 0
        self._started = False
        # A P-DATA-TF PDU in progress: what is left of it after the current PDV, and what is left of that PDV.
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = -1  # the message control header of the PDV in progress, -1 between PDVs
        # A control PDU in progress.
        self._body: bytearray | None = None
        self._body_type = 0
        self._body_wanted = 0

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream; nothing is parsed until :meth:`next` is called."""
        if self._position < len(self._chunk):
            data = self._chunk[self._position :] + data
        self._chunk = data
        self._view = memoryview(data)
        self._position = 0

    @property
    def mid_pdu(self) -> bool:
        """Whether the bytes so far end inside a PDU."""
        return self._pdu_left > 0 or self._control >= 0 or self._body is not None or self._position < len(self._chunk)

    @property
    def has_buffered(self) -> bool:
        """Whether received bytes wait to be parsed (they may be the start of a header only)."""
        return self._position < len(self._chunk)

    def next(self) -> Fragment | ControlPDU | None:
        """Return what comes next, or ``None`` when more bytes are needed.

        :raises InvalidPDU: the stream breaks PS3.8 9.3; it cannot be read any further.
        """
        position = self._position
        available = len(self._chunk) - position
        # The common case first: a whole header of a P-DATA-TF PDU whose first PDV starts here.
        if self._control < 0:
            if self._body is not None:
                return self._next_control(available)
            if self._pdu_left:
                if available < 6:
                    return None
                length, self._context_id, control = _PDV_HEADER.unpack_from(self._chunk, position)
                position += 6
                self._start_pdv(length, control, self._pdu_left - 4)
            else:
                if available < 12 or self._chunk[position] != _P_DATA_TF:
                    return self._next_pdu(available)
                _, pdu_length, length, self._context_id, control = _DATA_HEADER.unpack_from(self._chunk, position)
                self._check_data_length(pdu_length)
                position += 12
                self._start_pdv(length, control, pdu_length - 4)
            available = len(self._chunk) - position
        control = self._control
        left = self._pdv_left
        if left > available:
            if not available:
                self._position = position
                return None
            end = position + available
            self._pdv_left = left - available
            fragment = Fragment(self._context_id, (control & 1) == 1, False, self._view[position:end])
        else:
            end = position + left
            self._control = -1
            fragment = Fragment(self._context_id, (control & 1) == 1, (control & 2) == 2, self._view[position:end])
        self._position = end
        return fragment

    def _start_pdv(self, length: int, control: int, room: int) -> None:
        """Enter a PDV: ``length`` counts the context ID, the control header and the fragment (PS3.8 Table 9-23)."""
        if length < 2 or length > room:
            raise InvalidPDU(
                f"PDV length {length} in a P-DATA-TF PDU with {room} bytes left", AbortReason.INVALID_VALUE
            )
        self._pdu_left = room - length
        self._pdv_left = length - 2
        self._control = control
        if 0 < self._pdu_left < 6:
            raise InvalidPDU(f"{self._pdu_left} bytes after the last PDV of a P-DATA-TF PDU", AbortReason.INVALID_VALUE)

    def _check_data_length(self, length: int) -> None:
        if self.maximum_length and length > self.maximum_length + self.slack:
            raise InvalidPDU(
                f"P-DATA-TF PDU of {length} bytes, the maximum announced is {self.maximum_length}",
                AbortReason.INVALID_VALUE,
            )
        if length < 6:
            raise InvalidPDU(f"P-DATA-TF PDU of {length} bytes holds no PDV", AbortReason.INVALID_VALUE)

    def _next_pdu(self, available: int) -> Fragment | ControlPDU | None:
        """Start a PDU that is not a P-DATA-TF with its first PDV header at hand."""
        if not available:
            return None
        position = self._position
        pdu_type = self._chunk[position]
        if not 1 <= pdu_type <= 7:
            if not self._started:
                name = _name_protocol(bytes(self._view[position : position + 4]))
                raise ForeignProtocol(
                    f"first octet {pdu_type:#04x} is no PDU type ({name})", AbortReason.UNRECOGNIZED_PDU
                )
            raise InvalidPDU(f"unrecognized PDU type {pdu_type:#04x}", AbortReason.UNRECOGNIZED_PDU)
        self._started = True
        if available < 6:
            return None
        _, length = _PDU_HEADER.unpack_from(self._chunk, position)
        if pdu_type == _P_DATA_TF:
            self._check_data_length(length)
            return None  # fewer than the 12 bytes of both headers have come
        limit = _CONTROL_LENGTHS[pdu_type]
        if limit is None:
            limit = self.associate_pdu
            if length > limit:
                raise InvalidPDU(f"A-ASSOCIATE PDU of {length} bytes, the limit is {limit}", AbortReason.NOT_SPECIFIED)
        elif length != limit:
            raise InvalidPDU(f"PDU type {pdu_type:#04x} of {length} bytes instead of 4", AbortReason.INVALID_VALUE)
        self._position = position + 6
        self._body = bytearray()
        self._body_type = pdu_type
        self._body_wanted = length
        return self._next_control(available - 6)

    def _next_control(self, available: int) -> ControlPDU | None:
        body = self._body
        assert body is not None
        take = min(available, self._body_wanted - len(body))
        end = self._position + take
        body += self._view[self._position : end]
        self._position = end
        if len(body) < self._body_wanted:
            return None
        self._body = None
        return ControlPDU(self._body_type, bytes(body))


class Layout:
    """Lay out the P-DATA-TF PDUs of messages for a peer (PS3.8 9.3.5, Annex E), one PDV per PDU.

    :param maximum_length: the variable field's maximum that the peer announced, in bytes; 0 is unlimited.
    """

    __slots__ = ("_per_buffer", "payload")

    def __init__(self, maximum_length: int) -> None:
        limit = maximum_length or UNLIMITED_PDU
        # "the fragment shall be of an even number of bytes" (PS3.8 Table 9-23); a PDV has 6 bytes of headers.
        self.payload = max(2, (min(limit, SEND_SIZE - 6) - 6) & ~1)
        self._per_buffer = max(1, SEND_SIZE // (self.payload + 12))

    @property
    def buffer_payload(self) -> int:
        """Payload bytes that one buffer of :meth:`buffers` holds at most."""
        return self._per_buffer * self.payload

    def command(self, context_id: int, command: bytes) -> bytearray:
        """Return the PDUs of a command set."""
        return self._fill(context_id, 1, command)

    def with_data_set(self, prefix: bytearray, context_id: int, data_set: bytes) -> bytearray:
        """Append a data set that fits into one PDU to the PDUs of its command set."""
        size = len(data_set)
        prefix += _DATA_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, 2)
        prefix += data_set
        return prefix

    def _fill(self, context_id: int, control: int, payload: bytes | memoryview) -> bytearray:
        size = len(payload)
        if size <= self.payload:
            return bytearray(_DATA_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, control | 2)) + payload
        out = bytearray()
        view = memoryview(payload)
        for start in range(0, size, self.payload):
            piece = view[start : start + self.payload]
            last = 2 if start + self.payload >= size else 0
            out += _DATA_HEADER.pack(_P_DATA_TF, len(piece) + 6, len(piece) + 2, context_id, control | last)
            out += piece
        return out

    def place(
        self, context_id: int, size: int, *, last: bool, prefix: bytes | bytearray = b""
    ) -> tuple[bytearray, list[memoryview]]:
        """Return a buffer with the headers for ``size`` bytes of a data set in place, and the gaps to fill, in order.

        :param size: payload bytes, not more than :attr:`buffer_payload` and, unless ``last``, a multiple of
            :attr:`payload`.
        :param last: whether the data set ends with them.
        :param prefix: bytes to put in front: the command's PDUs.
        """
        payload = self.payload
        count = max(1, -(-size // payload))
        position = len(prefix)
        buffer = bytearray(position + size + 12 * count)
        buffer[:position] = prefix
        view = memoryview(buffer)
        gaps = []
        left = size
        for _ in range(count):
            piece = payload if left > payload else left
            left -= piece
            control = 2 if last and not left else 0
            pack_into(">BxIIBB", buffer, position, _P_DATA_TF, piece + 6, piece + 2, context_id, control)
            position += 12
            gaps.append(view[position : position + piece])
            position += piece
        return buffer, gaps

    def buffers(
        self, context_id: int, data_set: bytes | memoryview, *, prefix: bytes | bytearray = b""
    ) -> Iterator[bytearray]:
        """Yield the buffers of a data set that is in memory, ``prefix`` in front of the first."""
        view = memoryview(data_set)
        step = self.buffer_payload
        size = len(view)
        start = 0
        while True:
            end = min(size, start + step)
            buffer, gaps = self.place(context_id, end - start, last=end == size, prefix=prefix)
            for gap in gaps:
                gap[:] = view[start : start + len(gap)]
                start += len(gap)
            yield buffer
            prefix = b""
            if end == size:
                return
