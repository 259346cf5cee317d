"""A peer that plays a script, PDU by PDU, so that tests judge and make the bytes on the wire.

The framing (PS3.8 9.3), the fragments (PS3.8 Annex E) and the command sets (PS3.7 6.3.1) are read and written here on
their own, not by the code under test; only the A-ASSOCIATE PDUs are, as these have golden bytes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import pack, unpack_from

from anyio import EndOfStream
from anyio.abc import ByteStream

from ..protocol import negotiation, pdu

__all__ = [
    "RELEASE_RP",
    "RELEASE_RQ",
    "Received",
    "ScriptedPeer",
    "abort_pdu",
    "command_set",
    "message_pdus",
    "parse_command_set",
    "reject_pdu",
]

#: An A-RELEASE-RQ PDU (PS3.8 Table 9-24).
RELEASE_RQ = bytes.fromhex("05000000000400000000")
#: An A-RELEASE-RP PDU (PS3.8 Table 9-25).
RELEASE_RP = bytes.fromhex("06000000000400000000")

_P_DATA_TF = 4

_AFFECTED_SOP_CLASS = 0x00000002
_REQUESTED_SOP_CLASS = 0x00000003
_COMMAND_FIELD = 0x00000100
_MESSAGE_ID = 0x00000110
_MESSAGE_ID_RESPONDED = 0x00000120
_DATA_SET_TYPE = 0x00000800
_STATUS = 0x00000900
_AFFECTED_SOP_INSTANCE = 0x00001000
_REQUESTED_SOP_INSTANCE = 0x00001001

#: Command Data Set Type (0000,0800): no data set (PS3.7 E.1), and any other value.
_NO_DATA_SET = 0x0101
_DATA_SET = 0x0001


def abort_pdu(source: int = 0, reason: int = 0) -> bytes:
    """Return an A-ABORT PDU (PS3.8 Table 9-26)."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU (PS3.8 Table 9-21)."""
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


def command_set(elements: Mapping[int, int | str | bytes]) -> bytes:
    """Encode a command set in Implicit VR Little Endian with its group length (PS3.7 6.3.1).

    :param elements: values by tag: numbers become US, texts UIDs padded with NUL, bytes are taken as they are.
    """
    body = b""
    for tag in sorted(elements):
        value = elements[tag]
        if isinstance(value, int):
            value = pack("<H", value)
        elif isinstance(value, str):
            value = value.encode("ascii")
            value += b"\0" * (len(value) % 2)
        body += pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
    return pack("<HHII", 0, 0, 4, len(body)) + body


def parse_command_set(data: bytes) -> dict[int, bytes]:
    """Decode a command set: the values by tag, as they came.

    :raises AssertionError: it breaks PS3.7 6.3.1: the order of tags, the group length, an odd length.
    """
    elements: dict[int, bytes] = {}
    position = 0
    last = -1
    while position < len(data):
        group, element, length = unpack_from("<HHI", data, position)
        tag = group << 16 | element
        position += 8
        assert tag > last, f"tag {tag:08x} after {last:08x}"
        assert length % 2 == 0, f"tag {tag:08x} has an odd length"
        assert position + length <= len(data), f"tag {tag:08x} runs past the command set"
        elements[tag] = data[position : position + length]
        position += length
        last = tag
    if 0 in elements:
        assert unpack_from("<I", elements[0])[0] == len(data) - 12, "wrong group length"
    return elements


def message_pdus(context_id: int, command: bytes, data_set: bytes | None = None, *, fragment: int = 16_384) -> bytes:
    """Return the P-DATA-TF PDUs of a message, one presentation data value each (PS3.8 9.3.5, Annex E).

    :param command: the encoded command set.
    :param fragment: most bytes of a fragment.
    """
    out = _fragments(context_id, 1, command, fragment)
    if data_set is not None:
        out += _fragments(context_id, 0, data_set, fragment)
    return out


def _fragments(context_id: int, control: int, data: bytes, fragment: int) -> bytes:
    out = b""
    for start in range(0, max(1, len(data)), fragment):
        piece = data[start : start + fragment]
        last = 2 if start + fragment >= len(data) else 0
        size = len(piece)
        out += pack(">BxIIBB", _P_DATA_TF, size + 6, size + 2, context_id, control | last) + piece
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that a :class:`ScriptedPeer` received.

    :ivar context_id: the presentation context.
    :ivar command: its command set: the values by tag, as they came.
    :ivar data_set: its data set, or ``None``.
    :ivar fragments: the sizes of its fragments, those of the command set first.
    """

    context_id: int
    command: Mapping[int, bytes]
    data_set: bytes | None
    fragments: Sequence[int]

    def number(self, tag: int) -> int | None:
        """Return the value of a US element, ``None`` if it is not there."""
        value = self.command.get(tag)
        return None if value is None else int(unpack_from("<H", value)[0])

    def text(self, tag: int) -> str | None:
        """Return the value of a text element without its padding, ``None`` if it is not there."""
        value = self.command.get(tag)
        return None if value is None else value.decode("latin-1").rstrip("\0 ")

    @property
    def command_field(self) -> int:
        """The Command Field (0000,0100)."""
        return self.number(_COMMAND_FIELD) or 0

    @property
    def message_id(self) -> int:
        """The Message ID (0000,0110) of a request, or that which a response or C-CANCEL is about (0000,0120)."""
        number = self.number(_MESSAGE_ID)
        if number is None:
            number = self.number(_MESSAGE_ID_RESPONDED)
        assert number is not None, "the message has no Message ID"
        return number

    @property
    def status(self) -> int | None:
        """The Status (0000,0900) of a response."""
        return self.number(_STATUS)


def _grant(proposed: Sequence[pdu.RoleSelection], roles: bool | tuple[bool, bool]) -> tuple[pdu.RoleSelection, ...]:
    """Answer role selection (PS3.7 D.3.3.4)."""
    if isinstance(roles, bool):
        return tuple(proposed) if roles else ()
    scu, scp = roles
    return tuple(pdu.RoleSelection(sop_class_uid=role.sop_class_uid, scu=scu, scp=scp) for role in proposed)


class ScriptedPeer:
    """The other side of a connection, played by a test.

    :param stream: the connection.

    :ivar request: the A-ASSOCIATE-RQ that came or was sent.
    :ivar answer: the A-ASSOCIATE-AC that came or was sent.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.request: pdu.AssociateRQ | None = None
        self.answer: pdu.AssociateAC | None = None
        self._buffer = bytearray()

    # Bytes and PDUs.

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, in one piece."""
        await self.stream.send(b"".join(pieces))

    async def receive_pdu(self) -> bytes:
        """Return the next PDU, its header included.

        :raises EndOfStream: the connection was closed between two PDUs.
        :raises AssertionError: it was closed inside of one.
        """
        await self._fill(6)
        length = int(unpack_from(">I", self._buffer, 2)[0])
        await self._fill(6 + length)
        whole = bytes(self._buffer[: 6 + length])
        del self._buffer[: 6 + length]
        return whole

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            try:
                self._buffer += await self.stream.receive()
            except EndOfStream:
                assert not self._buffer, f"the connection ended inside a PDU: {bytes(self._buffer[:16]).hex()}"
                raise

    async def expect(self, pdu_type: int) -> bytes:
        """Return the next PDU.

        :raises AssertionError: it is of another type.
        """
        received = await self.receive_pdu()
        assert received[0] == pdu_type, f"expected PDU type {pdu_type:#04x}, got {received[:32].hex()}"
        return received

    async def expect_abort(self) -> tuple[int, int]:
        """Return the source and reason of the A-ABORT that must come next."""
        received = await self.expect(7)
        return received[8], received[9]

    async def expect_end(self) -> None:
        """Wait for the end of the stream.

        :raises AssertionError: something comes first.
        """
        try:
            received = await self.receive_pdu()
        except EndOfStream:
            return
        raise AssertionError(f"expected the end of the stream, got {received[:32].hex()}")

    async def read_to_end(self) -> list[bytes]:
        """Return all PDUs up to the end of the stream.

        :raises AssertionError: it ends inside a PDU.
        """
        found = []
        while True:
            try:
                found.append(await self.receive_pdu())
            except EndOfStream:
                return found

    async def aclose(self) -> None:
        """Close the connection."""
        await self.stream.aclose()

    # Associating.

    async def accept(
        self,
        *,
        transfer_syntax: Callable[[pdu.PresentationContextRQ], str] | str | None = None,
        window: tuple[int, int] | None = None,
        maximum_length: int = 16_384,
        results: Mapping[str, int] | None = None,
        roles: bool | tuple[bool, bool] = True,
        extended_negotiation: Mapping[str, bytes] | None = None,
    ) -> pdu.AssociateRQ:
        """Receive an A-ASSOCIATE-RQ and accept it; return the request.

        :param transfer_syntax: what to accept each context with; ``None`` is the first that it proposes.
        :param window: the asynchronous operations window to answer.
        :param results: results other than 0 by abstract syntax.
        :param roles: answer role selection as it was proposed, or not at all, or with these: (SCU, SCP).
        :param extended_negotiation: answers to SOP class extended negotiation by SOP class UID.
        """
        received = await self.expect(1)
        request = pdu.decode(1, received[6:])
        assert isinstance(request, pdu.AssociateRQ)

        def answer(context: pdu.PresentationContextRQ) -> pdu.PresentationContextAC:
            result = (results or {}).get(context.abstract_syntax or "", 0)
            chosen = transfer_syntax(context) if callable(transfer_syntax) else transfer_syntax
            return pdu.PresentationContextAC(
                context_id=context.context_id,
                result=result,
                transfer_syntax=chosen or context.transfer_syntaxes[0],
            )

        accept = pdu.AssociateAC(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            application_context=request.application_context,
            presentation_contexts=tuple(answer(context) for context in request.presentation_contexts),
            user_information=pdu.UserInformation(
                maximum_length=maximum_length,
                implementation_class_uid="1.2.3.4",
                implementation_version_name="SCRIPTED",
                async_operations=None
                if window is None
                else pdu.AsyncOperationsWindow(invoked=window[0], performed=window[1]),
                roles=_grant(request.user_information.roles, roles),
                extended_negotiation=tuple(
                    pdu.ExtendedNegotiation(sop_class_uid=uid, information=information)
                    for uid, information in (extended_negotiation or {}).items()
                ),
            ),
        )
        await self.send(pdu.encode(accept))
        self.request, self.answer = request, accept
        return request

    async def associate(
        self,
        *contexts: str | negotiation.PresentationContext,
        called: str = "ASYNCDICOM",
        calling: str = "SCRIPTED",
        maximum_length: int = 16_384,
        window: tuple[int, int] = (1, 1),
    ) -> pdu.AssociateAC:
        """Send an A-ASSOCIATE-RQ and receive the A-ASSOCIATE-AC; contexts get the IDs 1, 3, 5 ... in their order."""
        request = negotiation.request(
            called=called,
            calling=calling,
            contexts=[
                item
                if isinstance(item, negotiation.PresentationContext)
                else negotiation.PresentationContext(abstract_syntax=item)
                for item in contexts
            ],
            maximum_length=maximum_length,
            async_operations=window,
        )
        await self.send(pdu.encode(request))
        received = await self.expect(2)
        answer = pdu.decode(2, received[6:])
        assert isinstance(answer, pdu.AssociateAC)
        self.request, self.answer = request, answer
        return answer

    async def release(self) -> None:
        """Release as the one who asks for it, and close."""
        await self.send(RELEASE_RQ)
        await self.expect(6)
        await self.aclose()

    async def confirm_release(self) -> None:
        """Let the peer release, and close."""
        await self.expect(5)
        await self.send(RELEASE_RP)
        await self.aclose()

    # Messages.

    async def expect_message(self, command_field: int | None = None) -> Received:
        """Receive a whole message.

        :param command_field: what it must be, such as 0x0030 for C-ECHO-RQ.
        :raises AssertionError: something else comes, or messages are interleaved or otherwise against PS3.8 Annex E.
        """
        parts: dict[int, bytearray] = {1: bytearray(), 0: bytearray()}
        fragments: list[int] = []
        context_id: int | None = None
        wanted = 1
        while True:
            received = await self.expect(_P_DATA_TF)
            position = 6
            while position < len(received):
                length, found, control = unpack_from(">IBB", received, position)
                assert length >= 2, f"PDV length {length}"
                assert position + 4 + length <= len(received), f"PDV of {length} bytes runs past its PDU"
                piece = received[position + 6 : position + 4 + length]
                position += 4 + length
                context_id = context_id or found
                assert found == context_id, f"the context changed from {context_id} to {found} inside a message"
                assert control & 1 == wanted, "a fragment of a command set and a data set out of order"
                parts[wanted] += piece
                fragments.append(len(piece))
                if not control & 2:
                    continue
                command = parse_command_set(bytes(parts[1]))
                has_data_set = command[_DATA_SET_TYPE] != pack("<H", _NO_DATA_SET)
                if wanted and has_data_set:
                    wanted = 0
                    continue
                assert position == len(received), "bytes after the end of a message in its last PDU"
                message = Received(
                    context_id=context_id,
                    command=command,
                    data_set=bytes(parts[0]) if has_data_set else None,
                    fragments=fragments,
                )
                assert command_field is None or message.command_field == command_field, (
                    f"expected command {command_field:#06x}, got {message.command_field:#06x}"
                )
                return message

    async def send_message(
        self, context_id: int, elements: Mapping[int, int | str | bytes], data_set: bytes | None = None
    ) -> None:
        """Send a message; Command Data Set Type is filled in unless it is given."""
        await self.send(self.message(context_id, elements, data_set))

    @staticmethod
    def message(context_id: int, elements: Mapping[int, int | str | bytes], data_set: bytes | None = None) -> bytes:
        """Return the PDUs of a message."""
        data_set_type = _NO_DATA_SET if data_set is None else _DATA_SET
        return message_pdus(context_id, command_set({_DATA_SET_TYPE: data_set_type, **elements}), data_set)

    @staticmethod
    def response(
        request: Received,
        status: int,
        data_set: bytes | None = None,
        elements: Mapping[int, int | str | bytes] | None = None,
    ) -> bytes:
        """Return the PDUs of a response to a request: its SOP UIDs, Message ID, and what else is in ``elements``."""
        values: dict[int, int | str | bytes] = {
            _COMMAND_FIELD: request.command_field | 0x8000,
            _MESSAGE_ID_RESPONDED: request.message_id,
            _STATUS: status,
        }
        for affected, requested in (
            (_AFFECTED_SOP_CLASS, _REQUESTED_SOP_CLASS),
            (_AFFECTED_SOP_INSTANCE, _REQUESTED_SOP_INSTANCE),
        ):
            value = request.command.get(affected, request.command.get(requested))
            if value is not None:
                values[affected] = value
        values.update(elements or {})
        return ScriptedPeer.message(request.context_id, values, data_set)

    async def respond(
        self,
        request: Received,
        status: int,
        data_set: bytes | None = None,
        elements: Mapping[int, int | str | bytes] | None = None,
    ) -> None:
        """Send a response to a request."""
        await self.send(self.response(request, status, data_set, elements))

    async def answer_echo(self) -> Received:
        """Receive a C-ECHO-RQ and answer Success; return the request."""
        request = await self.expect_message(0x0030)
        await self.respond(request, 0x0000)
        return request
