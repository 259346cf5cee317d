"""The reading and writing of one association: the baton, the write door, deadlines and ends.

Theory of operation
-------------------
*The baton.* There is no reader task. Whoever waits for a message takes the baton, looks into its box, reads one message,
files it in the box it belongs to, and looks again; others wait until something is filed for them or the baton is free.
So a client needs no task group, and a round trip costs no task switch. A C-STORE request whose data set is still on
the wire keeps the baton until the data set is consumed or discarded: nobody can read past it, and that *is* the
backpressure; there are no queues between tasks.

*The write door.* Every byte goes out through :meth:`Connection.send` under one lock, one message at a time. A message
whose first byte is out can be neither withdrawn nor interleaved: a cancelled sender finishes it if that is quick, and
aborts the association if it is not.

*The end.* An association ends once, with a reason. Everybody who waits, or comes later, gets that reason; what was filed
before stays filed, so finished operations stay finished.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from . import threads
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    DataSetError,
    OperationTimeout,
    RemoteProtocolError,
)
from .incoming import TURN, Box, IncomingDataSet, Oversized
from .outgoing import Door, Outgoing, Writer
from .protocol.commands import CStoreRQ, Message
from .protocol.dimse import DataSetReceived, Dimse, DimseEvent, MessageReceived, UnknownMessageReceived
from .protocol.framing import Buffer, recycle
from .protocol.states import State
from .protocol.upper_layer import (
    AbortIndication,
    Pause,
    ProviderAbort,
    ReleaseConfirmation,
    ReleaseIndication,
    Role,
    TransportLost,
    UpperLayer,
)
from .settings import Limits, Timeouts
from .transport import Transport

__all__ = ["Connection", "current_task", "skip_events"]

logger = logging.getLogger("asyncdicom.association")

#: What is left of a message that a cancelled sender finishes, at most, in bytes; and for how long, in seconds.
_FINISH_SIZE = 1 << 20
_FINISH_TIME = 1.0

T = TypeVar("T")


def current_task() -> object:
    """Return the task that runs, on either backend."""
    module: Any = sys.modules.get("trio")
    if module is not None and module.lowlevel.in_trio_task():
        task: object = module.lowlevel.current_task()
        return task
    return asyncio.current_task()


def _clock() -> Callable[[], float]:
    """Return the clock of the event loop: what :func:`anyio.current_time` reads, without looking it up each time."""
    module: Any = sys.modules.get("trio")
    if module is not None and module.lowlevel.in_trio_task():
        clock: Callable[[], float] = module.current_time
        return clock
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        # The requests that asyncdicom.testing makes may be made where no event loop runs.
        return time.monotonic


async def skip_events(upper_layer: UpperLayer) -> None:
    """Pull what an upper layer has to say that nobody asks for any more (Sta13), until it wants more bytes."""
    while (event := upper_layer.next_event()) is not None:
        if type(event) is Pause:
            await checkpoint()


class Connection(abc.ABC):
    """One association's transport and protocol core, and who may use them when."""

    def __init__(self, transport: Transport, core: Dimse, timeouts: Timeouts, limits: Limits) -> None:
        self.transport = transport
        self.core = core
        self.timeouts = timeouts
        self.limits = limits
        self.now = _clock()
        self._send_lock = Door()
        self._watching = False
        self._sent = True  # whether something was sent since bytes were received last
        self._baton_free = True
        self._followers: deque[Box[Any]] = deque()
        self._incoming: IncomingDataSet | None = None
        self._collecting: tuple[int, Message | UnknownMessageReceived, bytearray | None] | None = None
        self._end: Callable[[], Exception] | None = None
        self._streak = 0  # events since other tasks had their turn
        self._reply_due = False
        self._waited = 0.0
        self._got = 0
        self._closed = False
        self._holding = True
        threads.hold()

    # What the association does with messages.

    @abc.abstractmethod
    def file(self, context_id: int, message: Message, data: bytes | IncomingDataSet | None) -> None:
        """File a message that has come, with its data set or what will give it."""

    @abc.abstractmethod
    def file_unknown(self, message: UnknownMessageReceived) -> None:
        """File a message with an unknown Command Field."""

    @abc.abstractmethod
    def on_end(self) -> None:
        """React to the end of the association, whatever ended it."""

    async def serve_own(self, box: Box[Any]) -> bool:
        """Perform requests of the peer that came while ``box`` was waited for; tell whether there were any."""
        return False

    @abc.abstractmethod
    def may_read(self) -> bool:
        """Tell whether not so much of the peer is held back that nothing more should be read."""

    @abc.abstractmethod
    def check_room(self) -> None:
        """Refuse to wait until :meth:`may_read` if only the task that asks could bring that about."""

    @abc.abstractmethod
    async def before_reading(self) -> None:
        """Wait until :meth:`may_read`."""

    @abc.abstractmethod
    def on_held(self, seconds: float) -> None:
        """React to our not having read for so many seconds, because the user was busy."""

    @abc.abstractmethod
    def on_surplus(self) -> None:
        """React to messages that were filed while nobody waited for them."""

    def pending_deadline(self) -> float:
        """Return the earliest time at which a response that nobody waits for is overdue."""
        return math.inf

    # The end.

    @property
    def ended(self) -> bool:
        """Whether the association has ended."""
        return self._end is not None

    def error(self) -> Exception:
        """Return the reason of the end, as a new exception."""
        assert self._end is not None
        return self._end()

    def end(self, make: Callable[[], Exception]) -> None:
        """End the association, unless it has ended: wake everybody."""
        if self._end is not None:
            return
        self._end = make
        for box in self._followers:
            if box.event is not None:
                box.event.set()
        # Whoever reads may be another task than that which ends the association.
        self.transport.interrupt()
        self.on_end()

    def check(self) -> None:
        """Raise the reason if the association has ended."""
        if self._end is not None:
            raise self._end()

    # Reading.

    def handle(self, event: DimseEvent) -> None:
        """Handle an event that is not part of a message."""
        match event:
            case ReleaseIndication(collision=True):
                # Both sides asked at once (PS3.8 7.2.2): the requestor answers first, and the acceptor once it is confirmed.
                if self.core.upper_layer.role is Role.REQUESTOR:
                    self.core.upper_layer.confirm_release()
                    self._reply_due = True
            case ReleaseIndication():
                self.end(lambda: AssociationClosed("the peer released the association"))
            case ReleaseConfirmation():
                if self.core.upper_layer.state is State.STA12:
                    self.core.upper_layer.confirm_release()
                self.end(lambda: AssociationClosed("the association was released"))
            case AbortIndication(source=source, reason=reason):
                self.end(lambda: AssociationAborted(source, reason))
                self._stop_writing()
            case ProviderAbort(reason=reason, message=message):
                self.end(lambda: RemoteProtocolError(f"the association was aborted: {message}", reason))
            case TransportLost():
                cause = self.transport.error
                self.end(lambda: _closed(cause))
                self._stop_writing()
            case _:
                self.end(lambda: RemoteProtocolError("the association was aborted: unexpected PDU", 2))

    def _stop_writing(self) -> None:
        """Wake a writer whose peer is gone: it would wait for nobody."""
        if self._send_lock.locked():
            self.transport.abort()

    def pump(self) -> bool:
        """Look at what has been received until a message is filed, the association ends, or it is the turn of others.

        ``False`` wants bytes.
        """
        core = self.core
        if core.upper_layer.idle:
            return False
        while self._streak < TURN:
            event = core.next_event()
            if event is None:
                return False
            self._streak += 1
            kind = type(event)
            if kind is MessageReceived:
                context_id, message, has_data_set = event  # type: ignore[misc]
                if not has_data_set:
                    self.file(context_id, message, None)
                    return True
                if type(message) is CStoreRQ:
                    incoming = self._incoming = IncomingDataSet(self, self.limits.data_set)
                    self.file(context_id, message, incoming)
                    return True
                self._collecting = (context_id, message, bytearray())
            elif kind is DataSetReceived:
                if self._collect(*event):  # type: ignore[misc]
                    return True
            elif kind is UnknownMessageReceived:
                if event.has_data_set:  # type: ignore[union-attr]
                    self._collecting = (event.context_id, event, None)  # type: ignore[union-attr, assignment]
                else:
                    self.file_unknown(event)  # type: ignore[arg-type]
                    return True
            elif kind is Pause:
                self._streak = TURN
            else:
                self.handle(event)
                if self._end is not None:
                    return True
        return True

    def _collect(self, data: memoryview, last: bool) -> bool:
        assert self._collecting is not None
        context_id, message, collected = self._collecting
        if collected is not None:
            collected += data
            if len(collected) > self.limits.identifier:
                collected = None
                self._collecting = (context_id, message, None)
        if not last:
            return False
        self._collecting = None
        if isinstance(message, UnknownMessageReceived):
            self.file_unknown(message)
        else:
            self.file(context_id, message, Oversized() if collected is None else bytes(collected))
        return True

    async def receive_some(self, deadline: float) -> None:
        """Receive bytes for the core.

        :raises TimeoutError: the deadline passed between two messages.
        :raises OperationTimeout: of kind ``"message"``, inside of one.
        """
        self._received(await self._arrival(deadline))

    # A coroutine within a coroutine is passed through on every wake-up, so the common case has as few as it can.

    def _arrival(self, deadline: float) -> Awaitable[bytes | memoryview]:
        """Return what gives the next bytes, see :meth:`receive_some`."""
        self._streak = 0
        if self.core.mid_message:
            return self._arrival_within_message()
        self._waited = 0.0
        self._got = 0
        # An answer is awaited and the peer has begun to say something since we spoke.
        return self.transport.receive(deadline, acknowledge=not self._sent)

    async def _arrival_within_message(self) -> bytes | memoryview:
        allowed = self.timeouts.message
        start = self.now()
        try:
            data = await self.transport.receive(math.inf if allowed is None else start + allowed, acknowledge=True)
        except TimeoutError:
            self.abort_now(lambda: OperationTimeout("message", allowed))
            raise self.error() from None
        self._waited += self.now() - start
        self._got += len(data)
        rate = self.limits.data_rate
        if allowed is not None and rate is not None and self._waited > allowed:
            if self._got < rate * self._waited:
                self.abort_now(lambda: OperationTimeout("message", allowed))
                raise self.error()
            self._waited = 0.0
            self._got = 0
        return data

    def _received(self, data: bytes | memoryview) -> None:
        """Give the core what came: bytes, or the end of the stream."""
        self._sent = False
        if data:
            self.core.upper_layer.receive_data(data)
        else:
            self.core.upper_layer.receive_eof()

    async def wait(self, box: Box[Any], seconds: float | None, kind: str) -> None:
        """Wait until something is filed in ``box``; read while nobody else does.

        :param seconds: how long to wait for the peer; it does not run while user code holds the baton.
        :param kind: the name of the deadline.
        :raises OperationTimeout: nothing came; the association is aborted.
        :raises AssociationError: the association ended.

        Cancelling it loses nothing.
        """
        deadline = math.inf if seconds is None else self.now() + seconds
        while not box.items:
            if self._end is not None:
                await self.flush_control()
                raise self._end()
            if self._baton_free:
                try:
                    await self._lead(box, deadline)
                except TimeoutError as exc:
                    if isinstance(exc, OperationTimeout):
                        raise
                    if self._end is not None:
                        continue
                    deadline = self.expired(box, seconds, kind)
                if not box.items and self._has_own(box) and await self.serve_own(box):
                    deadline = math.inf if seconds is None else self.now() + seconds
            else:
                if not self.may_read():
                    self.check_room()
                await self._follow(box, deadline)
                if not box.items and self._end is None and self.now() >= deadline:
                    held = self._incoming is not None or not self.may_read()
                    deadline = self.now() + (seconds or 0) if held else self.expired(box, seconds, kind)

    def expired(self, box: Box[Any], seconds: float | None, kind: str) -> float:
        """Abort because a deadline passed, or return a later one."""
        self.abort_now(lambda: OperationTimeout(kind, seconds))
        raise self.error() from None

    async def _lead(self, box: Box[Any], deadline: float) -> None:
        self._baton_free = False
        try:
            while not box.items and self._end is None:
                if not self.pump():
                    if self._reply_due:
                        self._reply_due = False
                        await self.flush_control()
                    if not self.may_read():
                        start = self.now()
                        await self.before_reading()
                        self.on_held(self.now() - start)
                        deadline += self.now() - start
                    self._received(await self._arrival(min(deadline, self.pending_deadline())))
                elif self._incoming is not None or (not box.items and self._has_own(box)):
                    return
                elif self._streak >= TURN:
                    await self._give_turn()
        finally:
            if self._incoming is None:
                self._baton_free = True
                if self._followers:
                    self._pass_baton()
                if self._watching:
                    # What has come together with the answer: nobody else may look at it.
                    self.poll()

    async def _give_turn(self) -> None:
        """Let other tasks run. Cancelling it loses nothing."""
        self._streak = 0
        await checkpoint()

    def _has_own(self, box: Box[Any]) -> bool:
        return False

    async def _follow(self, box: Box[Any], deadline: float) -> None:
        event = box.event = anyio.Event()
        self._followers.append(box)
        done = False
        try:
            with CancelScope(deadline=deadline):
                await event.wait()
            done = True
        finally:
            box.event = None
            self._followers.remove(box)
            if not done and self._baton_free:
                self._pass_baton()

    def _pass_baton(self) -> None:
        self._baton_free = True
        for box in self._followers:
            if box.event is not None and not box.event.is_set():
                box.event.set()
                return

    def incoming_done(self, incoming: IncomingDataSet) -> None:
        """Take the baton back from a data set that has ended."""
        if self._incoming is incoming:
            self._incoming = None
            self.on_held(self.now() - incoming.since)
            self._pass_baton()
            if self._watching:
                self.poll()

    @property
    def incoming(self) -> IncomingDataSet | None:
        """The data set of a C-STORE that is coming in and was not read to its end."""
        return self._incoming

    def lose(self) -> None:
        """End because the transport is gone, which nobody who reads has seen so far."""
        self.end(lambda: _closed(None))
        self._stop_writing()

    @property
    def baton_held(self) -> bool:
        """Whether a data set that was not read to its end holds the baton."""
        return self._incoming is not None

    def watch(self) -> bool:
        """Look at what comes also while nobody reads, without a task for it, if the transport can do that.

        What is filed then is announced by :meth:`on_surplus`.
        """
        self._watching = self.transport.watch(self.poll)
        return self._watching

    def poll(self) -> None:
        """Look at what has come already, without waiting, unless somebody reads."""
        if not self._baton_free or self._end is not None:
            return
        if self.core.upper_layer.idle and not self.transport.has_received:
            self.on_surplus()
            return
        self._baton_free = False
        upper_layer = self.core.upper_layer
        try:
            while self._incoming is None and self._end is None and self.may_read():
                if self._streak >= TURN:
                    self._poll_later()
                    break
                if self.pump():
                    continue
                data = self.transport.receive_nowait() if self._watching else None
                if data is None:
                    break
                if data:
                    upper_layer.receive_data(data)
                else:
                    upper_layer.receive_eof()
        finally:
            if self._incoming is None:
                self._pass_baton()
        self.on_surplus()

    def _poll_later(self) -> None:
        """Go on looking once other tasks had their turn, unless somebody reads then."""
        self._streak = 0
        if self._watching:
            # Only where the transport calls us, which is on asyncio; else whoever waits goes on.
            asyncio.get_running_loop().call_soon(self.poll)

    # Writing.

    async def send(
        self,
        context_id: int,
        message: Message,
        data_set: bytes | Outgoing | list[memoryview] | None = None,
        begun: Callable[[], None] | None = None,
    ) -> None:
        """Send one message.

        :param data_set: its data set: in memory, to be read, or laid out together with the command set.
        :param begun: called when the first byte goes out.
        :raises AssociationError: the association has ended.
        :raises OperationTimeout: of kind ``"write"``: the peer does not read; the association is aborted.

        Cancelled while it waits for its turn, nothing was sent. Cancelled after the first byte, the message is finished
        if at most 1 MiB is left of it and goes out within a second; else the association is aborted.
        """
        door = self._send_lock
        if not door.enter():
            await door.wait()
        try:
            if self._end is not None:
                raise self._end()
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("sending %s on context %d", type(message).__name__, context_id)
            core = self.core
            if data_set is None or isinstance(data_set, bytes):
                core.send_message(context_id, message, data_set)
            elif isinstance(data_set, list):
                core.send_buffers(context_id, data_set)
            else:
                await self._send_outgoing(context_id, message, data_set, begun)
                return
            if begun is not None:
                begun()
            await self._transmit(core.upper_layer.data_to_send())
        finally:
            door.leave()

    async def _transmit(self, buffers: list[Buffer]) -> None:
        transport = self.transport
        limit = self.timeouts.write
        position = 0
        self._sent = True
        try:
            for buffer in buffers:
                await transport.send(buffer, math.inf if limit is None else self.now() + limit)
                position += 1
                if type(buffer) is memoryview:
                    recycle(buffer)
        except TimeoutError:
            self._write_expired()
        except AssociationClosed as exc:
            await self._lost(exc)
        except get_cancelled_exc_class():
            rest = buffers[position + 1 :]
            await self._finish_cancelled(lambda: self._send_rest(rest), sum(map(len, rest)))
            raise

    async def _send_rest(self, buffers: list[Buffer]) -> None:
        await self.transport.flush()
        for buffer in buffers:
            await self.transport.send(buffer)

    async def _send_outgoing(
        self, context_id: int, message: Message, source: Outgoing, begun: Callable[[], None] | None
    ) -> None:
        prefix = self.core.begin_message(context_id, message, has_data_set=True)
        writer = Writer(self, source, context_id, prefix, begun)
        try:
            await writer.run()
        except (TimeoutError, AssociationClosed) as exc:
            if writer.reading:
                # A file of a network drive, or the association that it comes from; ours is well.
                self._broke_off(writer)
                raise
            if isinstance(exc, AssociationClosed):
                await self._lost(exc)
            self._write_expired()
        except get_cancelled_exc_class():
            if not writer.started:
                self.core.abandon_message()
            else:
                await self._finish_cancelled(writer.finish, writer.remaining)
            raise
        except Exception:
            self._broke_off(writer)
            raise

    def _broke_off(self, writer: Writer) -> None:
        """Give up a message whose source failed: the rest of it will never come."""
        if not writer.started:
            self.core.abandon_message()
        else:
            self.abort_now(lambda: AssociationAborted(0, 0, "the association was aborted: a data set broke off"))

    async def _finish_cancelled(self, finish: Callable[[], Any], remaining: float) -> None:
        """Finish a message whose sender was cancelled, or abort."""
        finished = False
        # A peer that asked for the release still reads (Sta8); one that is gone does not.
        gone = self._end is not None and self.core.upper_layer.state is not State.STA8
        try:
            if not gone and not self.transport.broken and remaining <= _FINISH_SIZE:
                with CancelScope(shield=True, deadline=self.now() + _FINISH_TIME):
                    try:
                        await finish()
                        finished = True
                    except (AssociationClosed, TimeoutError, OSError, DataSetError):
                        pass
        finally:
            if not finished:
                self.abort_now(
                    lambda: AssociationAborted(
                        0, 0, "the association was aborted: a message was cancelled half-written"
                    )
                )

    def _write_expired(self) -> None:
        seconds = self.timeouts.write
        self.end(lambda: OperationTimeout("write", seconds))
        self.transport.abort()
        raise self.error() from None

    async def _lost(self, exc: AssociationClosed) -> None:
        """Learn why the transport is gone: the peer's last words may still be there to read."""
        upper_layer = self.core.upper_layer
        if self._baton_free:
            self._baton_free = False
            try:
                with CancelScope(shield=True, deadline=self.now() + (self.timeouts.abort or 1)):
                    while self._end is None and self._incoming is None:
                        if not self.pump():
                            data = await self.transport.receive()
                            if data:
                                upper_layer.receive_data(data)
                            else:
                                upper_layer.receive_eof()
                        elif self._streak >= TURN:
                            await self._give_turn()
            finally:
                if self._incoming is None:
                    self._pass_baton()
        if self._end is None:
            cause = exc.__cause__
            self.end(lambda: _closed(cause))
        error = self.error()
        raise error from error.__cause__

    async def flush_control(self) -> None:
        """Send what the core wants to say, such as an A-ABORT, bounded."""
        upper_layer = self.core.upper_layer
        if upper_layer.state is State.STA8 and upper_layer.role is Role.REQUESTOR:
            upper_layer.confirm_release()
        buffers = upper_layer.data_to_send()
        if not buffers:
            return
        data = b"".join(buffers)
        if self.transport.unsent is None and not self._send_lock.locked() and self.transport.send_nowait(data):
            return
        limit = self.timeouts.abort
        try:
            with CancelScope(shield=True, deadline=math.inf if limit is None else self.now() + limit):
                async with self._send_lock:
                    await self.transport.flush()
                    await self.transport.send(data)
                return
        except (AssociationClosed, TimeoutError):
            pass
        self.transport.abort()

    def abort_now(self, make: Callable[[], Exception]) -> None:
        """End the association at once, without waiting: A-ABORT if it can be written, and close."""
        self.end(make)
        if self._closed:
            return
        self._closed = True
        upper_layer = self.core.upper_layer
        if upper_layer.can_abort:
            upper_layer.abort()
        data = b"".join(upper_layer.data_to_send())
        sent = not data or (
            not self.transport.broken and self.transport.unsent is None and self.transport.send_nowait(data)
        )
        if not sent:
            self.transport.abort()
        self._closed = not sent
        # With the A-ABORT out, close_transport() gives the peer a moment to close first.

    def close_now(self, make: Callable[[], Exception]) -> None:
        """End the association and close its transport at once, without waiting: A-ABORT if it can be written."""
        self.abort_now(make)
        self._closed = True
        self._let_go()
        self.transport.abort()

    def _let_go(self) -> None:
        if self._holding:
            self._holding = False
            threads.release()

    async def close_transport(self, linger: float | None) -> None:
        """Close the transport; in Sta13 wait up to ``linger`` seconds for the peer to close it first (PS3.8 9.2)."""
        upper_layer = self.core.upper_layer
        try:
            if not self._closed:
                if upper_layer.state is State.STA8:
                    upper_layer.confirm_release()
                await self.flush_control()
                if linger != 0 and upper_layer.state is State.STA13 and not upper_layer.should_close:
                    await self._linger(linger)
                if upper_layer.state is State.STA13 and not upper_layer.should_close:
                    upper_layer.artim_expired()
        finally:
            self._closed = True
            self.end(lambda: AssociationClosed("the association is closed"))
            self._let_go()
            await self.transport.aclose()

    async def _linger(self, seconds: float | None) -> None:
        """Give the peer so many seconds to close first (PS3.8 9.2).

        Whoever is cancelled gives it a moment to read our A-ABORT, not the whole of the ARTIM time.
        """
        start = self.now()
        deadline = math.inf if seconds is None else start + seconds
        try:
            await self._await_close(deadline)
        except get_cancelled_exc_class():
            # A cancellation of asyncio's own, of a task that has to end at once, is not to be waited out.
            if current_effective_deadline() == -math.inf:
                deadline = min(deadline, start + (self.timeouts.abort or 1.0))
                with CancelScope(shield=True, deadline=deadline):
                    await self._await_close(deadline)
            raise

    async def _await_close(self, deadline: float) -> None:
        """Wait until the peer closes, ignoring what it still sends (Sta13)."""
        upper_layer = self.core.upper_layer
        while self.transport.is_receiving and self.now() < deadline:
            await checkpoint()  # somebody was told that it has ended, and is on the way out
        while not upper_layer.should_close and self.now() < deadline:
            await skip_events(upper_layer)
            await self.flush_control()
            if upper_layer.should_close:
                break
            try:
                data = await self.transport.receive(deadline)
            except TimeoutError:
                break
            if data:
                upper_layer.receive_data(data)
            else:
                upper_layer.receive_eof()


def _closed(cause: BaseException | None) -> AssociationError:
    error = AssociationClosed(f"the connection was lost: {cause}" if cause else "the peer closed the connection")
    error.__cause__ = cause
    return error
