"""DIMSE messages over an upper layer (PS3.7 sections 6.3 and 9, PS3.8 Annex E), without IO.

Theory of operation
-------------------
:class:`Dimse` stacks on an :class:`~asyncdicom.protocol.upper_layer.UpperLayer` and has the same shape: its owner gives
received bytes to the lower core and pulls events from this one. A message comes as one :class:`MessageReceived`
followed, if it has a data set, by :class:`DataSetReceived` pieces up to the one that is ``last``. Other events of the
lower core pass through.

Messages are never interleaved (PS3.8 Annex E): incoming ones that are abort the association, outgoing ones are refused
here before a byte is laid out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple, NoReturn

from ..exceptions import LocalProtocolError
from . import recurring
from .commands import CCancelRQ, InvalidCommandSet, Message, UnknownCommandField
from .framing import SEND_SIZE, Buffer, Fragment, Layout, make_tuple
from .pdu import AbortReason
from .upper_layer import PAUSE_AFTER, Pause, ProviderAbort, UpperLayer, UpperLayerEvent

__all__ = ["DataSetReceived", "Dimse", "DimseEvent", "MessageReceived", "UnknownMessageReceived"]


class MessageReceived(NamedTuple):
    """The command set of a message came; its data set follows if ``has_data_set``."""

    context_id: int
    message: Message
    has_data_set: bool


class UnknownMessageReceived(NamedTuple):
    """A command set with an unknown Command Field came, which 0x0211 answers (PS3.7 C.5.23)."""

    context_id: int
    command_field: int
    message_id: int | None
    has_data_set: bool


class DataSetReceived(NamedTuple):
    """The next piece of the data set of the message before it."""

    data: memoryview
    last: bool


DimseEvent = UpperLayerEvent | MessageReceived | UnknownMessageReceived | DataSetReceived


class Dimse:
    """Messages over one upper layer.

    :param upper_layer: the protocol machine below.
    :param command_set: the longest command set in bytes that is collected.
    """

    def __init__(self, upper_layer: UpperLayer, *, command_set: int = 1 << 16) -> None:
        self.upper_layer = upper_layer
        self.layout = Layout(0)
        self._contexts: Container[int] = ()
        self._limit = command_set
        self._command: bytearray | None = None
        self._fragments = 0
        self._context_id = 0
        self._in_data_set = False
        self._after_cancel = False  # a C-CANCEL said that it has a data set, which may follow or not
        self._sending = False

    def establish(self, contexts: Container[int], maximum_length: int) -> None:
        """Set what was negotiated.

        :param contexts: the IDs of the accepted presentation contexts.
        :param maximum_length: the peer's maximum P-DATA-TF length in bytes; 0 is unlimited.
        """
        self._contexts = contexts
        self.layout = Layout(maximum_length)

    @property
    def mid_message(self) -> bool:
        """Whether what was received so far ends inside a message."""
        return self._in_data_set or self._command is not None or self.upper_layer.mid_pdu

    def next_event(self) -> DimseEvent | None:
        """Return the next event, or ``None`` when more bytes are needed."""
        skipped = 0
        while True:
            if skipped == PAUSE_AFTER:
                return Pause()
            event = self.upper_layer.next_event()
            if type(event) is not Fragment:
                return event
            context_id, is_command, is_last, data = event
            if not is_command:
                if self._in_data_set and context_id == self._context_id:
                    if is_last:
                        self._in_data_set = False
                    elif not data:
                        skipped += 1
                        continue
                    return make_tuple(DataSetReceived, (data, is_last))
                if self._after_cancel and context_id == self._context_id:
                    self._after_cancel = not is_last
                    skipped += 1
                    continue
                self._refuse_data(context_id)
                continue
            self._after_cancel = False
            if self._in_data_set:
                self._error(AbortReason.UNEXPECTED_PARAMETER, "a command fragment inside a data set")
                continue
            if self._command is None:
                if context_id not in self._contexts:
                    self._error(AbortReason.INVALID_VALUE, f"presentation context {context_id} was not accepted")
                    continue
                self._context_id = context_id
                if is_last:
                    return self._message(data)
                self._command = bytearray()
                self._fragments = 0
            elif context_id != self._context_id:
                self._error(
                    AbortReason.INVALID_VALUE,
                    f"the context changed from {self._context_id} to {context_id} inside a command set",
                )
                continue
            self._fragments += 1
            # Fragments may be empty, but a command set that is nothing else would never end.
            if len(self._command) + len(data) > self._limit or self._fragments > self._limit:
                return self._abort(f"a command set of more than {self._limit} bytes or fragments")
            self._command += data
            skipped += 1
            if is_last:
                command = bytes(self._command)
                self._command = None
                return self._message(command)

    def _message(self, data: bytes | memoryview) -> DimseEvent:
        if len(data) > self._limit:
            return self._abort(f"a command set of more than {self._limit} bytes")
        try:
            message, has_data_set = recurring.decode(data)
        except UnknownCommandField as exc:
            self._in_data_set = exc.has_data_set
            return UnknownMessageReceived(self._context_id, exc.command_field, exc.message_id, exc.has_data_set)
        except InvalidCommandSet as exc:
            return self._abort(f"invalid command set: {exc}")
        if has_data_set and type(message) is CCancelRQ:
            # "No Data Set" (PS3.7 9.3.2.3): it takes effect at once, and what should not follow is skipped if it does.
            self._after_cancel = True
            has_data_set = False
        self._in_data_set = has_data_set
        return make_tuple(MessageReceived, (self._context_id, message, has_data_set))

    def _refuse_data(self, context_id: int) -> None:
        if self._in_data_set:
            text = f"the context changed from {self._context_id} to {context_id} inside a data set"
            self._error(AbortReason.INVALID_VALUE, text)
        elif context_id not in self._contexts:
            self._error(AbortReason.INVALID_VALUE, f"presentation context {context_id} was not accepted")
        else:
            self._error(AbortReason.UNEXPECTED_PARAMETER, "a data set fragment where a command is due")

    def _error(self, reason: AbortReason, message: str) -> None:
        self._forget()
        self.upper_layer.protocol_error(reason, message)

    def _abort(self, message: str) -> ProviderAbort:
        """Abort as the service user, which the DIMSE layer is to the upper layer (PS3.8 7.3)."""
        self._forget()
        self.upper_layer.abort()
        return ProviderAbort(source=0, reason=0, message=message)

    def _forget(self) -> None:
        self._command = None
        self._in_data_set = False
        self._after_cancel = False

    # Sending.

    def send_message(self, context_id: int, message: Message, data_set: bytes | None = None) -> None:
        """Send a whole message whose data set, if any, is in memory; one of odd length gets a NUL byte at its end.

        :raises LocalProtocolError: another message is being sent, or the association is not established.
        """
        if self._sending or context_id not in self._contexts:
            self._refuse(context_id)
        pdus = self.layout.command(context_id, recurring.encode(message, has_data_set=data_set is not None))
        if data_set is None:
            self.upper_layer.send_data(pdus)
            return
        if len(data_set) % 2:
            # "the fragment shall be of an even number of bytes" (PS3.8 Table 9-23).
            data_set += b"\0"
        layout = self.layout
        if len(pdus) + len(data_set) + 12 <= SEND_SIZE and len(data_set) <= layout.payload:
            self.upper_layer.send_data(layout.with_data_set(pdus, context_id, data_set))
        else:
            for buffer in layout.buffers(context_id, data_set, prefix=pdus):
                self.upper_layer.send_data(buffer)

    def begin_message(self, context_id: int, message: Message, *, has_data_set: bool) -> bytes:
        """Start a message and return the PDUs of its command set.

        Without a data set they are on their way and the message is complete; with one they belong in front of its
        first buffer, and :meth:`send_buffer` takes the buffers until the last.

        :raises LocalProtocolError: another message is being sent, the context was not accepted, a value cannot be
            encoded, or the association is not established.
        """
        if self._sending or context_id not in self._contexts:
            self._refuse(context_id)
        self.upper_layer.check_can_send()
        prefix = self.layout.command(context_id, recurring.encode(message, has_data_set=has_data_set))
        if has_data_set:
            self._sending = True
        else:
            self.upper_layer.send_data(prefix)
        return prefix

    def send_buffers(self, context_id: int, buffers: Iterable[Buffer]) -> None:
        """Send a whole message that was laid out, command set and all, with :attr:`layout`.

        :raises LocalProtocolError: another message is being sent, the context was not accepted, or the association is
            not established.
        """
        if self._sending or context_id not in self._contexts:
            self._refuse(context_id)
        for buffer in buffers:
            self.upper_layer.send_data(buffer)

    def _refuse(self, context_id: int) -> NoReturn:
        if self._sending:
            raise LocalProtocolError("another message is being sent: messages cannot be interleaved (PS3.8 Annex E)")
        raise LocalProtocolError(f"presentation context {context_id} was not accepted")

    def send_buffer(self, buffer: Buffer, *, last: bool) -> None:
        """Send the next buffer, made with :attr:`layout`, of the data set of the message that was begun."""
        if not self._sending:
            raise LocalProtocolError("no message is being sent")
        self.upper_layer.send_data(buffer)
        if last:
            self._sending = False

    @property
    def mid_send(self) -> bool:
        """Whether a message was begun and its data set is not complete."""
        return self._sending

    def abandon_message(self) -> None:
        """Forget a message that was begun when nothing of it has been sent."""
        self._sending = False
