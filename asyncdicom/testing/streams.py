"""Byte streams in memory, and streams that hang or fail where they are told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, ResourceGuard, WouldBlock
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

__all__ = ["FaultyStream", "MemoryStream", "memory_stream_pair"]

#: Bytes that one direction of a pair holds unless told otherwise: about what a socket holds.
_DEFAULT_BUFFER = 262_144


class _Pipe:
    """One direction of a pair: a bounded buffer."""

    __slots__ = ("broken", "changed", "data", "eof", "limit", "reader_gone", "reader_waits")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.data = bytearray()
        self.eof = False  # nothing more will be written
        self.broken = False  # the connection was reset
        self.reader_gone = False
        self.reader_waits = False
        self.changed: list[anyio.Event] = []

    @property
    def room(self) -> int:
        return self.limit - len(self.data)

    def notify(self) -> None:
        waiting, self.changed = self.changed, []
        for event in waiting:
            event.set()

    async def wait(self) -> None:
        event = anyio.Event()
        self.changed.append(event)
        try:
            await event.wait()
        finally:
            if event in self.changed:
                self.changed.remove(event)


class MemoryStream(ByteStream):
    """One end of a :func:`memory_stream_pair`.

    It behaves as a TCP connection does: a sender waits while the peer does not read, half close works, and a cancelled
    :meth:`send` may have sent a part. Two tasks that receive, or send, at once get :class:`anyio.BusyResourceError`.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._receiving = ResourceGuard("reading from")
        self._sending = ResourceGuard("writing to")

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what has come, at most ``max_bytes``; wait if nothing has.

        :raises EndOfStream: the peer closed, or sent its end.
        :raises BrokenResourceError: the connection was reset.
        :raises ClosedResourceError: this end is closed.

        Cancelling it loses nothing.
        """
        with self._receiving:
            await checkpoint()
            pipe = self._incoming
            while True:
                if self._closed:
                    raise ClosedResourceError
                if pipe.broken:
                    raise BrokenResourceError
                if pipe.data:
                    data = bytes(pipe.data[:max_bytes])
                    del pipe.data[:max_bytes]
                    pipe.notify()
                    return data
                if pipe.eof:
                    raise EndOfStream
                pipe.reader_waits = True
                pipe.notify()
                try:
                    await pipe.wait()
                finally:
                    pipe.reader_waits = False

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; wait while the peer's buffer is full.

        :raises BrokenResourceError: the peer closed its end.
        :raises ClosedResourceError: this end is closed, or its end was sent.
        """
        with self._sending:
            await checkpoint()
            rest = memoryview(item)
            pipe = self._outgoing
            while True:
                self._check_sending()
                if take := min(pipe.room, len(rest)):
                    pipe.data += rest[:take]
                    rest = rest[take:]
                    pipe.notify()
                if not rest:
                    return
                await pipe.wait()

    def send_nowait(self, item: bytes) -> None:
        """Send all of ``item`` at once, or nothing.

        :raises WouldBlock: the peer's buffer has no room for it, or another task is sending.
        """
        try:
            with self._sending:
                self._check_sending()
                if len(item) > self._outgoing.room:
                    raise WouldBlock
                self._outgoing.data += item
                self._outgoing.notify()
        except anyio.BusyResourceError:
            raise WouldBlock from None

    def _check_sending(self) -> None:
        if self._closed or self._outgoing.eof:
            raise ClosedResourceError
        if self._outgoing.broken or self._outgoing.reader_gone:
            raise BrokenResourceError

    async def wait_drained(self) -> None:
        """Wait until the peer has received all that was sent, and waits for more: until it is idle."""
        pipe = self._outgoing
        while not (pipe.reader_waits and not pipe.data):
            if self._closed or pipe.reader_gone or pipe.broken:
                raise BrokenResourceError
            await pipe.wait()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come; receiving goes on."""
        await checkpoint()
        self._outgoing.eof = True
        self._outgoing.notify()

    def close(self) -> None:
        """Close this end; what was sent can still be read by the peer."""
        if not self._closed:
            self._closed = True
            self._outgoing.eof = True
            self._incoming.reader_gone = True
            self._incoming.data.clear()
            self._incoming.notify()
            self._outgoing.notify()

    def reset(self) -> None:
        """Break the connection for both ends, as an RST does: what was not read is lost."""
        for pipe in (self._incoming, self._outgoing):
            pipe.broken = True
            pipe.data.clear()
            pipe.notify()

    async def aclose(self) -> None:
        """Close this end."""
        self.close()
        await checkpoint()

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._closed

    @property
    def buffered(self) -> int:
        """Bytes that have come and were not received."""
        return len(self._incoming.data)

    @property
    def unread(self) -> int:
        """Bytes that were sent and not received by the peer."""
        return len(self._outgoing.data)


def memory_stream_pair(max_buffer: int = _DEFAULT_BUFFER) -> tuple[MemoryStream, MemoryStream]:
    """Return two byte streams that are connected with each other.

    :param max_buffer: bytes that each direction holds before a sender waits.
    """
    if max_buffer < 1:
        raise ValueError(f"max_buffer is {max_buffer}: expected at least 1")
    one, other = _Pipe(max_buffer), _Pipe(max_buffer)
    return MemoryStream(one, other), MemoryStream(other, one)


class FaultyStream(ByteStream):
    """A byte stream around another one with faults at places that are counted, never timed.

    Calls count from 1. A call that hangs waits until :meth:`resume` or until it is cancelled.

    :param hang_on_receive: the call of :meth:`receive`, and all after it, that hangs.
    :param hang_on_send: the same for :meth:`send`.
    :param fail_on_receive: the call of :meth:`receive`, and all after it, that raises ``error``.
    :param fail_on_send: the same for :meth:`send`.
    :param end_on_receive: the call of :meth:`receive`, and all after it, that finds the end of the stream.
    :param drop_on_send: the call of :meth:`send`, and all after it, whose bytes vanish.
    :param cut: bytes of the call of :meth:`send` that hangs or fails that go out all the same.
    :param split: most bytes that one :meth:`receive` returns.
    :param error: makes what a failing call raises.

    :ivar receives: calls of :meth:`receive` so far.
    :ivar sends: calls of :meth:`send` so far.
    :ivar sent: what was handed to :meth:`send` and :meth:`send_nowait`, and went out, call by call.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        hang_on_receive: int | None = None,
        hang_on_send: int | None = None,
        fail_on_receive: int | None = None,
        fail_on_send: int | None = None,
        end_on_receive: int | None = None,
        drop_on_send: int | None = None,
        cut: int = 0,
        split: int | None = None,
        error: Callable[[], Exception] = BrokenResourceError,
    ) -> None:
        self._stream = stream
        self.hang_on_receive = hang_on_receive
        self.hang_on_send = hang_on_send
        self.fail_on_receive = fail_on_receive
        self.fail_on_send = fail_on_send
        self.end_on_receive = end_on_receive
        self.drop_on_send = drop_on_send
        self._cut = cut
        self._split = split
        self._error = error
        self._resumed = anyio.Event()
        self._hanging = anyio.Event()
        self.receives = 0
        self.sends = 0
        self.sent: list[bytes] = []

    async def wait_hanging(self) -> None:
        """Wait until a call hangs."""
        await self._hanging.wait()

    @property
    def hanging(self) -> bool:
        """Whether a call hangs, or did."""
        return self._hanging.is_set()

    def resume(self) -> None:
        """Let the calls that hang go on, and all later ones."""
        self._resumed.set()

    async def _hang(self) -> None:
        self._hanging.set()
        await self._resumed.wait()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive from the stream below, or do what was told for this call."""
        self.receives += 1
        if _reached(self.receives, self.fail_on_receive):
            await checkpoint()
            raise self._error()
        if _reached(self.receives, self.end_on_receive):
            await checkpoint()
            raise EndOfStream
        if _reached(self.receives, self.hang_on_receive):
            await self._hang()
        return await self._stream.receive(max_bytes if self._split is None else min(max_bytes, self._split))

    async def send(self, item: bytes) -> None:
        """Send to the stream below, or do what was told for this call."""
        self.sends += 1
        fails = _reached(self.sends, self.fail_on_send)
        hangs = _reached(self.sends, self.hang_on_send) and not self._resumed.is_set()
        if _reached(self.sends, self.drop_on_send):
            await checkpoint()
            return
        rest = item
        if (fails or hangs) and self._cut:
            self.sent.append(bytes(item[: self._cut]))
            await self._stream.send(item[: self._cut])
            rest = item[self._cut :]
        if fails:
            await checkpoint()
            raise self._error()
        if hangs:
            await self._hang()
        self.sent.append(bytes(rest))
        await self._stream.send(rest)

    def send_nowait(self, item: bytes) -> None:
        """Send at once if the stream below can; not counted.

        :raises WouldBlock: it cannot, or :meth:`send` hangs or fails from here on.
        """
        send: Any = getattr(self._stream, "send_nowait", None)
        blocked = (_reached(self.sends, self.hang_on_send) and not self._resumed.is_set()) or _reached(
            self.sends, self.fail_on_send
        )
        if send is None or blocked:
            raise WouldBlock
        if not _reached(self.sends, self.drop_on_send):
            send(item)
            self.sent.append(bytes(item))

    async def send_eof(self) -> None:
        """Pass on."""
        await self._stream.send_eof()

    def close(self) -> None:
        """Close the stream below at once, if it can be."""
        close: Any = getattr(self._stream, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


def _reached(count: int, at: int | None) -> bool:
    return at is not None and count >= at
