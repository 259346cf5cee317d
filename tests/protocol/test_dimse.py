"""DIMSE messages over an upper layer: fragmentation, interleaving, limits, and two stacked cores."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from types import FrameType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.exceptions import LocalProtocolError
from asyncdicom.protocol import commands
from asyncdicom.protocol.commands import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    CStoreRSP,
    Message,
    NActionRQ,
    NGetRSP,
)
from asyncdicom.protocol.dimse import DataSetReceived, Dimse, DimseEvent, MessageReceived, UnknownMessageReceived
from asyncdicom.protocol.framing import COMMAND_SIZE, REST_SIZE, SEND_SIZE
from asyncdicom.protocol.pdu import AbortReason
from asyncdicom.protocol.states import State
from asyncdicom.protocol.upper_layer import (
    PAUSE_AFTER,
    AbortIndication,
    Pause,
    ProviderAbort,
    ReleaseIndication,
    Role,
    TransportLost,
)

from .cores import acceptor, associated, data_tf, messages, outgoing, pair, pdv, receive, stacked

RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"
ABORT = b"\7\0\0\0\0\4\0\0\0\0"

ECHO = CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1")
FIND = CFindRQ(message_id=2, affected_sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1", priority=0)
STORE = CStoreRQ(message_id=3, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.3.4", priority=0)

CANCEL = CCancelRQ(message_id_being_responded_to=2)

ECHO_SET = commands.encode(ECHO, has_data_set=False)
FIND_SET = commands.encode(FIND, has_data_set=True)
STORE_SET = commands.encode(STORE, has_data_set=True)
CANCEL_SET_WITH_DATA = commands.encode(CANCEL, has_data_set=True)
#: The command set of ECHO with a Command Field (0000,0100) that no message has.
UNKNOWN_SET = ECHO_SET.replace(b"\0\0\0\1\2\0\0\0\x30\0", b"\0\0\0\1\2\0\0\0\x77\7")
UNKNOWN_SET_WITH_DATA = UNKNOWN_SET.replace(b"\0\0\0\x08\2\0\0\0\1\1", b"\0\0\0\x08\2\0\0\0\1\0")
#: One without a Message ID (0000,0110).
NAMELESS_SET = ECHO_SET.replace(b"\0\0\x10\1\2\0\0\0\1\0", b"")
#: And one without a Command Field.
FIELDLESS_SET = ECHO_SET.replace(b"\0\0\0\1\2\0\0\0\x30\0", b"")


class Data(NamedTuple):
    """A data set, or what has come of it."""

    data: bytes
    last: bool = True


def joined(received: Iterable[DimseEvent]) -> list[DimseEvent | Data]:
    """Join the pieces of data sets."""
    out: list[DimseEvent | Data] = []
    for event in received:
        before = out[-1] if out else None
        if not isinstance(event, DataSetReceived):
            out.append(event)
        elif isinstance(before, Data) and not before.last:
            out[-1] = Data(before.data + bytes(event.data), event.last)
        else:
            out.append(Data(bytes(event.data), event.last))
    return out


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    return [stream[a:b] for a, b in pairwise([0, *sorted(places), len(stream)])]


def command(data: bytes, *, last: bool = True, context_id: int = 1) -> bytes:
    return pdv(data, command=True, last=last, context_id=context_id)


def fragments(data: bytes, size: int, *, is_command: bool = False, context_id: int = 1) -> bytes:
    """Give the PDUs of fragments of ``size`` bytes each."""
    starts = range(0, len(data), size)
    return b"".join(
        data_tf(
            pdv(data[start : start + size], command=is_command, last=start + size >= len(data), context_id=context_id)
        )
        for start in starts
    )


#: Name -> PDUs, and the events that they are.
STREAMS: dict[str, tuple[bytes, list[DimseEvent | Data]]] = {
    "a message without a data set": (data_tf(command(ECHO_SET)), [MessageReceived(1, ECHO, False)]),
    "on another context": (data_tf(command(ECHO_SET, context_id=3)), [MessageReceived(3, ECHO, False)]),
    "a message with a data set": (
        data_tf(command(STORE_SET)) + data_tf(pdv(b"data set", last=True)),
        [MessageReceived(1, STORE, True), Data(b"data set")],
    ),
    "command and data in one PDU": (
        data_tf(command(STORE_SET), pdv(b"data "), pdv(b"set", last=True)),
        [MessageReceived(1, STORE, True), Data(b"data set")],
    ),
    "a data set without a byte": (
        data_tf(command(STORE_SET), pdv(b"", last=True)),
        [MessageReceived(1, STORE, True), Data(b"")],
    ),
    "an empty last fragment": (
        data_tf(command(STORE_SET), pdv(b"data set")) + data_tf(pdv(b"", last=True)),
        [MessageReceived(1, STORE, True), Data(b"data set")],
    ),
    "empty fragments everywhere": (
        data_tf(
            command(b"", last=False),
            command(FIND_SET, last=False),
            command(b""),
            pdv(b""),
            pdv(b"ab"),
            pdv(b""),
            pdv(b"cd"),
            pdv(b"", last=True),
        ),
        [MessageReceived(1, FIND, True), Data(b"abcd")],
    ),
    "a command in fragments of a byte": (
        fragments(FIND_SET, 1, is_command=True) + fragments(b"identifier", 3),
        [MessageReceived(1, FIND, True), Data(b"identifier")],
    ),
    "an incomplete data set": (
        data_tf(command(STORE_SET), pdv(b"data")),
        [MessageReceived(1, STORE, True), Data(b"data", last=False)],
    ),
    "messages of two contexts, one after the other": (
        data_tf(command(STORE_SET), pdv(b"ab", last=True), command(STORE_SET, context_id=3))
        + data_tf(pdv(b"cd", last=True, context_id=3), command(ECHO_SET)),
        [
            MessageReceived(1, STORE, True),
            Data(b"ab"),
            MessageReceived(3, STORE, True),
            Data(b"cd"),
            MessageReceived(1, ECHO, False),
        ],
    ),
    "an unknown Command Field": (
        data_tf(command(UNKNOWN_SET), command(ECHO_SET)),
        [UnknownMessageReceived(1, 0x0777, 1, False), MessageReceived(1, ECHO, False)],
    ),
    "an unknown Command Field with a data set": (
        data_tf(command(UNKNOWN_SET_WITH_DATA), pdv(b"ab", last=True), command(ECHO_SET)),
        [UnknownMessageReceived(1, 0x0777, 1, True), Data(b"ab"), MessageReceived(1, ECHO, False)],
    ),
    "a C-CANCEL that announces a data set which does not follow": (
        data_tf(command(CANCEL_SET_WITH_DATA), command(ECHO_SET)),
        [MessageReceived(1, CANCEL, False), MessageReceived(1, ECHO, False)],
    ),
    "a C-CANCEL with a data set": (
        data_tf(command(CANCEL_SET_WITH_DATA), pdv(b"ab"), pdv(b"cd", last=True), command(ECHO_SET)),
        [MessageReceived(1, CANCEL, False), MessageReceived(1, ECHO, False)],
    ),
    "a release between two fragments": (
        data_tf(command(STORE_SET), pdv(b"ab")) + RELEASE_RQ,
        [MessageReceived(1, STORE, True), Data(b"ab", last=False), ReleaseIndication()],
    ),
    "an abort between two fragments": (
        data_tf(command(STORE_SET), pdv(b"ab")) + ABORT,
        [MessageReceived(1, STORE, True), Data(b"ab", last=False), AbortIndication(source=0, reason=0)],
    ),
}
streams = pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS)


@streams
@pytest.mark.parametrize("role", Role)
def test_messages_come_whole(stream: bytes, expected: list[DimseEvent | Data], role: Role) -> None:
    assert joined(messages(stacked(role), stream)) == expected


@streams
def test_messages_come_byte_by_byte(stream: bytes, expected: list[DimseEvent | Data]) -> None:
    core = stacked()
    received = [event for place in range(len(stream)) for event in messages(core, stream[place : place + 1])]
    assert joined(received) == expected


@streams
def test_messages_come_in_two_parts_split_anywhere(stream: bytes, expected: list[DimseEvent | Data]) -> None:
    for place in range(len(stream)):
        core = stacked()
        received = [event for chunk in cut(stream, [place]) for event in messages(core, chunk)]
        assert joined(received) == expected


def test_a_message_in_progress_is_told() -> None:
    core = stacked()
    stream = data_tf(command(STORE_SET[:8], last=False)) + data_tf(command(STORE_SET[8:])) + data_tf(pdv(b"ab"))
    stream += data_tf(pdv(b"cd", last=True))
    told = []
    for byte in cut(stream, range(1, len(stream))):
        messages(core, byte)
        told.append(core.mid_message)
    assert told == [True] * (len(stream) - 1) + [False]


def test_pieces_of_a_data_set_are_slices_of_what_was_received() -> None:
    core = stacked()
    chunk = data_tf(command(STORE_SET), pdv(b"ab")) + data_tf(pdv(b"cd", last=True))
    pieces = [event for event in messages(core, chunk) if isinstance(event, DataSetReceived)]
    assert [bytes(piece.data) for piece in pieces] == [b"ab", b"cd"]
    assert all(piece.data.obj is chunk for piece in pieces)


def test_fragments_of_nothing_are_no_events() -> None:
    core = stacked()
    stream = data_tf(command(STORE_SET), *[pdv(b"")] * 100, pdv(b"", last=True))
    assert messages(core, stream) == [MessageReceived(1, STORE, True), DataSetReceived(memoryview(b""), True)]


@pytest.mark.parametrize(
    ("before", "fragment"),
    [
        (data_tf(command(STORE_SET)), pdv(b"")),
        (data_tf(command(b"", last=False)), command(b"", last=False)),
        (data_tf(command(CANCEL_SET_WITH_DATA)), pdv(b"ab")),
        (data_tf(pdv(b"ab", context_id=9)), pdv(b"ab")),
    ],
    ids=["in a data set", "in a command set", "behind a C-CANCEL", "after our A-ABORT"],
)
def test_after_many_fragments_that_mean_nothing_there_is_a_pause(before: bytes, fragment: bytes) -> None:
    core = stacked()
    messages(core, before)
    core.upper_layer.receive_data(data_tf(*[fragment] * 1000))
    assert list(iter(core.next_event, None)) == [Pause()] * (1000 // PAUSE_AFTER)


def test_nothing_is_accepted_before_the_contexts_are_known() -> None:
    core = Dimse(associated(Role.ACCEPTOR))
    (event,) = messages(core, data_tf(command(ECHO_SET)))
    assert isinstance(event, ProviderAbort)
    with pytest.raises(LocalProtocolError, match="context 1 was not accepted"):
        core.send_message(1, ECHO)


# What a peer does wrong.


class Fault(NamedTuple):
    stream: bytes
    #: Source and reason of our A-ABORT.
    abort: tuple[int, int]
    message: str
    #: What comes before it.
    before: list[DimseEvent | Data]


USER = (0, 0)
UNEXPECTED = (2, AbortReason.UNEXPECTED_PARAMETER)
INVALID = (2, AbortReason.INVALID_VALUE)

FAULTS = {
    "an unknown context": Fault(
        data_tf(command(ECHO_SET, context_id=5)), INVALID, "presentation context 5 was not accepted", []
    ),
    "data on an unknown context": Fault(
        data_tf(pdv(b"ab", context_id=2)), INVALID, "presentation context 2 was not accepted", []
    ),
    "the context changes inside a command set": Fault(
        data_tf(command(STORE_SET[:9], last=False), command(STORE_SET[9:], context_id=3)),
        INVALID,
        "the context changed from 1 to 3 inside a command set",
        [],
    ),
    "the context changes inside a data set": Fault(
        data_tf(command(STORE_SET), pdv(b"ab"), pdv(b"cd", context_id=3)),
        INVALID,
        "the context changed from 1 to 3 inside a data set",
        [MessageReceived(1, STORE, True), Data(b"ab", last=False)],
    ),
    "the data set comes on another context": Fault(
        data_tf(command(STORE_SET), pdv(b"ab", context_id=3)),
        INVALID,
        "the context changed from 1 to 3 inside a data set",
        [MessageReceived(1, STORE, True)],
    ),
    "a data set first": Fault(
        data_tf(pdv(b"ab", last=True)), UNEXPECTED, "a data set fragment where a command is due", []
    ),
    "a data set that was not announced": Fault(
        data_tf(command(ECHO_SET), pdv(b"ab", last=True)),
        UNEXPECTED,
        "a data set fragment where a command is due",
        [MessageReceived(1, ECHO, False)],
    ),
    "more after the last fragment of a data set": Fault(
        data_tf(command(STORE_SET), pdv(b"ab", last=True), pdv(b"cd", last=True)),
        UNEXPECTED,
        "a data set fragment where a command is due",
        [MessageReceived(1, STORE, True), Data(b"ab")],
    ),
    "a data set inside a command set": Fault(
        data_tf(command(STORE_SET[:9], last=False), pdv(b"ab")),
        UNEXPECTED,
        "a data set fragment where a command is due",
        [],
    ),
    "a command inside a data set": Fault(
        data_tf(command(STORE_SET), pdv(b"ab"), command(ECHO_SET)),
        UNEXPECTED,
        "a command fragment inside a data set",
        [MessageReceived(1, STORE, True), Data(b"ab", last=False)],
    ),
    "a command of another context inside a data set": Fault(
        data_tf(command(STORE_SET), command(ECHO_SET, context_id=3)),
        UNEXPECTED,
        "a command fragment inside a data set",
        [MessageReceived(1, STORE, True)],
    ),
    "a command set over the limit in one fragment": Fault(
        data_tf(command(bytes(65_537))), USER, "a command set of more than 65536 bytes( or fragments)?", []
    ),
    "a command set over the limit in many": Fault(
        data_tf(command(bytes(40_000), last=False)) + data_tf(command(bytes(25_537), last=False)),
        USER,
        "a command set of more than 65536 bytes or fragments",
        [],
    ),
    "a command set of nothing without end": Fault(
        data_tf(*[command(b"", last=False)] * 65_537),
        USER,
        "a command set of more than 65536 bytes or fragments",
        [],
    ),
    "an empty command set": Fault(data_tf(command(b"")), USER, "invalid command set: command_field is missing", []),
    "random bytes": Fault(
        data_tf(command(random.Random(1).randbytes(100))),
        USER,
        r"invalid command set: \(.{9}\) is no command element",
        [],
    ),
    "no Command Field": Fault(
        data_tf(command(FIELDLESS_SET)), USER, "invalid command set: command_field is missing", []
    ),
    "no Message ID": Fault(
        data_tf(command(NAMELESS_SET)), USER, "invalid command set: message_id is missing from CEchoRQ", []
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("rest", [b"", data_tf(command(ECHO_SET)) * 3], ids=["alone", "and more"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_what_a_peer_does_wrong_aborts_the_association_once(fault: Fault, rest: bytes, split: bool) -> None:
    core = stacked()
    stream = fault.stream + rest
    received = [
        event for chunk in cut(stream, range(7, len(stream), 97) if split else []) for event in messages(core, chunk)
    ]
    *before, event = joined(received)
    assert before == fault.before
    source, reason = fault.abort
    assert isinstance(event, ProviderAbort)
    assert (event.source, event.reason) == (source, reason)
    assert re.fullmatch(fault.message, event.message)
    assert outgoing(core.upper_layer) == b"\7\0\0\0\0\4\0\0" + bytes((source, reason))
    assert core.upper_layer.state is State.STA13
    assert core.upper_layer.artim_running
    assert not core.mid_message


@pytest.mark.parametrize("excess", [0, 2])
@pytest.mark.parametrize("size", [1 << 20, 1000, 2])
def test_the_longest_command_set_that_is_allowed_is_read(excess: int, size: int) -> None:
    length = 65_536 + excess
    filler = bytes(length - len(ECHO_SET) - 8)
    echo = CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1", unknown=((0x1FFF, filler),))
    encoded = commands.encode(echo, has_data_set=False)
    assert len(encoded) == length
    (event,) = messages(stacked(), fragments(encoded, size, is_command=True))
    assert event == MessageReceived(1, echo, False) if excess == 0 else isinstance(event, ProviderAbort)


def test_the_limit_of_a_command_set_can_be_set() -> None:
    assert messages(stacked(command_set=len(ECHO_SET)), data_tf(command(ECHO_SET))) == [MessageReceived(1, ECHO, False)]
    (event,) = messages(stacked(command_set=len(ECHO_SET) - 1), data_tf(command(ECHO_SET)))
    assert isinstance(event, ProviderAbort)


def test_a_lost_transport_ends_a_message_in_progress() -> None:
    core = stacked()
    messages(core, data_tf(command(STORE_SET), pdv(b"ab"))[:-1])
    core.upper_layer.receive_eof()
    assert core.next_event() == TransportLost()
    assert core.next_event() is None


def test_messages_are_read_while_we_wait_for_the_release() -> None:
    core = stacked()
    core.upper_layer.release()
    assert joined(messages(core, data_tf(command(STORE_SET), pdv(b"ab", last=True)))) == [
        MessageReceived(1, STORE, True),
        Data(b"ab"),
    ]
    (event,) = messages(core, data_tf(pdv(b"ab")))
    assert isinstance(event, ProviderAbort)


# Sending.


def sent(core: Dimse) -> list[DimseEvent | Data]:
    """Read what a core has sent by another one."""
    return joined(messages(stacked(), outgoing(core.upper_layer)))


def test_a_message_is_sent_in_one_buffer_where_it_fits() -> None:
    core = stacked()
    core.send_message(1, STORE, b"data set")
    (buffer,) = core.upper_layer.data_to_send()
    assert bytes(buffer) == data_tf(command(STORE_SET)) + data_tf(pdv(b"data set", last=True))


@pytest.mark.parametrize("maximum", [0, 8, 9, 16_384, 131_072, 2**32 - 1])
@pytest.mark.parametrize("size", [None, 0, 2, 1000, 300_000])
def test_a_message_is_sent_whole(maximum: int, size: int | None) -> None:
    if maximum in (8, 9) and size == 300_000:
        size = 50_000  # in fragments of two bytes more than a buffer just the same
    core = stacked(maximum_length=maximum)
    data_set = None if size is None else random.Random(size).randbytes(size)
    core.send_message(3, STORE, data_set)
    assert not core.mid_send
    buffers = core.upper_layer.data_to_send()
    # Only a command set in fragments of two bytes is longer than the room that is left for it.
    assert all(len(buffer) <= SEND_SIZE + (COMMAND_SIZE if maximum in (8, 9) else 0) for buffer in buffers[:-1])
    assert len(buffers[-1]) <= SEND_SIZE + REST_SIZE + COMMAND_SIZE
    expected: list[DimseEvent | Data] = [MessageReceived(3, STORE, data_set is not None)]
    if data_set is not None:
        expected.append(Data(data_set))
    assert joined(messages(stacked(), b"".join(buffers))) == expected


def test_a_data_set_of_odd_length_is_padded() -> None:
    core = stacked()
    core.send_message(1, STORE, b"odd")
    assert sent(core) == [MessageReceived(1, STORE, True), Data(b"odd\0")]


def test_a_data_set_may_be_sent_buffer_by_buffer() -> None:
    core = stacked(maximum_length=16)
    prefix = core.begin_message(1, STORE, has_data_set=True)
    assert core.mid_send
    assert outgoing(core.upper_layer) == b""
    buffer, gaps = core.layout.place(1, 20, last=False, prefix=prefix)
    for gap in gaps:
        gap[:] = b"x" * len(gap)
    core.send_buffer(buffer, last=False)
    assert core.mid_send
    buffer, (gap,) = core.layout.place(1, 4, last=True)
    gap[:] = b"yyyy"
    core.send_buffer(buffer, last=True)
    assert not core.mid_send
    assert sent(core) == [MessageReceived(1, STORE, True), Data(b"x" * 20 + b"yyyy")]


def test_a_message_without_a_data_set_is_complete_at_once() -> None:
    core = stacked()
    core.begin_message(1, ECHO, has_data_set=False)
    assert not core.mid_send
    assert sent(core) == [MessageReceived(1, ECHO, False)]


def test_a_message_of_which_nothing_was_sent_can_be_abandoned() -> None:
    core = stacked()
    core.begin_message(1, STORE, has_data_set=True)
    core.abandon_message()
    core.send_message(1, ECHO)
    assert sent(core) == [MessageReceived(1, ECHO, False)]


def begun(core: Dimse) -> None:
    core.begin_message(1, STORE, has_data_set=True)


def released(core: Dimse) -> None:
    core.upper_layer.release()


def aborted(core: Dimse) -> None:
    core.upper_layer.abort()


def lost(core: Dimse) -> None:
    core.upper_layer.receive_eof()
    core.next_event()


def ready(core: Dimse) -> None:
    pass


MISUSE: dict[str, tuple[Callable[[Dimse], None], Callable[[Dimse], object], str]] = {
    "a message inside another": (begun, lambda core: core.send_message(1, ECHO), "cannot be interleaved"),
    "a message with a data set inside another": (
        begun,
        lambda core: core.send_message(3, STORE, b"ab"),
        "cannot be interleaved",
    ),
    "two messages begun": (
        begun,
        lambda core: core.begin_message(1, STORE, has_data_set=True),
        "cannot be interleaved",
    ),
    "a buffer without a message": (ready, lambda core: core.send_buffer(b"", last=True), "no message is being sent"),
    "a context that was not accepted": (
        ready,
        lambda core: core.send_message(5, STORE, b"ab"),
        "presentation context 5 was not accepted",
    ),
    "a value that cannot be encoded": (
        ready,
        lambda core: core.send_message(1, CEchoRQ(message_id=65_536, affected_sop_class_uid="1.2"), b"ab"),
        "no encodable value",
    ),
    "a message after our release": (
        released,
        lambda core: core.send_message(1, ECHO),
        "P-DATA request is not possible in state Sta7",
    ),
    "a message with a data set after our release": (
        released,
        lambda core: core.send_message(1, STORE, b"ab"),
        "not possible in state Sta7",
    ),
    "a message begun after our release": (
        released,
        lambda core: core.begin_message(1, STORE, has_data_set=True),
        "not possible in state Sta7",
    ),
    "a message after our abort": (aborted, lambda core: core.send_message(1, ECHO), "not possible in state Sta13"),
    "a message after the end": (lost, lambda core: core.send_message(1, STORE, b""), "not possible in state Sta1"),
}


@pytest.mark.parametrize(("prepare", "misuse", "message"), MISUSE.values(), ids=MISUSE)
def test_local_misuse_is_refused_and_changes_nothing(
    prepare: Callable[[Dimse], None], misuse: Callable[[Dimse], object], message: str
) -> None:
    core = stacked()
    prepare(core)
    outgoing(core.upper_layer)
    before = (core.upper_layer.state, core.mid_send)
    with pytest.raises(LocalProtocolError, match=message):
        misuse(core)
    assert (core.upper_layer.state, core.mid_send) == before
    assert outgoing(core.upper_layer) == b""
    assert core.next_event() is None


def test_responses_may_be_sent_until_we_agree_to_the_release() -> None:
    core = stacked()
    messages(core, RELEASE_RQ)
    core.send_message(1, CEchoRSP(message_id_being_responded_to=1, status=0))
    core.upper_layer.confirm_release()
    with pytest.raises(LocalProtocolError):
        core.send_message(1, ECHO)


# Properties.

UIDS = st.text("0123456789.", min_size=1, max_size=64).filter(lambda uid: uid.strip())
IDS = st.integers(0, 0xFFFF)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(CEchoRQ, message_id=IDS, affected_sop_class_uid=UIDS),
    st.builds(CEchoRSP, message_id_being_responded_to=IDS, status=IDS),
    st.builds(
        CStoreRQ,
        message_id=IDS,
        affected_sop_class_uid=UIDS,
        affected_sop_instance_uid=UIDS,
        priority=st.integers(0, 2),
    ),
    st.builds(CStoreRSP, message_id_being_responded_to=IDS, status=IDS, affected_sop_instance_uid=UIDS),
    st.builds(CFindRQ, message_id=IDS, affected_sop_class_uid=UIDS, priority=IDS),
    st.builds(CFindRSP, message_id_being_responded_to=IDS, status=IDS),
    st.builds(CCancelRQ, message_id_being_responded_to=IDS),
    st.builds(
        NActionRQ, message_id=IDS, requested_sop_class_uid=UIDS, requested_sop_instance_uid=UIDS, action_type_id=IDS
    ),
    st.builds(NGetRSP, message_id_being_responded_to=IDS, status=IDS),
)


class Exchange(NamedTuple):
    by_requestor: bool
    context_id: int
    message: Message
    data_set: bytes | None
    in_buffers: bool


EXCHANGES = st.builds(
    Exchange,
    by_requestor=st.booleans(),
    context_id=st.sampled_from([1, 3]),
    message=MESSAGES,
    data_set=st.none() | st.binary(max_size=200).map(lambda data: data + b" " * (len(data) % 2)),
    in_buffers=st.booleans(),
)


def send(core: Dimse, exchange: Exchange) -> None:
    _, context_id, message, data_set, in_buffers = exchange
    if data_set is None or not in_buffers:
        core.send_message(context_id, message, data_set)
        return
    layout = core.layout
    prefix = core.begin_message(context_id, message, has_data_set=True)
    step = layout.payload
    for start in range(0, len(data_set) or 1, step):
        last = start + step >= len(data_set)
        buffer, gaps = layout.place(context_id, min(step, len(data_set) - start), last=last, prefix=prefix)
        for gap in gaps:
            gap[:] = data_set[start : start + len(gap)]
        core.send_buffer(buffer, last=last)
        prefix = b""


@given(
    st.lists(EXCHANGES, max_size=6),
    st.sampled_from([0, 8, 9, 20, 101, 16_384]),
    st.sampled_from([0, 8, 9, 20, 101, 16_384]),
    st.randoms(use_true_random=False),
)
def test_two_cores_deliver_what_was_sent(
    exchanges: list[Exchange], requestors: int, acceptors: int, chosen: random.Random
) -> None:
    first, second = map(Dimse, pair())
    first.establish({1, 3}, acceptors)
    second.establish({1, 3}, requestors)
    for by_requestor, sender, receiver in ((True, first, second), (False, second, first)):
        expected: list[DimseEvent | Data] = []
        for exchange in exchanges:
            if exchange.by_requestor is by_requestor:
                send(sender, exchange)
                # The data set of a C-CANCEL is skipped.
                has_data_set = exchange.data_set is not None and not isinstance(exchange.message, CCancelRQ)
                expected.append(MessageReceived(exchange.context_id, exchange.message, has_data_set))
                if has_data_set:
                    assert exchange.data_set is not None
                    expected.append(Data(exchange.data_set))
        stream = outgoing(sender.upper_layer)
        places = [chosen.randrange(len(stream) + 1) for _ in range(chosen.randrange(20))]
        received = [event for chunk in cut(stream, places) for event in messages(receiver, chunk)]
        assert joined(received) == expected
        assert not receiver.mid_message


JUNK = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda data: data_tf(command(data))),
    st.binary(max_size=60).map(lambda data: data_tf(command(data, last=False))),
    st.binary(max_size=60).map(lambda data: data_tf(pdv(data))),
    st.sampled_from([stream for stream, _ in STREAMS.values()]),
    st.tuples(st.sampled_from([ECHO_SET, STORE_SET]), st.integers(0, 90), st.integers(0, 255)).map(
        lambda case: data_tf(command(case[0][: case[1]] + bytes([case[2]]) + case[0][case[1] + 1 :]))
    ),
)


@given(st.lists(JUNK, max_size=6), st.sampled_from(Role))
def test_no_bytes_make_the_core_raise(chunks: list[bytes], role: Role) -> None:
    core = stacked(role)
    for chunk in chunks:
        messages(core, chunk)
    core.upper_layer.receive_eof()
    while core.next_event() is not None:
        pass
    assert core.upper_layer.state is State.STA1
    assert core.upper_layer.should_close


def test_no_bytes_make_a_core_raise_that_is_not_associated() -> None:
    core = Dimse(acceptor())
    core.upper_layer.transport_connected()
    assert receive(core.upper_layer, b"") == []
    (event,) = messages(core, data_tf(command(ECHO_SET)))
    assert isinstance(event, ProviderAbort)


def calls_in_protocol(stream: bytes, chunk: int) -> int:
    """Count the functions of the protocol package that are entered to read a stream in chunks."""
    count = 0
    package = commands.__file__.rpartition("commands")[0]

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(package)

    core = stacked()
    chunks = [stream[start : start + chunk] for start in range(0, len(stream), chunk)]
    sys.setprofile(profile)
    try:
        for data in chunks:
            messages(core, data)
    finally:
        sys.setprofile(None)
    assert outgoing(core.upper_layer) == b""
    return count


@pytest.mark.parametrize("chunk", [1 << 18, 1000, 100])
@pytest.mark.parametrize("size", [0, 2])
def test_the_work_for_tiny_pdus_grows_as_their_number_does(size: int, chunk: int) -> None:
    start = data_tf(command(STORE_SET))
    few = calls_in_protocol(start + data_tf(pdv(bytes(size))) * 2_000, chunk)
    many = calls_in_protocol(start + data_tf(pdv(bytes(size))) * 8_000, chunk)
    assert many < 4.1 * few
    assert many < 8_000 * 5 + 100
