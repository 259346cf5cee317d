"""Requests for unit tests of service handlers, which are plain functions of one request.

.. code-block:: python

    request = asyncdicom.testing.find_request({"PatientID": "1", "QueryRetrieveLevel": "STUDY"})
    rows = [row async for row in my_find_handler(request)]

What a handler may do with a request works: the identifier is decoded, a data set is read piece by piece and saved. The
association of such a request is connected to nothing: what is sent on it is lost.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .. import sop
from ..association import Association
from ..instances import Instance
from ..protocol import commands, negotiation, pdu
from ..protocol.dimse import Dimse
from ..protocol.negotiation import AcceptedContext, PresentationContext
from ..protocol.upper_layer import Role, UpperLayer
from ..requests import EchoRequest, FindRequest, NRequest, RetrieveRequest, StoreRequest
from ..settings import Limits, Timeouts

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["echo_request", "find_request", "n_request", "retrieve_request", "store_request"]


class _Nowhere:
    """A transport to nobody."""

    error: BaseException | None = None
    unsent: memoryview | None = None
    broken = False
    socket = None
    tls = None

    def __init__(self, peer_address: tuple[str, int] | None) -> None:
        self.peer_address = peer_address
        self.local_address = None

    async def receive(self, deadline: float = math.inf) -> bytes:
        return b""

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        pass

    async def flush(self, deadline: float = math.inf) -> None:
        pass

    def send_nowait(self, data: bytes) -> bool:
        return True

    def abort(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Pieces:
    """The data set of a C-STORE request, in pieces, as if it came over the network."""

    inline_file_io = True

    def __init__(self, data: bytes, piece: int, error: Exception | None) -> None:
        self._data = memoryview(data)
        self._piece = piece
        self._error = error
        self.done = not data and error is None
        self.failed = False
        self.size = 0

    async def gather(self, size: int) -> list[memoryview]:
        if self.done:
            return []
        end = min(len(self._data), self.size + self._piece)
        if end == len(self._data) and self._error is not None:
            self.done = self.failed = True
            raise self._error
        found = self._data[self.size : end]
        self.size = end
        self.done = end == len(self._data)
        return [found]  # whatever size: the next one comes later

    async def discard(self) -> None:
        self.done = True


def _associate(
    abstract_syntax: str,
    transfer_syntax: str,
    calling: str,
    called: str,
    peer_address: tuple[str, int] | None,
) -> tuple[Association, AcceptedContext]:
    """Make the acceptor's side of an association with one presentation context."""
    context = PresentationContext(abstract_syntax=abstract_syntax, transfer_syntaxes=(transfer_syntax,))
    asked = negotiation.request(called=called, calling=calling, contexts=[context], maximum_length=0)
    answer = negotiation.answer(
        asked, support=lambda _uid: negotiation.Support(transfer_syntaxes=None), maximum_length=0
    )
    assert isinstance(answer, tuple)
    accept, negotiated = answer
    upper_layer = UpperLayer(Role.ACCEPTOR)
    upper_layer.transport_connected()
    upper_layer.receive_data(pdu.encode(asked))
    upper_layer.next_event()
    upper_layer.accept(accept)
    upper_layer.data_to_send()
    association = Association(
        cast(Any, _Nowhere(peer_address)),
        Dimse(upper_layer),
        negotiated,
        requestor=False,
        timeouts=Timeouts(),
        limits=Limits(),
    )
    return association, negotiated.contexts[1]


def echo_request(
    *,
    message_id: int = 1,
    calling: str = "TESTER",
    called: str = "ASYNCDICOM",
    peer_address: tuple[str, int] | None = ("127.0.0.1", 104),
) -> EchoRequest:
    """Make the C-ECHO request of a peer.

    :param message_id: its Message ID.
    :param calling: the AE title of the peer.
    :param called: the AE title that it called.
    :param peer_address: where it connects from.
    """
    association, context = _associate(sop.VERIFICATION, sop.IMPLICIT_VR_LITTLE_ENDIAN, calling, called, peer_address)
    message = commands.CEchoRQ(message_id=message_id, affected_sop_class_uid=sop.VERIFICATION)
    return EchoRequest(association, context, message)


def find_request(
    identifier: Dataset | Mapping[str, object] | bytes | None = None,
    model: str = sop.STUDY_ROOT_FIND,
    *,
    level: str | None = None,
    transfer_syntax: str = sop.EXPLICIT_VR_LITTLE_ENDIAN,
    message_id: int = 1,
    priority: int = 0,
    calling: str = "TESTER",
    called: str = "ASYNCDICOM",
    peer_address: tuple[str, int] | None = ("127.0.0.1", 104),
    **keys: object,
) -> FindRequest:
    """Make the C-FIND request of a peer.

    :param identifier: a data set, a mapping of keywords to values, or encoded bytes.
    :param model: the SOP class.
    :param level: the Query/Retrieve Level, if the identifier has none.
    :param transfer_syntax: how the identifier is encoded.
    :param keys: more keys of the identifier, by keyword.
    """
    association, context = _associate(model, transfer_syntax, calling, called, peer_address)
    message = commands.CFindRQ(message_id=message_id, affected_sop_class_uid=model, priority=priority)
    return FindRequest(association, context, message, _encode(identifier, keys, level, transfer_syntax))


def retrieve_request(
    identifier: Dataset | Mapping[str, object] | bytes | None = None,
    model: str | None = None,
    *,
    destination: str | None = None,
    level: str | None = None,
    transfer_syntax: str = sop.EXPLICIT_VR_LITTLE_ENDIAN,
    message_id: int = 1,
    priority: int = 0,
    calling: str = "TESTER",
    called: str = "ASYNCDICOM",
    peer_address: tuple[str, int] | None = ("127.0.0.1", 104),
    **keys: object,
) -> RetrieveRequest:
    """Make the C-GET request of a peer, or with a ``destination`` its C-MOVE request.

    :param destination: the AE title of a C-MOVE's destination.
    :param model: the SOP class; Study Root unless it is named.

    The other arguments are those of :func:`find_request`.
    """
    message: commands.CGetRQ | commands.CMoveRQ
    if destination is None:
        model = model or sop.STUDY_ROOT_GET
        message = commands.CGetRQ(message_id=message_id, affected_sop_class_uid=model, priority=priority)
    else:
        model = model or sop.STUDY_ROOT_MOVE
        message = commands.CMoveRQ(
            message_id=message_id, affected_sop_class_uid=model, priority=priority, move_destination=destination
        )
    association, context = _associate(model, transfer_syntax, calling, called, peer_address)
    return RetrieveRequest(association, context, message, _encode(identifier, keys, level, transfer_syntax))


def store_request(
    what: str | os.PathLike[str] | Dataset | Instance,
    *,
    sop_class_uid: str | None = None,
    sop_instance_uid: str | None = None,
    piece: int = 65_536,
    error: Exception | None = None,
    move_originator: tuple[str, int] | None = None,
    message_id: int = 1,
    priority: int = 0,
    calling: str = "TESTER",
    called: str = "ASYNCDICOM",
    peer_address: tuple[str, int] | None = ("127.0.0.1", 104),
) -> StoreRequest:
    """Make the C-STORE request of a peer.

    :param what: the path of a DICOM file, a data set, or an :class:`asyncdicom.Instance`.
    :param sop_class_uid: the Affected SOP Class UID, if it is not that of the instance.
    :param sop_instance_uid: the Affected SOP Instance UID, if it is not that of the instance.
    :param piece: bytes of the data set that come at once.
    :param error: what is raised instead of the last piece, such as :class:`asyncdicom.AssociationClosed`.
    :param move_originator: AE title and Message ID of the C-MOVE that it is a sub-operation of.
    """
    if isinstance(what, Instance):
        instance = what
    elif isinstance(what, str | os.PathLike):
        instance = Instance.from_file(what)
    else:
        instance = Instance.from_dataset(what)
    sop_class = sop_class_uid or instance.sop_class_uid
    association, context = _associate(sop_class, instance.transfer_syntax_uid, calling, called, peer_address)
    message = commands.CStoreRQ(
        message_id=message_id,
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=instance.sop_instance_uid if sop_instance_uid is None else sop_instance_uid,
        priority=priority,
        move_originator_ae_title=move_originator[0] if move_originator else None,
        move_originator_message_id=move_originator[1] if move_originator else None,
    )
    request = StoreRequest(association, context, message, cast(Any, _Pieces(_read(instance), piece, error)))
    request._source_ae_title = calling
    return request


def n_request(
    message: commands.Message,
    data_set: Dataset | bytes | None = None,
    *,
    context: str | None = None,
    transfer_syntax: str = sop.EXPLICIT_VR_LITTLE_ENDIAN,
    calling: str = "TESTER",
    called: str = "ASYNCDICOM",
    peer_address: tuple[str, int] | None = ("127.0.0.1", 104),
) -> NRequest:
    """Make the N-EVENT-REPORT, N-GET, N-SET, N-ACTION, N-CREATE or N-DELETE request of a peer.

    :param message: its command set, from :mod:`asyncdicom.protocol.commands`.
    :param context: the abstract syntax of its context, if it is not the SOP class of the message.
    """
    uid = getattr(message, "affected_sop_class_uid", None) or getattr(message, "requested_sop_class_uid", None)
    association, accepted = _associate(context or str(uid), transfer_syntax, calling, called, peer_address)
    data = data_set if data_set is None or isinstance(data_set, bytes) else _encode(data_set, {}, None, transfer_syntax)
    return NRequest(association, accepted, message, data)


def _encode(
    identifier: Dataset | Mapping[str, object] | bytes | None,
    keys: Mapping[str, object],
    level: str | None,
    transfer_syntax: str,
) -> bytes:
    from pydicom import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    if isinstance(identifier, bytes):
        return identifier
    made = Dataset()
    if isinstance(identifier, Dataset):
        made.update(identifier)
    elif identifier is not None:
        keys = {**identifier, **keys}
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    if level is not None:
        made.QueryRetrieveLevel = level
    syntax = sop.transfer_syntax(transfer_syntax)
    stream = DicomBytesIO()
    stream.is_implicit_VR = syntax.is_implicit_vr
    stream.is_little_endian = syntax.is_little_endian
    write_dataset(stream, made)
    return bytes(stream.getvalue())


def _read(instance: Instance) -> bytes:
    source = instance.open_source()
    try:
        pieces = []
        buffer = bytearray(source.size or 65_536)
        while got := source.read_into([memoryview(buffer)]):
            pieces.append(bytes(buffer[:got]))
        return b"".join(pieces)
    finally:
        source.close()
