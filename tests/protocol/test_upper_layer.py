"""The interpreter of Table 9-10: every cell by public calls only, and what the tables leave to us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.exceptions import LocalProtocolError
from asyncdicom.protocol import pdu
from asyncdicom.protocol.framing import Fragment
from asyncdicom.protocol.pdu import AbortReason
from asyncdicom.protocol.states import State
from asyncdicom.protocol.upper_layer import (
    AbortIndication,
    AssociateConfirmation,
    AssociateIndication,
    AssociateRejection,
    ProviderAbort,
    ReleaseConfirmation,
    ReleaseIndication,
    Role,
    TransportLost,
    UpperLayer,
    UpperLayerEvent,
)

from .cores import (
    AC,
    RJ,
    RQ,
    acceptor,
    associated,
    data_tf,
    events,
    outgoing,
    pair,
    pdu_bytes,
    pdv,
    receive,
    requestor,
    transfer,
)
from .table_9_10 import EFFECTS, EXPECTED, Effect

R, A = Role.REQUESTOR, Role.ACCEPTOR

RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"
RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"
DATA = data_tf(pdv(b"abcd", last=True))
#: A-RELEASE-RQ of a wrong length; its type is one of DICOM's, so that it is no other protocol in Sta2.
INVALID = b"\5\0\0\0\0\5\0\0\0\0\0"

#: An A-ASSOCIATE-AC that is framed well and whose last item runs past its end.
BROKEN_AC = pdu_bytes(2, pdu.encode(AC)[6:-1])


def abort_bytes(source: int, reason: int) -> bytes:
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


# Ways into each state.


def in_sta2() -> UpperLayer:
    core = acceptor()
    core.transport_connected()
    return core


def in_sta3() -> UpperLayer:
    core = in_sta2()
    receive(core, pdu.encode(RQ))
    return core


def in_sta4() -> UpperLayer:
    core = requestor()
    core.associate(RQ)
    return core


def in_sta5() -> UpperLayer:
    core = in_sta4()
    core.transport_connected()
    return core


def in_sta7(role: Role) -> UpperLayer:
    core = associated(role)
    core.release()
    return core


def in_sta8(role: Role) -> UpperLayer:
    core = associated(role)
    receive(core, RELEASE_RQ)
    return core


def in_collision(role: Role) -> UpperLayer:
    """Sta9 or Sta10."""
    core = in_sta7(role)
    receive(core, RELEASE_RQ)
    return core


def in_sta11() -> UpperLayer:
    core = in_collision(R)
    core.confirm_release()
    return core


def in_sta12() -> UpperLayer:
    core = in_collision(A)
    receive(core, RELEASE_RP)
    return core


def after_abort(role: Role) -> UpperLayer:
    core = associated(role)
    core.abort()
    return core


def after_reject() -> UpperLayer:
    core = in_sta3()
    core.reject(RJ)
    return core


def after_release(role: Role) -> UpperLayer:
    core = in_sta8(role)
    core.confirm_release()
    return core


def after_provider_abort(role: Role) -> UpperLayer:
    core = associated(role)
    receive(core, RELEASE_RP)
    return core


class Way(NamedTuple):
    state: int
    make: Callable[[], UpperLayer]
    name: str


WAYS = [
    Way(1, requestor, "requestor"),
    Way(1, acceptor, "acceptor"),
    Way(2, in_sta2, "connected"),
    Way(3, in_sta3, "requested"),
    Way(4, in_sta4, "connecting"),
    Way(5, in_sta5, "requesting"),
    Way(6, lambda: associated(R), "requestor"),
    Way(6, lambda: associated(A), "acceptor"),
    Way(7, lambda: in_sta7(R), "requestor"),
    Way(7, lambda: in_sta7(A), "acceptor"),
    Way(8, lambda: in_sta8(R), "requestor"),
    Way(8, lambda: in_sta8(A), "acceptor"),
    Way(9, lambda: in_collision(R), "collision"),
    Way(10, lambda: in_collision(A), "collision"),
    Way(11, in_sta11, "collision"),
    Way(12, in_sta12, "collision"),
    Way(13, lambda: after_abort(R), "requestor aborted"),
    Way(13, lambda: after_abort(A), "acceptor aborted"),
    Way(13, after_reject, "rejected"),
    Way(13, lambda: after_release(R), "requestor released"),
    Way(13, lambda: after_release(A), "acceptor released"),
    Way(13, lambda: after_provider_abort(R), "requestor's peer failed"),
    Way(13, lambda: after_provider_abort(A), "acceptor's peer failed"),
]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: f"Sta{way.state}-{way.name}")

#: The events of the local user and of the transport, each a public call.
LOCAL: dict[int, Callable[[UpperLayer], None]] = {
    1: lambda core: core.associate(RQ),
    2: UpperLayer.transport_connected,
    5: UpperLayer.transport_connected,
    7: lambda core: core.accept(AC),
    8: lambda core: core.reject(RJ),
    9: lambda core: core.send_data(DATA),
    11: UpperLayer.release,
    14: UpperLayer.confirm_release,
    15: UpperLayer.abort,
}

#: The events of the peer, each a PDU.
REMOTE = {
    3: pdu.encode(AC),
    4: pdu.encode(RJ),
    6: pdu.encode(RQ),
    10: DATA,
    12: RELEASE_RQ,
    13: RELEASE_RP,
    16: abort_bytes(2, 3),
    19: INVALID,
}

SENT = {
    None: b"",
    "ASSOCIATE_RQ": pdu.encode(RQ),
    "ASSOCIATE_AC": pdu.encode(AC),
    "ASSOCIATE_RJ": pdu.encode(RJ),
    "DATA": DATA,
    "RELEASE_RQ": RELEASE_RQ,
    "RELEASE_RP": RELEASE_RP,
    "ABORT_USER": abort_bytes(0, 0),
}


def apply(core: UpperLayer, event: int) -> None:
    if event in LOCAL:
        LOCAL[event](core)
    elif event in REMOTE:
        core.receive_data(REMOTE[event])
    elif event == 17:
        core.receive_eof()
    else:
        core.artim_expired()


def indication(name: str | None, state: int, event: int) -> list[UpperLayerEvent]:
    """Give the events that an indication of the table is expected to be."""
    match name:
        case None:
            return []
        case "ASSOCIATE":
            return [AssociateIndication(request=RQ)]
        case "ACCEPTED":
            return [AssociateConfirmation(accept=AC)]
        case "REJECTED":
            return [AssociateRejection(reject=RJ)]
        case "DATA":
            return [Fragment(1, False, True, memoryview(b"abcd"))]
        case "RELEASE":
            return [ReleaseIndication(collision=state == 7)]
        case "RELEASED":
            return [ReleaseConfirmation()]
        case "ABORTED":
            return [AbortIndication(source=2, reason=3)]
        case "TRANSPORT_LOST":
            return [TransportLost()]
        case _:
            assert name == "PROVIDER_ABORT"
            return [ProviderAbort(source=2, reason=6 if event == 19 else 2, message=fault(state, event))]


def fault(state: int, event: int) -> str:
    names = {3: "A-ASSOCIATE-AC", 4: "A-ASSOCIATE-RJ", 6: "A-ASSOCIATE-RQ", 10: "P-DATA-TF"}
    names |= {12: "A-RELEASE-RQ", 13: "A-RELEASE-RP"}
    return "PDU type 0x05 of 5 bytes instead of 4" if event == 19 else f"{names[event]} PDU in state Sta{state}"


def cells() -> Iterator[tuple[Way, int]]:
    for way in WAYS:
        other = 5 if way.make().role is R else 2  # transport_connected() is one event for each role
        for event in range(1, 20):
            if event != other:
                yield way, event


@ways
def test_each_state_is_reached_by_public_calls(way: Way) -> None:
    core = way.make()
    assert core.state == way.state
    assert core.artim_running is (way.state in (2, 13))
    assert not core.should_close


@pytest.mark.parametrize(
    ("way", "event"), [pytest.param(*cell, id=f"Sta{cell[0].state}-{cell[0].name}-Evt{cell[1]}") for cell in cells()]
)
def test_each_cell_of_the_table_does_what_its_action_says(way: Way, event: int) -> None:
    core = way.make()
    outgoing(core)
    state, role = way.state, core.role
    running, serial = core.artim_running, core.artim_serial
    cell = EXPECTED.get((event, state))
    if event == 1 and role is A:
        cell = None  # an acceptor cannot ask
    if cell is None:
        effect, following = Effect(), state
        if event in LOCAL:
            with pytest.raises(LocalProtocolError):
                apply(core, event)
        else:
            apply(core, event)
    else:
        action, (*_, last) = cell
        effect = EFFECTS[action]
        following = last if action == "AR-8" and role is A else cell[1][0]
        apply(core, event)
    expected = indication(effect.indicates, state, event)
    if cell is not None and cell[0] == "AA-1" and event != 15:
        expected = [ProviderAbort(source=0, reason=0, message=fault(state, event))]
    assert events(core) == expected
    assert core.state == following
    if effect.sends == "ABORT_PROVIDER":
        assert outgoing(core) == abort_bytes(2, 6 if event == 19 else 2)
    else:
        assert outgoing(core) == SENT[effect.sends]
    assert core.artim_running is {"START": True, "STOP": False, None: running}[effect.artim]
    assert core.artim_serial == serial + (effect.artim == "START")
    assert core.should_close is (effect.closes or (event == 17 and state != 1))
    assert events(core) == []
    assert outgoing(core) == b""


@ways
def test_abort_is_possible_where_the_table_has_a_cell_for_it(way: Way) -> None:
    assert way.make().can_abort is ((15, way.state) in EXPECTED)


# What the tables leave to the implementation.


@pytest.mark.parametrize("version", [0, 2, 0xFFFE])
def test_a_request_for_another_protocol_version_is_rejected_by_the_provider(version: int) -> None:
    core = in_sta2()
    serial = core.artim_serial
    assert receive(core, pdu.encode(replace(RQ, protocol_version=version))) == []
    assert outgoing(core) == b"\3\0\0\0\0\4\0\1\2\2"
    assert core.state is State.STA13
    assert core.artim_running
    assert core.artim_serial == serial + 1
    assert not core.should_close


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_only_bit_0_of_the_protocol_version_counts(version: int) -> None:
    request = replace(RQ, protocol_version=version)
    assert receive(in_sta2(), pdu.encode(request)) == [AssociateIndication(request=request)]


LONG = "seventeen letters"


@pytest.mark.parametrize(
    ("make", "primitive"),
    [
        (requestor, lambda core: core.associate(replace(RQ, called_ae_title=LONG))),
        (in_sta3, lambda core: core.accept(replace(AC, called_ae_title=LONG))),
    ],
    ids=["associate", "accept"],
)
def test_a_pdu_that_cannot_be_encoded_changes_nothing(
    make: Callable[[], UpperLayer], primitive: Callable[[UpperLayer], None]
) -> None:
    core = make()
    state = core.state
    with pytest.raises(LocalProtocolError, match="AE title"):
        primitive(core)
    assert core.state is state
    assert outgoing(core) == b""
    assert events(core) == []


def test_a_failed_connection_attempt_ends_the_machine() -> None:
    core = in_sta4()
    core.receive_eof()
    assert events(core) == [TransportLost()]
    assert core.state is State.STA1
    assert core.should_close


def ended_by_peer() -> UpperLayer:
    core = associated(R)
    receive(core, abort_bytes(0, 0))
    return core


def ended_by_loss(role: Role) -> UpperLayer:
    core = associated(role)
    core.receive_eof()
    events(core)
    return core


@pytest.mark.parametrize(
    "core",
    [ended_by_peer(), ended_by_loss(R), ended_by_loss(A)],
    ids=["aborted", "requestor lost", "acceptor lost"],
)
def test_a_machine_serves_one_transport_connection(core: UpperLayer) -> None:
    assert core.state is State.STA1
    for call in LOCAL.values():
        with pytest.raises(LocalProtocolError):
            call(core)
    for data in REMOTE.values():
        assert receive(core, data) == []
    core.receive_eof()
    core.artim_expired()
    core.protocol_error(AbortReason.INVALID_VALUE, "late")
    assert events(core) == []
    assert outgoing(core) == b""
    assert core.state is State.STA1
    assert core.should_close
    assert not core.artim_running
    assert not core.mid_pdu


def test_artim_expiry_without_a_running_timer_is_ignored() -> None:
    core = associated(A)
    core.artim_expired()
    assert core.state is State.STA6
    assert not core.should_close


def test_the_buffers_to_send_are_handed_out_once() -> None:
    core = associated(R)
    kept = core.data_to_send()
    core.release()
    assert kept == []
    assert core.data_to_send() == [RELEASE_RQ]
    assert core.data_to_send() == []


def test_data_to_send_are_the_very_buffers_in_order() -> None:
    core = associated(R)
    first, second = bytearray(DATA), bytes(DATA)
    core.send_data(first)
    core.send_data(second)
    core.release()
    given_out = core.data_to_send()
    assert given_out[0] is first
    assert given_out[1] is second
    assert given_out[2] == RELEASE_RQ


# Sta13 (conformance: AA-2, AA-6, AA-7).


@pytest.mark.parametrize("role", Role)
def test_the_second_fault_is_answered_and_everything_after_it_is_discarded(role: Role) -> None:
    core = after_abort(role)
    outgoing(core)
    assert receive(core, DATA + RELEASE_RQ + RELEASE_RP + pdu.encode(AC) + pdu.encode(RJ)) == []
    assert outgoing(core) == b""
    assert receive(core, pdu.encode(RQ)) == []
    assert outgoing(core) == abort_bytes(2, 2)
    for data in (pdu.encode(RQ), INVALID, bytes(1000), abort_bytes(0, 0)):
        assert receive(core, data) == []
        core.protocol_error(AbortReason.INVALID_VALUE, "once more")
        assert outgoing(core) == b""
        assert core.state is State.STA13
    assert not core.mid_pdu
    core.receive_eof()
    assert events(core) == []
    assert core.state is State.STA1
    assert core.should_close


@pytest.mark.parametrize("data", [INVALID, BROKEN_AC], ids=["framing", "content"])
def test_an_invalid_pdu_in_sta13_is_answered_once(data: bytes) -> None:
    core = after_abort(A)
    outgoing(core)
    assert receive(core, data * 3) == []
    assert outgoing(core) == abort_bytes(2, 6)
    assert core.state is State.STA13


def test_an_abort_is_heard_after_a_pdu_of_invalid_content() -> None:
    core = in_sta5()
    outgoing(core)
    (event,) = receive(core, BROKEN_AC)
    assert isinstance(event, ProviderAbort)
    assert outgoing(core) == abort_bytes(2, 6)
    assert receive(core, abort_bytes(0, 0)) == []
    assert core.should_close


def test_bytes_after_the_framing_is_lost_are_not_kept() -> None:
    core = associated(A)
    (event,) = receive(core, INVALID)
    assert isinstance(event, ProviderAbort)
    for _ in range(3):
        core.receive_data(bytes(1000))
    assert not core.mid_pdu
    assert events(core) == []


# Other protocols.


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP"),
        (b"G", "HTTP"),
        (b"POST /", "HTTP"),
        (b"HEAD /", "HTTP"),
        (b"PUT /a", "HTTP"),
        (b"OPTIONS", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"\x00", "not DICOM"),
        (b"\x08\0\0\0\0\4\0\0\0\0", "not DICOM"),
        (b"\xff", "not DICOM"),
    ],
)
def test_another_protocol_is_answered_and_closed_at_once(start: bytes, name: str) -> None:
    core = in_sta2()
    message = f"first octet {start[0]:#04x} is no PDU type ({name})"
    assert receive(core, start) == [ProviderAbort(source=0, reason=0, message=message)]
    assert outgoing(core) == abort_bytes(0, 0)
    assert core.state is State.STA1
    assert core.should_close
    assert not core.artim_running
    assert receive(core, pdu.encode(RQ)) == []


def test_a_requestor_names_the_other_protocol_and_waits_for_the_close() -> None:
    core = in_sta5()
    outgoing(core)
    message = "first octet 0x53 is no PDU type (SSH)"
    assert receive(core, b"SSH-2.0-x\r\n") == [ProviderAbort(source=2, reason=1, message=message)]
    assert outgoing(core) == abort_bytes(2, 1)
    assert core.state is State.STA13
    assert not core.should_close


@pytest.mark.parametrize("first", [DATA, RELEASE_RQ, pdu.encode(RQ), data_tf(pdv(b"ab"), pdv(b"", last=True))])
def test_octets_that_are_no_pdu_type_after_the_first_pdu_are_an_invalid_pdu(first: bytes) -> None:
    core = in_sta2()
    receive(core, first)
    outgoing(core)
    assert all("0x47" in event.message for event in receive(core, b"GET ") if isinstance(event, ProviderAbort))
    assert core.state is State.STA13
    assert not core.should_close
    assert outgoing(core) == abort_bytes(2, 1)


# The end of the transport.


@ways
@pytest.mark.parametrize("size", [1, 5, 6, 11, 12, 14])
def test_the_transport_may_end_inside_a_pdu(way: Way, size: int) -> None:
    core = way.make()
    core.receive_data(DATA[:size])
    core.receive_eof()
    events(core)
    assert core.state is State.STA1
    assert core.should_close is (way.state != 1)
    assert not core.artim_running
    assert events(core) == []


def test_what_was_received_before_the_end_is_still_delivered() -> None:
    core = associated(A)
    core.receive_data(DATA + RELEASE_RQ)
    core.receive_eof()
    assert core.next_event() == Fragment(1, False, True, memoryview(b"abcd"))
    assert core.next_event() == ReleaseIndication()
    core.confirm_release()
    assert core.next_event() is None
    assert core.state is State.STA1
    assert core.should_close


def test_nothing_is_parsed_before_it_is_asked_for() -> None:
    core = in_sta2()
    core.receive_data(INVALID)
    assert (core.state, outgoing(core)) == (State.STA2, b"")
    core.next_event()
    assert (core.state, outgoing(core)) == (State.STA13, abort_bytes(0, 0))


@pytest.mark.parametrize("role", [R, A])
def test_a_core_knows_that_it_has_nothing_to_say_without_being_asked(role: Role) -> None:
    core = associated(role)
    assert core.next_event() is None
    assert core.idle
    core.receive_data(DATA + DATA)
    seen: list[UpperLayerEvent | None] = []
    while not core.idle:
        seen.append(core.next_event())
    assert [type(event) for event in seen] == [Fragment, Fragment]
    core.receive_data(DATA[:9])
    assert not core.idle
    assert core.next_event() is None
    assert core.idle
    core.receive_data(DATA[9:])
    core.receive_eof()
    assert isinstance(core.next_event(), Fragment)
    assert not core.idle
    assert isinstance(core.next_event(), TransportLost)
    assert core.next_event() is None
    assert core.idle


@pytest.mark.parametrize(
    "happens",
    [
        lambda core: core.protocol_error(AbortReason.UNEXPECTED_PARAMETER, "a command inside a data set"),
        UpperLayer.receive_eof,
    ],
)
def test_what_happens_elsewhere_is_something_to_say(happens: Callable[[UpperLayer], None]) -> None:
    core = associated(R)
    assert core.idle
    happens(core)
    assert not core.idle
    assert core.next_event() is not None


def test_a_connection_that_says_nothing_ends_without_an_event() -> None:
    core = in_sta2()
    core.receive_eof()
    assert events(core) == []
    assert outgoing(core) == b""
    assert core.should_close


# Two cores back to back.


def test_an_association_is_established_used_and_released() -> None:
    first, second = requestor(), acceptor()
    first.associate(RQ)
    assert outgoing(first) == b""
    first.transport_connected()
    second.transport_connected()
    assert transfer(first, second) == [AssociateIndication(request=RQ)]
    assert not second.artim_running
    second.accept(AC)
    assert transfer(second, first) == [AssociateConfirmation(accept=AC)]
    first.send_data(DATA)
    assert transfer(first, second) == [Fragment(1, False, True, memoryview(b"abcd"))]
    second.release()
    second_says = outgoing(second)
    first.send_data(DATA)
    assert transfer(first, second) == [Fragment(1, False, True, memoryview(b"abcd"))]  # AR-6
    assert receive(first, second_says) == [ReleaseIndication()]
    first.send_data(DATA)
    assert transfer(first, second) == [Fragment(1, False, True, memoryview(b"abcd"))]  # AR-7
    first.confirm_release()
    assert first.artim_running
    assert transfer(first, second) == [ReleaseConfirmation()]
    assert second.should_close
    first.receive_eof()
    assert events(first) == []
    assert first.should_close
    assert (first.state, second.state) == (State.STA1, State.STA1)


def test_an_association_is_rejected() -> None:
    first, second = requestor(), acceptor()
    first.associate(RQ)
    first.transport_connected()
    second.transport_connected()
    transfer(first, second)
    second.reject(RJ)
    assert second.artim_running
    assert transfer(second, first) == [AssociateRejection(reject=RJ)]
    assert first.should_close
    second.receive_eof()
    assert events(second) == []
    assert second.should_close


@pytest.mark.parametrize("requestor_first", [True, False])
def test_a_release_collision_ends_in_both_roles(requestor_first: bool) -> None:
    first, second = pair()
    first.release()
    second.release()
    crossing, back = outgoing(first), outgoing(second)
    for core, data in ((first, back), (second, crossing)) if requestor_first else ((second, crossing), (first, back)):
        assert receive(core, data) == [ReleaseIndication(collision=True)]
    assert (first.state, second.state) == (State.STA9, State.STA10)
    with pytest.raises(LocalProtocolError):
        second.confirm_release()  # the acceptor waits for the requestor's answer
    first.confirm_release()
    assert transfer(first, second) == [ReleaseConfirmation()]
    assert (first.state, second.state) == (State.STA11, State.STA12)
    second.confirm_release()
    assert (second.state, second.artim_running) == (State.STA13, True)
    assert transfer(second, first) == [ReleaseConfirmation()]
    assert first.should_close
    second.receive_eof()
    assert events(second) == []
    assert (first.state, second.state) == (State.STA1, State.STA1)


def test_aborts_that_cross_each_other_close_both_sides() -> None:
    first, second = pair()
    first.abort()
    second.abort()
    crossing = outgoing(first)
    assert transfer(second, first) == []
    assert receive(second, crossing) == []
    assert first.should_close
    assert second.should_close


def test_an_abort_inside_a_p_data_tf_pdu_is_part_of_its_payload() -> None:
    core = associated(A)
    fragments = receive(core, data_tf(pdv(abort_bytes(0, 0) * 2))[:22])
    assert b"".join(event.data for event in fragments if isinstance(event, Fragment)) == abort_bytes(0, 0)
    assert core.mid_pdu


def test_a_fragment_that_is_still_coming_is_ignored_after_our_abort() -> None:
    core = associated(A)
    stream = data_tf(pdv(bytes(100), last=True)) + abort_bytes(0, 0)
    assert len(receive(core, stream[:50])) == 1
    core.abort()
    assert receive(core, stream[50:]) == []
    assert core.should_close


def test_a_protocol_error_found_above_is_answered_like_an_invalid_pdu() -> None:
    core = associated(R)
    core.protocol_error(AbortReason.UNEXPECTED_PARAMETER, "a command inside a data set")
    assert events(core) == [ProviderAbort(source=2, reason=5, message="a command inside a data set")]
    assert outgoing(core) == abort_bytes(2, 5)
    assert core.state is State.STA13
    assert core.artim_running


@given(st.sampled_from(WAYS), st.lists(st.binary(max_size=40) | st.sampled_from(list(REMOTE.values())), max_size=8))
def test_nothing_that_a_peer_sends_raises(way: Way, chunks: list[bytes]) -> None:
    core = way.make()
    for chunk in chunks:
        receive(core, chunk)
    aborts = outgoing(core).count(abort_bytes(2, 2)[:6])
    assert aborts <= 3  # our own at most, the first fault's, and that of Sta13
    core.receive_eof()
    events(core)
    assert core.state is State.STA1
