"""Codec, framing and negotiation, without any network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from asyncdicom import sop
from asyncdicom.protocol import commands, negotiation, pdu, recurring
from asyncdicom.protocol.dimse import DataSetReceived, Dimse, MessageReceived
from asyncdicom.protocol.framing import Layout
from asyncdicom.protocol.upper_layer import Role, UpperLayer

from .. import material
from ..bench import Bench, Contender, Sample, Scenario, has_module

__all__ = ["SCENARIOS"]

_MIB = 1 << 20
_CHUNK = 262_144
_PDU = 131_072


def _timed(bench: Bench, function: Callable[[], object]) -> Sample:
    """Call a function often enough, and take the time of one call."""
    function()
    span = 0.02 if bench.quick else 0.2
    number, seconds = 1, 0.0
    while True:
        begun = time.perf_counter()
        for _ in range(number):
            function()
        seconds = time.perf_counter() - begun
        if seconds >= span:
            return Sample(seconds=seconds / number)
        number = max(number * 2, int(number * span / max(seconds, 1e-9)))


# What is encoded and decoded.

_STORE_RQ = commands.CStoreRQ(
    message_id=7,
    affected_sop_class_uid=material.CT_IMAGE_STORAGE,
    affected_sop_instance_uid=material.uid(1),
    priority=0,
)
_STORE_RSP = commands.CStoreRSP(
    message_id_being_responded_to=7,
    affected_sop_class_uid=material.CT_IMAGE_STORAGE,
    affected_sop_instance_uid=material.uid(1),
    status=0,
)
_FIND_RSP = commands.CFindRSP(
    message_id_being_responded_to=7, affected_sop_class_uid=str(sop.STUDY_ROOT_FIND), status=0xFF00
)


def _command_sets() -> Iterator[tuple[str, Callable[[], object]]]:
    for name, message, has_data_set in (
        ("C-STORE-RQ", _STORE_RQ, True),
        ("C-STORE-RSP", _STORE_RSP, False),
        ("C-FIND-RSP", _FIND_RSP, True),
    ):
        encoded = recurring.encode(message, has_data_set=has_data_set)
        yield f"encode {name}", partial(recurring.encode, message, has_data_set=has_data_set)
        yield f"decode {name}", partial(recurring.decode, encoded)


def _request(contexts: int) -> pdu.AssociateRQ:
    return negotiation.request(
        called="CALLED",
        calling="CALLING",
        contexts=[negotiation.PresentationContext(abstract_syntax=uid) for uid in sop.STORAGE[:contexts]],
        maximum_length=_PDU,
        async_operations=(16, 1),
        extended_negotiation=None,
        user_identity=None,
    )


_IDENTITY = pdu.UserIdentityRQ(type=1, primary=b"user")


def _associations() -> Iterator[tuple[str, Callable[[], object]]]:
    support = negotiation.Support(transfer_syntaxes=None, prefer_proposed_order=True)
    for number in (1, 128):
        request = _request(number)
        encoded = pdu.encode(request)
        what = f"{number} context" + "s" * (number > 1)
        yield f"encode A-ASSOCIATE-RQ, {what}", partial(pdu.encode, request)
        first = replace(request, user_information=replace(request.user_information, user_identity=_IDENTITY))
        # One with credentials is never remembered.
        yield f"decode A-ASSOCIATE-RQ, {what}", partial(pdu.decode, 1, pdu.encode(first)[6:])
        if len(encoded) < 4096:
            yield f"decode A-ASSOCIATE-RQ, {what}, seen before", partial(pdu.decode, 1, encoded[6:])
        yield (
            f"answer A-ASSOCIATE-RQ, {what}",
            partial(
                negotiation.answer, request, support=lambda _: support, maximum_length=_PDU, async_operations=(16, 1)
            ),
        )


# A mebibyte of an instance, out and in.


def _established() -> Dimse:
    """Return an acceptor that has accepted CT Image Storage."""
    layer = UpperLayer(Role.ACCEPTOR, maximum_length=_PDU)
    layer.transport_connected()
    request = _request(1)
    layer.receive_data(pdu.encode(request))
    layer.next_event()
    support = negotiation.Support(transfer_syntaxes=None)
    answer = negotiation.answer(request, support=lambda _: support, maximum_length=_PDU, async_operations=(16, 1))
    assert not isinstance(answer, pdu.AssociateRJ)
    accept, negotiated = answer
    layer.accept(accept)
    layer.data_to_send()
    core = Dimse(layer)
    core.establish(negotiated.contexts, _PDU)
    return core


def _chunks(payload: int, peer_pdu: int) -> list[bytes]:
    """Return what arrives of a C-STORE of ``payload`` bytes, received 256 KiB at a time."""
    layout = Layout(peer_pdu)
    prefix = layout.command(1, recurring.encode(_STORE_RQ, has_data_set=True))
    stream = b"".join(layout.buffers(1, os.urandom(payload), prefix=prefix))
    return [stream[start : start + _CHUNK] for start in range(0, len(stream), _CHUNK)]


def _receive(core: Dimse, chunks: list[bytes], payload: int) -> None:
    size = 0
    for chunk in chunks:
        core.upper_layer.receive_data(chunk)
        while (event := core.next_event()) is not None:
            if type(event) is DataSetReceived:
                size += len(event.data)
            elif type(event) is not MessageReceived:
                raise AssertionError(event)
    assert size == payload


def _lay_out(layout: Layout, payload: int) -> int:
    """Lay out the buffers of a data set, without filling them."""
    step, left, count = layout.buffer_payload, payload, 0
    while left:
        size = min(step, left)
        left -= size
        _, gaps = layout.place(1, size, last=not left)
        count += len(gaps)
    return count


def _streams() -> Iterator[tuple[str, Callable[[], object]]]:
    for length in (16_384, _PDU):
        what = f"of {length >> 10} KiB PDUs"
        yield f"receive 1 MiB {what}", partial(_receive, _established(), _chunks(_MIB, length), _MIB)
        yield f"lay out 1 MiB {what}", partial(_lay_out, Layout(length), _MIB)
    yield "receive a C-STORE of 16 KiB", partial(_receive, _established(), _chunks(16_384, _PDU), 16_384)


# The same by pynetdicom.


def _pynetdicom() -> Iterator[tuple[str, Callable[[], object]]]:
    if not has_module("pynetdicom"):
        return
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import decode, encode
    from pynetdicom.pdu import A_ASSOCIATE_RQ

    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = material.CT_IMAGE_STORAGE
    primitive.AffectedSOPInstanceUID = material.uid(1)
    primitive.Priority = 0

    def encode_message() -> Any:
        message = C_STORE_RQ()
        message.primitive_to_message(primitive)
        return encode(message.command_set, True, True)

    encoded = recurring.encode(_STORE_RQ, has_data_set=True)
    request = pdu.encode(_request(128))

    def decode_request() -> None:
        A_ASSOCIATE_RQ().decode(request)

    yield "encode C-STORE-RQ (pynetdicom)", encode_message

    def decode_message() -> Any:
        from io import BytesIO

        return decode(BytesIO(encoded), True, True).MessageID

    yield "decode C-STORE-RQ (pynetdicom)", decode_message
    yield "decode A-ASSOCIATE-RQ, 128 contexts (pynetdicom)", decode_request


def _micro(bench: Bench) -> list[Contender]:
    functions = [*_command_sets(), *_associations(), *_streams(), *_pynetdicom()]
    return [Contender(name=name, run=partial(_timed, bench, function), most=1) for name, function in functions]


SCENARIOS = (
    Scenario(
        name="micro",
        title="Codec, framing and negotiation, without a network",
        contenders=_micro,
        equal="one process, one thread, everything in memory; the time of one call, of as many as fill 0.2 s",
        unequal="pynetdicom decodes a command set to a data set, whose values are read when they are used; of ours, the "
        "C-FIND-RSP was seen before but for its Message ID, as all but the first of a query are",
    ),
)
