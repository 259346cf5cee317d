"""Framing: bytes to control PDUs and fragments however they are split, and messages to P-DATA-TF PDUs."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from struct import pack, unpack_from
from types import FrameType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.protocol.framing import (
    COMMAND_SIZE,
    RECEIVE_SIZE,
    REST_SIZE,
    SEND_SIZE,
    ControlPDU,
    ForeignProtocol,
    Fragment,
    Framer,
    Layout,
    _spare,
    recycle,
)
from asyncdicom.protocol.pdu import AbortReason, InvalidPDU

from .cores import data_tf, pdu_bytes, pdv


class Run(NamedTuple):
    """What consecutive fragments of one presentation context add up to, up to the last one of a message part."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes


Item = ControlPDU | Run


def command(data: bytes = b"", *, last: bool = True, context_id: int = 1) -> Run:
    return Run(context_id, True, last, data)


def data(value: bytes = b"", *, last: bool = True, context_id: int = 1) -> Run:
    return Run(context_id, False, last, value)


def pull(framer: Framer) -> Iterator[ControlPDU | Fragment]:
    return iter(framer.next, None)


def joined(items: Iterable[ControlPDU | Fragment | Run]) -> list[Item]:
    """Join the fragments that splitting has cut."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, ControlPDU):
            out.append(item)
            continue
        run = Run(item.context_id, item.is_command, item.is_last, bytes(item.data))
        before = out[-1] if out else None
        if isinstance(before, Run) and not before.is_last and before[:2] == run[:2]:
            out[-1] = run._replace(data=before.data + run.data)
        else:
            out.append(run)
    return out


def feed(framer: Framer, chunks: Iterable[bytes]) -> list[Item]:
    items: list[ControlPDU | Fragment] = []
    for chunk in chunks:
        framer.receive_data(chunk)
        items += pull(framer)
    return joined(items)


def singly(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


#: Name -> stream, and what it holds.
STREAMS: dict[str, tuple[bytes, list[Item]]] = {
    "nothing": (b"", []),
    "A-ASSOCIATE-RQ": (pdu_bytes(1, b"request"), [ControlPDU(1, b"request")]),
    "A-ASSOCIATE-AC": (pdu_bytes(2, b"answer"), [ControlPDU(2, b"answer")]),
    "an empty A-ASSOCIATE PDU": (pdu_bytes(1, b""), [ControlPDU(1, b"")]),
    "A-ASSOCIATE-RJ": (pdu_bytes(3, b"\0\1\2\3"), [ControlPDU(3, b"\0\1\2\3")]),
    "A-RELEASE-RQ": (pdu_bytes(5, bytes(4)), [ControlPDU(5, bytes(4))]),
    "A-RELEASE-RP": (pdu_bytes(6, bytes(4)), [ControlPDU(6, bytes(4))]),
    "A-ABORT": (pdu_bytes(7, b"\0\0\2\6"), [ControlPDU(7, b"\0\0\2\6")]),
    "a reserved octet that is set": (b"\5\xff\0\0\0\4abcd", [ControlPDU(5, b"abcd")]),
    "a command": (data_tf(pdv(b"command", command=True, last=True)), [command(b"command")]),
    "a data set": (data_tf(pdv(b"data set", last=True, context_id=255)), [data(b"data set", context_id=255)]),
    "a fragment that is not the last": (data_tf(pdv(b"data")), [data(b"data", last=False)]),
    "an empty last fragment": (data_tf(pdv(b"abcd"), pdv(b"", last=True)), [data(b"abcd")]),
    "an empty last fragment in a PDU of its own": (
        data_tf(pdv(b"abcd")) + data_tf(pdv(b"", last=True)),
        [data(b"abcd")],
    ),
    "an empty fragment in the middle": (
        data_tf(pdv(b"ab")) + data_tf(pdv(b"")) + data_tf(pdv(b"cd", last=True)),
        [data(b"abcd")],
    ),
    "a data set without a byte": (data_tf(pdv(b"", last=True)), [data()]),
    "odd fragments": (data_tf(pdv(b"a"), pdv(b"bcd"), pdv(b"e", last=True)), [data(b"abcde")]),
    "command and data in one PDU": (
        data_tf(pdv(b"command", command=True, last=True), pdv(b"data", last=True)),
        [command(b"command"), data(b"data")],
    ),
    "PDVs of several contexts in one PDU": (
        data_tf(pdv(b"a", context_id=1), pdv(b"b", context_id=3, last=True), pdv(b"c", context_id=5)),
        [data(b"a", last=False), data(b"b", context_id=3), data(b"c", last=False, context_id=5)],
    ),
    "reserved bits of the message control header": (
        data_tf(pdv(b"ab", reserved=0xFC), pdv(b"cd", command=True, last=True, reserved=0xFC)),
        [data(b"ab", last=False), command(b"cd")],
    ),
    "a fragment that is a PDU itself": (data_tf(pdv(data_tf(pdv(b"ab")), last=True)), [data(data_tf(pdv(b"ab")))]),
    "an operation and its end": (
        data_tf(pdv(b"request", command=True, last=True))
        + data_tf(pdv(b"identi"))
        + data_tf(pdv(b"fier", last=True))
        + pdu_bytes(5, bytes(4)),
        [command(b"request"), data(b"identifier"), ControlPDU(5, bytes(4))],
    ),
}
streams = pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS)


@streams
def test_a_stream_is_read_whole(stream: bytes, expected: list[Item]) -> None:
    framer = Framer()
    assert feed(framer, [stream]) == expected
    assert not framer.mid_pdu


@streams
def test_a_stream_is_read_byte_by_byte(stream: bytes, expected: list[Item]) -> None:
    framer = Framer()
    assert feed(framer, singly(stream)) == expected
    assert not framer.mid_pdu


@streams
def test_a_stream_is_read_in_two_parts_split_anywhere(stream: bytes, expected: list[Item]) -> None:
    for place in range(len(stream) + 1):
        assert feed(Framer(), cut(stream, [place])) == expected


@streams
def test_chunks_may_come_before_the_first_was_looked_at(stream: bytes, expected: list[Item]) -> None:
    framer = Framer()
    for byte in singly(stream):
        framer.receive_data(byte)
    assert joined(pull(framer)) == expected


@streams
@pytest.mark.parametrize("size", [1, 5, 6, 11, 12])
def test_what_follows_a_stream_waits_for_more(stream: bytes, expected: list[Item], size: int) -> None:
    following = data_tf(pdv(b"abcd", last=True))
    framer = Framer()
    assert feed(framer, [stream + following[:size]]) == expected
    assert framer.mid_pdu
    assert feed(framer, [following[size:]]) == [data(b"abcd")]
    assert not framer.mid_pdu


@streams
def test_what_is_invalid_after_a_stream_does_not_touch_it(stream: bytes, expected: list[Item]) -> None:
    framer = Framer()
    framer.receive_data(stream + b"\xff")
    items: list[ControlPDU | Fragment] = []
    with pytest.raises(InvalidPDU):
        items.extend(pull(framer))
    assert joined(items) == expected


@st.composite
def streams_of_pdus(draw: st.DrawFn) -> tuple[bytes, list[Item]]:
    stream = b""
    items: list[ControlPDU | Run] = []
    for kind in draw(st.lists(st.integers(1, 7), max_size=6)):
        if kind != 4:
            body = draw(st.binary(max_size=40)) if kind < 3 else draw(st.binary(min_size=4, max_size=4))
            stream += pdu_bytes(kind, body)
            items.append(ControlPDU(kind, body))
            continue
        values = draw(
            st.lists(
                st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40)), min_size=1, max_size=4
            )
        )
        stream += data_tf(
            *(pack(">IBB", len(value) + 2, context_id, control) + value for context_id, control, value in values)
        )
        items += (Run(context_id, bool(control & 1), bool(control & 2), value) for context_id, control, value in values)
    return stream, joined(items)


@given(streams_of_pdus(), st.data())
def test_any_stream_is_read_the_same_however_it_is_split(case: tuple[bytes, list[Item]], choose: st.DataObject) -> None:
    stream, expected = case
    places = choose.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    framer = Framer()
    assert feed(framer, cut(stream, places)) == expected
    assert not framer.mid_pdu


# What is refused.


class Fault(NamedTuple):
    stream: bytes
    reason: AbortReason
    message: str
    #: How many bytes must have come before it can be known.
    known: int


FAULTS = {
    "a PDV length of 0": Fault(
        pdu_bytes(4, pack(">IBB", 0, 1, 0)), AbortReason.INVALID_VALUE, "PDV length 0 in a P-DATA-TF PDU with 2", 12
    ),
    "a PDV length of 1": Fault(
        pdu_bytes(4, pack(">IBB", 1, 1, 0)), AbortReason.INVALID_VALUE, "PDV length 1 in a P-DATA-TF PDU with 2", 12
    ),
    "a PDV length one past its PDU": Fault(
        pdu_bytes(4, pack(">IBB", 7, 1, 0) + b"abcd"), AbortReason.INVALID_VALUE, "PDV length 7 in .* with 6 bytes", 12
    ),
    "a PDV length of 80000000H": Fault(
        pdu_bytes(4, pack(">IBB", 0x80000000, 1, 0) + b"abcd"), AbortReason.INVALID_VALUE, "PDV length 2147483648", 12
    ),
    "a PDV length of FFFFFFFFH": Fault(
        pdu_bytes(4, pack(">IBB", 0xFFFFFFFF, 1, 0) + b"abcd"), AbortReason.INVALID_VALUE, "PDV length 4294967295", 12
    ),
    "a second PDV that runs past the PDU": Fault(
        pdu_bytes(4, pdv(b"ab") + pack(">IBB", 3, 1, 0)),
        AbortReason.INVALID_VALUE,
        "PDV length 3 in a P-DATA-TF PDU with 2 bytes left",
        20,
    ),
    "a rest too short for a PDV": Fault(
        pdu_bytes(4, pdv(b"ab") + b"\0" * 5), AbortReason.INVALID_VALUE, "5 bytes after the last PDV", 12
    ),
    "one byte after the last PDV": Fault(
        pdu_bytes(4, pdv(b"ab") + b"\0"), AbortReason.INVALID_VALUE, "1 bytes after the last PDV", 12
    ),
    "a P-DATA-TF PDU without a PDV": Fault(
        pdu_bytes(4, b""), AbortReason.INVALID_VALUE, "P-DATA-TF PDU of 0 bytes holds no PDV", 6
    ),
    "a P-DATA-TF PDU too short for a PDV": Fault(
        pdu_bytes(4, b"\0\0\0\2\1"), AbortReason.INVALID_VALUE, "P-DATA-TF PDU of 5 bytes holds no PDV", 6
    ),
    "a P-DATA-TF PDU longer than announced": Fault(
        pdu_bytes(4, bytes(1065)), AbortReason.INVALID_VALUE, "of 1065 bytes, the maximum announced is 1000", 6
    ),
    "a P-DATA-TF PDU of 4 GiB": Fault(
        b"\4\0\xff\xff\xff\xff", AbortReason.INVALID_VALUE, "of 4294967295 bytes, the maximum announced is 1000", 6
    ),
    "an A-ASSOCIATE-RQ over the limit": Fault(
        pdu_bytes(1, bytes(2001)), AbortReason.NOT_SPECIFIED, "A-ASSOCIATE PDU of 2001 bytes, the limit is 2000", 6
    ),
    "an A-ASSOCIATE-AC of 4 GiB": Fault(
        b"\2\0\xff\xff\xff\xff", AbortReason.NOT_SPECIFIED, "A-ASSOCIATE PDU of 4294967295 bytes", 6
    ),
    "an A-ASSOCIATE-RJ of 5 bytes": Fault(pdu_bytes(3, bytes(5)), AbortReason.INVALID_VALUE, "0x03 of 5 bytes", 6),
    "an A-RELEASE-RQ of 0 bytes": Fault(
        pdu_bytes(5, b""), AbortReason.INVALID_VALUE, "0x05 of 0 bytes instead of 4", 6
    ),
    "an A-RELEASE-RP of 3 bytes": Fault(pdu_bytes(6, bytes(3)), AbortReason.INVALID_VALUE, "0x06 of 3 bytes", 6),
    "an A-ABORT of 4 GiB": Fault(b"\7\0\xff\xff\xff\xff", AbortReason.INVALID_VALUE, "0x07 of 4294967295 bytes", 6),
    "PDU type 0": Fault(bytes(1), AbortReason.UNRECOGNIZED_PDU, "0x00", 1),
    "PDU type 8": Fault(b"\x08", AbortReason.UNRECOGNIZED_PDU, "0x08", 1),
    "PDU type FFH": Fault(b"\xff", AbortReason.UNRECOGNIZED_PDU, "0xff", 1),
}
faults = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
BEFORE = {
    "first": b"",
    "after a control PDU": pdu_bytes(1, b"request"),
    "after a P-DATA-TF PDU": data_tf(pdv(b"ab", last=True)),
}


def strict() -> Framer:
    return Framer(associate_pdu=2000, maximum_length=1000, slack=64)


def feed_all(framer: Framer, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        framer.receive_data(chunk)
        for _ in pull(framer):
            pass


@faults
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("split", [lambda stream: [stream], singly], ids=["whole", "byte by byte"])
def test_a_fault_is_refused_with_its_reason(fault: Fault, before: bytes, split: Callable[[bytes], list[bytes]]) -> None:
    with pytest.raises(InvalidPDU, match=fault.message) as caught:
        feed_all(strict(), split(before + fault.stream))
    assert caught.value.reason is fault.reason


@faults
def test_a_fault_is_refused_as_soon_as_it_can_be_known(fault: Fault) -> None:
    framer = strict()
    feed_all(framer, singly(fault.stream[: fault.known - 1]))
    framer.receive_data(fault.stream[fault.known - 1 : fault.known])
    with pytest.raises(InvalidPDU):
        framer.next()


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("split", [lambda stream: [stream], singly], ids=["whole", "byte by byte"])
def test_only_the_first_octet_of_all_tells_another_protocol(
    before: bytes, split: Callable[[bytes], list[bytes]]
) -> None:
    with pytest.raises(InvalidPDU) as caught:
        feed_all(Framer(), split(before + b"GET / HTTP/1.1\r\n"))
    assert isinstance(caught.value, ForeignProtocol) is (not before)


@pytest.mark.parametrize(
    ("maximum", "slack", "length", "fits"),
    [
        (1000, 64, 1064, True),
        (1000, 64, 1065, False),
        (1000, 0, 1000, True),
        (1000, 0, 1001, False),
        (0, 64, 1 << 20, True),
        (0, 0, 1 << 20, True),
    ],
)
@pytest.mark.parametrize("split", [lambda stream: [stream], singly], ids=["whole", "header byte by byte"])
def test_pdus_a_little_over_the_announced_maximum_are_tolerated(
    maximum: int, slack: int, length: int, fits: bool, split: Callable[[bytes], list[bytes]]
) -> None:
    framer = Framer(maximum_length=maximum, slack=slack)
    value = bytes(length - 6)
    stream = data_tf(pdv(value, last=True))
    chunks = [*split(stream[:12]), stream[12:]]
    if fits:
        assert feed(framer, chunks) == [data(value)]
    else:
        with pytest.raises(InvalidPDU, match="the maximum announced is"):
            feed_all(framer, chunks)


def test_the_longest_a_associate_pdu_that_is_allowed_is_collected() -> None:
    stream = pdu_bytes(1, bytes(2000))
    assert feed(strict(), [stream]) == [ControlPDU(1, bytes(2000))]
    assert feed(strict(), singly(stream)) == [ControlPDU(1, bytes(2000))]


ANNOUNCEMENTS = {
    "an A-ASSOCIATE-RQ of 4 GiB": b"\1\0\xff\xff\xff\xff",
    "an A-ASSOCIATE-RQ of 1 MiB": b"\1\0\0\x10\0\0",
    "a P-DATA-TF PDU of 4 GiB": b"\4\0\xff\xff\xff\xff\xff\xff\xff\xfb\1\0",
    "a PDV past its PDU": b"\4\0\0\0\0\x10\x80\0\0\0\1\0",
    "an A-ABORT of 4 GiB": b"\7\0\xff\xff\xff\xff",
}


@pytest.mark.parametrize("start", ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS)
def test_no_length_that_a_peer_announces_is_allocated(start: bytes) -> None:
    framer = Framer()
    framer.receive_data(start)
    tracemalloc.start()
    try:
        for _ in pull(framer):
            pass
    except InvalidPDU:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 65_536


def test_a_pdu_of_4_gib_takes_the_memory_of_a_chunk() -> None:
    framer = Framer()
    feed_all(framer, [b"\4\0\xff\xff\xff\xff\xff\xff\xff\xfb\1\0"])
    chunk = bytes(RECEIVE_SIZE)
    tracemalloc.start()
    for _ in range(50):
        framer.receive_data(chunk)
        (fragment,) = pull(framer)
        assert isinstance(fragment, Fragment)
        assert (len(fragment.data), fragment.is_last) == (RECEIVE_SIZE, False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 65_536
    assert framer.mid_pdu


# Nothing is copied.


def test_fragments_are_slices_of_the_chunk_that_was_received() -> None:
    chunk = data_tf(pdv(b"abcd", command=True, last=True), pdv(b"efgh")) + data_tf(pdv(b"ijkl", last=True))
    framer = Framer()
    framer.receive_data(chunk)
    fragments = [item for item in pull(framer) if isinstance(item, Fragment)]
    assert [bytes(fragment.data) for fragment in fragments] == [b"abcd", b"efgh", b"ijkl"]
    assert all(fragment.data.obj is chunk for fragment in fragments)
    assert all(fragment.data.readonly for fragment in fragments)


def test_a_fragment_that_is_split_comes_out_in_slices_of_each_chunk() -> None:
    chunks = cut(data_tf(pdv(bytes(range(200)), last=True)), [50, 120])
    framer = Framer()
    seen = []
    for chunk in chunks:
        framer.receive_data(chunk)
        (fragment,) = pull(framer)
        assert isinstance(fragment, Fragment)
        assert fragment.data.obj is chunk
        seen.append((len(fragment.data), fragment.is_last))
    assert seen == [(38, False), (70, False), (92, True)]


@pytest.mark.parametrize("size", range(1, 6))
def test_only_what_is_left_of_a_header_is_carried_over_to_the_next_chunk(size: int) -> None:
    first, second = cut(data_tf(pdv(b"ab")) + data_tf(pdv(bytes(100), last=True)), [14 + size])
    framer = Framer()
    feed_all(framer, [first])
    framer.receive_data(second)
    (fragment,) = pull(framer)
    assert isinstance(fragment, Fragment)
    assert isinstance(fragment.data.obj, bytes)
    assert len(fragment.data.obj) == size + len(second)


@pytest.mark.parametrize(
    "stream",
    [
        data_tf(pdv(bytes(RECEIVE_SIZE - 12), last=True)),
        data_tf(pdv(bytes(RECEIVE_SIZE - 118)), pdv(bytes(100), last=True)),
        data_tf(pdv(bytes(RECEIVE_SIZE)))[:RECEIVE_SIZE],
    ],
    ids=["a PDU with one PDV", "a PDU with two", "half a PDU"],
)
def test_a_chunk_is_let_go_with_the_last_of_it(stream: bytes) -> None:
    framer = Framer()
    tracemalloc.start()
    framer.receive_data(bytes(bytearray(stream)))
    while framer.chunk:
        assert framer.next() is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 65_536
    assert framer.next() is None


def test_a_million_tiny_pdus_cost_one_step_each() -> None:
    count = 1_000_000
    stream = data_tf(pdv(b"ab")) * count
    framer = Framer()
    steps = received = 0
    longest = 0
    for start in range(0, len(stream), RECEIVE_SIZE):
        framer.receive_data(stream[start : start + RECEIVE_SIZE])
        for fragment in pull(framer):
            assert isinstance(fragment, Fragment)
            received += len(fragment.data)
            steps += 1
        assert isinstance(fragment, Fragment)
        assert isinstance(fragment.data.obj, bytes)
        longest = max(longest, len(fragment.data.obj))
    assert received == 2 * count
    chunks = -(-len(stream) // RECEIVE_SIZE)
    assert count <= steps <= count + chunks  # a payload that is split between two chunks is two fragments
    assert longest < RECEIVE_SIZE + 6  # what is copied from one chunk to the next


def calls_in_framing(stream: bytes) -> int:
    """Count the functions of the module that are entered to read a stream in chunks."""
    count = 0
    file = sys.modules[Framer.__module__].__file__

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename == file

    framer = Framer()
    chunks = [stream[start : start + RECEIVE_SIZE] for start in range(0, len(stream), RECEIVE_SIZE)]
    sys.setprofile(profile)
    try:
        feed_all(framer, chunks)
    finally:
        sys.setprofile(None)
    return count


def test_a_whole_pdu_of_one_pdv_is_read_in_one_call() -> None:
    count = 10_000
    chunks = -(-14 * count // RECEIVE_SIZE)
    assert calls_in_framing(data_tf(pdv(b"ab")) * count) <= count + 8 * chunks


def test_the_work_for_pdvs_grows_as_their_number_does() -> None:
    few = calls_in_framing(data_tf(pdv(b"") * 5_000) * 4)
    many = calls_in_framing(data_tf(pdv(b"") * 5_000) * 16)
    assert many < 4.1 * few


# Sending.


def read_pdus(stream: bytes | bytearray | memoryview) -> list[tuple[int, int, int, bytes]]:
    """Read P-DATA-TF PDUs of one PDV each: variable field's length, context ID, control, fragment."""
    out = []
    position = 0
    while position < len(stream):
        kind, reserved, length, inner, context_id, control = unpack_from(">BBIIBB", stream, position)
        assert (kind, reserved) == (4, 0)
        assert inner == length - 4
        end = position + 6 + length
        assert end <= len(stream)
        out.append((length, context_id, control, bytes(stream[position + 12 : end])))
        position = end
    return out


MAXIMA = [
    0,
    *range(8, 130),
    255,
    1000,
    4095,
    4096,
    16_384,
    32_768,
    65_535,
    65_536,
    131_072,
    262_138,
    262_144,
    2**32 - 1,
]


@pytest.mark.parametrize("maximum", MAXIMA)
def test_messages_keep_to_the_peers_maximum_and_come_back_whole(maximum: int) -> None:
    layout = Layout(maximum)
    chosen = random.Random(maximum)
    full = layout.buffer_payload
    sizes = {0, 2, layout.payload, layout.payload + 2, *(2 * chosen.randrange(2_000) for _ in range(3))}
    if maximum == 0 or maximum > 10_000:
        sizes |= {full - 2, full, full + 2, full + REST_SIZE, 2 * full + layout.payload + 2, 3 * full + 1000}
    for size in sizes:
        command_set, data_set = chosen.randbytes(120), chosen.randbytes(size)
        prefix = layout.command(7, command_set)
        buffers = list(layout.buffers(7, data_set, prefix=prefix))
        most = SEND_SIZE + max(0, len(prefix) - COMMAND_SIZE)
        assert all(len(buffer) <= most for buffer in buffers[:-1])
        assert len(buffers[-1]) <= most + REST_SIZE
        stream = b"".join(buffers)
        for length, context_id, control, fragment in read_pdus(stream):
            assert context_id == 7
            assert control <= 3
            assert len(fragment) % 2 == 0
            assert maximum == 0 or length <= maximum
        framer = Framer(maximum_length=maximum, slack=0)
        assert feed(framer, [stream]) == [command(command_set, context_id=7), data(data_set, context_id=7)]
        assert not framer.mid_pdu


def test_every_maximum_from_8_on_is_kept() -> None:
    for maximum in range(8, 5_000):
        layout = Layout(maximum)
        assert layout.payload % 2 == 0
        assert 2 <= layout.payload <= maximum - 6
        assert layout.payload >= (maximum - 6) * 0.98 - 1
        assert layout.buffer_payload % layout.payload == 0
        pdus = layout.buffer_payload // layout.payload
        assert pdus * (layout.payload + 12) <= SEND_SIZE - COMMAND_SIZE


@pytest.mark.parametrize("maximum", [0, 16_384, 32_768, 65_536, 131_072, 200_000, 262_144, 1 << 20, 2**32 - 1])
def test_buffers_are_filled_whatever_the_peers_maximum_is(maximum: int) -> None:
    first, *_ = Layout(maximum).buffers(1, bytes(1 << 20))
    assert SEND_SIZE - 2 * COMMAND_SIZE <= len(first) <= SEND_SIZE


@pytest.mark.parametrize("maximum", [8, 100, 1000, 10_000, 16_384, 16_394, 32_768, 131_072, 0])
def test_a_short_rest_goes_along_with_the_last_buffer(maximum: int) -> None:
    layout = Layout(maximum)
    full = layout.buffer_payload
    most = next(size for size in range(full + REST_SIZE, full, -2) if layout.portion(size) == size)
    assert layout.portion(full) == full
    assert layout.portion(most + 2) == full
    buffer, gaps = layout.place(1, most, last=True, prefix=bytes(COMMAND_SIZE))
    assert sum(map(len, gaps)) == most
    assert SEND_SIZE < len(buffer) <= SEND_SIZE + REST_SIZE
    assert [len(buffer) > SEND_SIZE for buffer in layout.buffers(1, bytes(2 * full + most))] == [False, False, True]


def test_buffers_that_were_sent_are_used_again_whatever_their_size() -> None:
    layout = Layout(131_072)
    for size in (10_000, 60_000, 100_000, layout.buffer_payload, layout.buffer_payload + 1000):
        buffer, _ = layout.place(1, size, last=True, prefix=b"command")
        recycle(buffer)
        again, _ = layout.place(1, size, last=True, prefix=b"command")
        assert again.obj is buffer.obj
        recycle(again)
    before = {size: len(spare) for size, spare in _spare.items()}
    for size in (1000, SEND_SIZE * 2):
        recycle(layout.place(1, size, last=True)[0])
    assert {size: len(spare) for size, spare in _spare.items()} == before
    for size in (10_000, 100_000):
        for buffer, _ in [layout.place(1, size, last=True) for _ in range(20)]:
            recycle(buffer)
    assert {len(spare) for spare in _spare.values()} == {8}


@pytest.mark.parametrize(
    ("maximum", "payload"),
    [(8, 2), (9, 2), (10, 4), (11, 4)],
)
def test_the_smallest_maxima_carry_an_even_fragment(maximum: int, payload: int) -> None:
    assert Layout(maximum).payload == payload


@pytest.mark.parametrize("maximum", [0, 8, 9, 16_384, 2**32 - 1])
def test_a_command_set_is_marked_and_ends_with_its_last_fragment(maximum: int) -> None:
    layout = Layout(maximum)
    for size in (2, layout.payload, layout.payload + 2, 3 * layout.payload):
        value = random.Random(size).randbytes(size)
        pdus = read_pdus(layout.command(3, value))
        assert [control for _, _, control, _ in pdus] == [*[1] * (len(pdus) - 1), 3]
        assert b"".join(fragment for *_, fragment in pdus) == value
        assert len(pdus) == -(-size // layout.payload)


def test_a_small_data_set_goes_behind_its_command_set() -> None:
    layout = Layout(100)
    prefix = layout.command(3, b"command!")
    assert bytes(layout.with_data_set(prefix, 3, b"data")) == (
        data_tf(pdv(b"command!", command=True, last=True, context_id=3))
        + data_tf(pdv(b"data", last=True, context_id=3))
    )


def test_the_gaps_between_the_headers_are_filled_in_place() -> None:
    layout = Layout(16)
    buffer, gaps = layout.place(5, 24, last=True, prefix=b"prefix")
    assert [len(gap) for gap in gaps] == [10, 10, 4]
    for gap, letter in zip(gaps, b"abc", strict=True):
        assert gap.obj is buffer.obj
        gap[:] = bytes([letter]) * len(gap)
    assert bytes(buffer) == b"prefix" + (
        data_tf(pdv(b"a" * 10, context_id=5))
        + data_tf(pdv(b"b" * 10, context_id=5))
        + data_tf(pdv(b"c" * 4, context_id=5, last=True))
    )


@pytest.mark.parametrize(
    ("size", "last", "controls"),
    [(0, True, [2]), (0, False, [0]), (10, True, [2]), (10, False, [0]), (20, True, [0, 2]), (20, False, [0, 0])],
)
def test_only_the_end_of_the_data_set_is_marked_last(size: int, last: bool, controls: list[int]) -> None:
    buffer, gaps = Layout(16).place(1, size, last=last)
    assert [control for _, _, control, _ in read_pdus(buffer)] == controls
    assert sum(map(len, gaps)) == size


@given(
    st.just(0) | st.integers(8, 300), st.binary(max_size=3_000), st.integers(0, 127).map(lambda number: 2 * number + 1)
)
def test_any_data_set_comes_back(maximum: int, value: bytes, context_id: int) -> None:
    stream = b"".join(Layout(maximum).buffers(context_id, value))
    assert feed(Framer(maximum_length=maximum, slack=0), [stream]) == [data(value, context_id=context_id)]
