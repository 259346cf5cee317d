"""What a peer said last is heard also when it reset the connection while we were sending."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import asyncdicom
from asyncdicom import AssociationAborted, Instance, sop
from asyncdicom.protocol import pdu

pytestmark = pytest.mark.anyio


def _read_pdu(sock: socket.socket) -> bytes:
    head = sock.recv(6, socket.MSG_WAITALL)
    return head + sock.recv(int.from_bytes(head[2:6], "big"), socket.MSG_WAITALL)


@contextmanager
def _peer_that_aborts_and_resets() -> Iterator[int]:
    """Accept one association, read a little of what comes, abort, and close with bytes unread, so that TCP resets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            request = pdu.decode(1, _read_pdu(sock)[6:])
            assert isinstance(request, pdu.AssociateRQ)
            accept = pdu.AssociateAC(
                called_ae_title=request.called_ae_title,
                calling_ae_title=request.calling_ae_title,
                application_context=request.application_context,
                presentation_contexts=tuple(
                    pdu.PresentationContextAC(
                        context_id=context.context_id, result=0, transfer_syntax=context.transfer_syntaxes[0]
                    )
                    for context in request.presentation_contexts
                ),
                user_information=pdu.UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
            )
            sock.sendall(pdu.encode(accept))
            _read_pdu(sock)
            sock.sendall(pdu.encode(pdu.Abort(source=2, reason=6)))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()


@pytest.mark.parametrize("attempt", range(3))
async def test_an_abort_before_a_reset_is_the_reason_of_the_end(attempt: int) -> None:
    data = bytes(30_000_000)
    instance = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2.3.4", sop.IMPLICIT_VR_LITTLE_ENDIAN)
    context = asyncdicom.PresentationContext(
        abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(sop.IMPLICIT_VR_LITTLE_ENDIAN,)
    )
    with _peer_that_aborts_and_resets() as port:
        with pytest.raises(AssociationAborted) as caught:
            async with asyncdicom.connect(f"PEER@127.0.0.1:{port}", contexts=[context]) as assoc:
                await assoc.store(instance)
    assert (caught.value.source, caught.value.reason) == (2, 6)
