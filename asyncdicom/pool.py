"""A pool of associations with one peer: reused, replaced when they break, and bounded in number.

Theory of operation
-------------------
An association that is given back healthy waits, idle, for the next who asks; what is not is closed, and whoever asks next
gets a new one. Who has to wait gets a turn, in order, and with the turn the association that was just given back.

While the pool is entered, each idle association is watched by a task, which notices when the peer ends it and releases it
when it has been idle for too long. As with a server, these tasks are not in the user's task on asyncio; on trio their
nursery is open in place. Without watchers an association is looked at when it is taken.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import anyio
from anyio import CancelScope, current_time

from .client import Context, connect, default_contexts
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    AssociationRejected,
    ConnectError,
    DicomNetworkError,
    LocalProtocolError,
    OperationTimeout,
)
from .settings import Address, Limits, PeerProfile, Timeouts, UserIdentity

if TYPE_CHECKING:
    import os
    import ssl as _ssl
    from typing import Self, Unpack

    from anyio.abc import TaskGroup
    from pydicom import Dataset

    from .association import Association
    from .instances import Instance
    from .protocol.pdu import CommonExtendedNegotiation
    from .responses import Response
    from .services import Services

__all__ = ["AssociationPool"]

logger = logging.getLogger("asyncdicom.pool")

T = TypeVar("T")

#: Seconds that an association which has something to read gets to say whether it has ended.
_LOOK = 0.05


class _ConnectOptions(TypedDict, total=False):
    """The options of :func:`asyncdicom.connect`, but ``stream``."""

    calling: str
    contexts: Iterable[Context] | None
    ssl: _ssl.SSLContext | None
    server_hostname: str | None
    user_identity: UserIdentity | None
    async_operations: tuple[int, int]
    maximum_length: int
    extended_negotiation: Mapping[str, bytes] | None
    common_extended_negotiation: Sequence[CommonExtendedNegotiation]
    services: Services | None
    timeouts: Timeouts | None
    limits: Limits | None
    strict_roles: bool
    profile: PeerProfile | None


class _Idle:
    """An association between two uses.

    :ivar uses: how often it was used.
    :ivar since: when it was given back.
    :ivar scope: of the task that watches it.
    """

    __slots__ = ("association", "is_taken", "scope", "since", "uses")

    def __init__(self, association: Association, uses: int) -> None:
        self.association = association
        self.uses = uses
        self.since = current_time()
        self.is_taken = False
        self.scope: CancelScope | None = None

    def take(self) -> None:
        """End its idleness."""
        self.is_taken = True
        if self.scope is not None:
            self.scope.cancel()


class _Turn:
    """Somebody who waits for an association."""

    __slots__ = ("event", "idle")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.idle: _Idle | None = None


class AssociationPool:
    """A pool of associations with a peer: ``async with pool.association() as assoc`` gives a healthy one.

    ``async with AssociationPool("AET@host:port", size=4) as pool:`` opens nothing yet; leaving it releases the idle
    associations and aborts what is still in use, bounded by ``Timeouts.release``. It may be shared by any number of tasks of
    one event loop. Without entering it, call :meth:`aclose` at the end.

    :param address: ``"AET@host:port"`` or an :class:`asyncdicom.Address`.
    :param size: most associations at once; who asks for one more waits in turn.
    :param idle: seconds after which an association that nobody uses is released; ``None`` keeps it until the peer ends it.
    :param max_uses: uses after which an association is released; ``None`` is no limit. So it is when the peer's profile
        allows no more operations on it.
    :param retries: attempts beyond the first to associate when that fails for a reason that may pass: no connection, a
        transient rejection (PS3.8 Table 9-21), an abort. A permanent rejection is final.
    :param delay: seconds before the first of them; each further one waits twice as long.
    :param options: all others are those of :func:`asyncdicom.connect`.
    :raises ValueError: the address or AE title is not valid.
    :raises LocalProtocolError: the proposal breaks the standard, or a number makes no sense.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        size: int = 4,
        idle: float | None = 30.0,
        max_uses: int | None = None,
        retries: int = 2,
        delay: float = 0.25,
        **options: Unpack[_ConnectOptions],
    ) -> None:
        for name, value, least in (("size", size, 1), ("max_uses", max_uses, 1), ("retries", retries, 0)):
            if value is not None and value < least:
                raise LocalProtocolError(f"{name} is {value}: expected at least {least}")
        self.address = Address.parse(address)
        contexts = options.get("contexts")
        # An iterator could be used once only.
        options["contexts"] = default_contexts() if contexts is None else list(contexts)
        self._options = options
        self._timeouts = options.get("timeouts") or Timeouts()
        self._size = size
        self._idle_time = math.inf if idle is None else idle
        self._max_uses = math.inf if max_uses is None else max_uses
        self._retries = retries
        self._delay = delay
        connect(self.address, **options)  # what is wrong with them is told now
        self._in_use = 0
        self._leases: set[_Lease] = set()
        self._idle: deque[_Idle] = deque()
        self._turns: deque[_Turn] = deque()
        self._closed = False
        self._tasks: _Tasks | None = None

    def __repr__(self) -> str:
        return (
            f"<AssociationPool of {self.address}: {self._in_use} in use, {len(self._idle)} idle, {self._size} at most>"
        )

    # What can be seen.

    @property
    def in_use(self) -> int:
        """The number of associations that are in use, or being made."""
        return self._in_use

    @property
    def idle(self) -> int:
        """The number of associations that wait to be used."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """The number of those who wait for one."""
        return len(self._turns)

    # Using it.

    def association(self) -> _Lease:
        """Lend an association: ``async with pool.association() as assoc``.

        Entering it waits for a turn if all are in use, and makes one if none is idle; it raises what
        :func:`asyncdicom.connect` raises. Leaving it cancels what is still open on it (C-CANCEL) and gives it back, also by
        an exception; it is closed if it has ended, or if something is still outstanding on it.

        :raises LocalProtocolError: the pool is closed.

        Cancelling it while it waits changes nothing.
        """
        return _Lease(self)

    async def echo(self, *, check: bool = True) -> Response:
        """Verify that the peer answers, by C-ECHO on an association of the pool; see :meth:`asyncdicom.Association.echo`.

        If an association that was idle turns out to have ended, another one is used.
        """
        return await self._call(lambda association: association.echo(check=check))

    async def store(
        self,
        what: str | os.PathLike[str] | Dataset | Instance,
        *,
        priority: int = 0,
        convert: bool = True,
        check: bool = True,
        bulk_data: bool = True,
    ) -> Response:
        """Send an instance, by C-STORE on an association of the pool; see :meth:`asyncdicom.Association.store`.

        If an association that was idle turns out to have ended, another one is used: the peer may then get the instance
        twice, which is no error (PS3.4 B.2.3).
        """
        return await self._call(
            lambda association: association.store(
                what, priority=priority, convert=convert, check=check, bulk_data=bulk_data
            )
        )

    async def _call(self, verb: Callable[[Association], Awaitable[T]]) -> T:
        """Call a verb that may be repeated."""
        while True:
            lease = _Lease(self)
            async with lease as association:
                try:
                    return await verb(association)
                except (AssociationClosed, AssociationAborted):
                    if lease.is_new:
                        raise
                    logger.debug("an association with %s had ended: another one is used", self.address)

    async def _take(self) -> _Idle:
        """Wait for a turn and return an association that is healthy.

        :raises LocalProtocolError: the pool is closed.
        """
        self._check_open()
        found = None
        if self._in_use < self._size and not self._turns:
            self._in_use += 1
        else:
            found = await self._wait_for_turn()
        try:
            while True:
                self._check_open()
                if found is None and not self._idle:
                    found = await self._associate()
                    self._check_open()
                    return found
                if found is None:
                    found = self._idle.pop()  # the one that was used last
                    found.take()
                if await self._is_healthy(found):
                    return found
                await _end(found.association)
                found = None
        except BaseException:
            if found is not None:
                _close_now(found.association)
            self._pass_on(None)
            raise

    async def _wait_for_turn(self) -> _Idle | None:
        turn = _Turn()
        self._turns.append(turn)
        try:
            await turn.event.wait()
        except BaseException:
            if turn in self._turns:
                self._turns.remove(turn)
            else:
                self._pass_on(turn.idle)  # it was our turn: let the next one have it
            raise
        return turn.idle

    def _pass_on(self, idle: _Idle | None) -> None:
        """Give a turn, and an association, to the next who waits; without any it becomes idle."""
        if idle is not None and self._closed:
            _close_now(idle.association)
            idle = None
        if self._turns:
            turn = self._turns.popleft()
            turn.idle = idle
            turn.event.set()
            return
        self._in_use -= 1
        if idle is not None:
            self._idle.append(idle)
            if self._tasks is not None:
                self._tasks.start_soon(self._watch, idle)

    async def _is_healthy(self, idle: _Idle) -> bool:
        """Tell whether an association can be used, as far as that can be known without a round trip."""
        association = idle.association
        if not association.ended and current_time() - idle.since < self._idle_time:
            if not _is_readable(association):
                return True
            # Whatever has come while nobody looked, most of it is the end.
            with anyio.move_on_after(_LOOK):
                await association.wait_closed()
        return not association.ended and current_time() - idle.since < self._idle_time

    async def _associate(self) -> _Idle:
        """Make an association, with more than one attempt if need be."""
        delay = self._delay
        for attempt in range(self._retries + 1):
            try:
                association = await connect(self.address, **self._options).__aenter__()
            except (ConnectError, AssociationRejected, AssociationAborted, AssociationClosed, OperationTimeout) as exc:
                final = isinstance(exc, AssociationRejected) and exc.result != 2
                if final or attempt == self._retries:
                    raise
                logger.info("associating with %s failed, retrying in %g s: %s", self.address, delay, exc)
            else:
                return _Idle(association, 0)
            await anyio.sleep(delay)
            delay *= 2
            self._check_open()
        raise AssertionError

    async def _give_back(self, lease: _Lease) -> None:
        """Take an association back: it becomes idle, or is closed if it is not what it was."""
        association, uses = lease.held, lease.uses + 1
        assert association is not None
        kept: _Idle | None = None
        done = False
        try:
            if not association.ended and not self._closed:
                with CancelScope(shield=True, deadline=_deadline(self._timeouts.cancel)):
                    await association._leave_operations()
                if association.is_quiet and uses < self._max_uses and association.operations_left != 0:
                    kept = _Idle(association, uses)
            if kept is None:
                with CancelScope(shield=True, deadline=_deadline(self._timeouts.release)):
                    await _end(association)
            done = True
        except DicomNetworkError as exc:
            logger.debug("an association did not end well: %s", exc)
        finally:
            if not done:
                _close_now(association)
            self._leases.discard(lease)
            lease.held = None
            self._pass_on(kept)

    async def _watch(self, idle: _Idle) -> None:
        """Look at an idle association, and end it when its time is over."""
        if idle.is_taken:
            return
        association = idle.association
        try:
            with CancelScope(deadline=idle.since + self._idle_time) as idle.scope:
                await association.wait_closed()
            if not idle.is_taken:
                self._idle.remove(idle)
                idle.is_taken = True
                logger.debug(
                    "an idle association with %s %s", self.address, "ended" if association.ended else "is released"
                )
                await _end(association)
        except Exception:
            # Nobody is interested, and the other watchers have to go on.
            logger.exception("watching an idle association failed")
        finally:
            if not idle.is_taken:
                idle.is_taken = True
                if idle in self._idle:
                    self._idle.remove(idle)
                _close_now(association)

    # Its end.

    def _check_open(self) -> None:
        if self._closed:
            raise LocalProtocolError(f"the pool of associations with {self.address} is closed")

    async def __aenter__(self) -> Self:
        self._check_open()
        if self._tasks is not None:
            raise LocalProtocolError("a pool is entered once; make another one")
        self._tasks = _Tasks()
        await self._tasks.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = self._tasks
        assert tasks is not None
        try:
            await self._close(abort=exc is not None)
        finally:
            self._tasks = None
            await tasks.stop()

    async def aclose(self) -> None:
        """Close the pool: release what is idle, abort what is in use, and send away who waits, all bounded."""
        await self._close(abort=False)

    async def _close(self, *, abort: bool) -> None:
        self._closed = True
        while self._turns:
            turn = self._turns.popleft()
            self._in_use += 1  # given back as soon as it finds the pool closed
            turn.event.set()
        for lease in list(self._leases):
            if lease.held is not None:
                _close_now(lease.held)
        idle = list(self._idle)
        self._idle.clear()
        for one in idle:
            one.take()
        try:
            if idle and not abort:
                with CancelScope(shield=True, deadline=_deadline(self._timeouts.release)):
                    async with anyio.create_task_group() as tasks:
                        for one in idle:
                            tasks.start_soon(_end, one.association)
        finally:
            for one in idle:
                _close_now(one.association)


class _Lease:
    """An association lent by a pool; made by :meth:`AssociationPool.association`.

    :ivar is_new: it was made for this lease.
    """

    def __init__(self, pool: AssociationPool) -> None:
        self._pool = pool
        self.held: Association | None = None
        self.uses = 0

    @property
    def is_new(self) -> bool:
        return self.uses == 0

    async def __aenter__(self) -> Association:
        if self.held is not None:
            raise LocalProtocolError("an association of a pool is lent once; ask for another one")
        pool = self._pool
        idle = await pool._take()
        association = self.held = idle.association
        self.uses = idle.uses
        pool._leases.add(self)
        return association

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pool._give_back(self)


class _Tasks:
    """A task group: on asyncio in a task of its own, on trio in place."""

    def __init__(self) -> None:
        self._group: TaskGroup | None = None
        self._runner: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        assert self._group is not None
        self._group.start_soon(function, *arguments)

    async def start(self) -> None:
        if _on_trio():
            self._group = await anyio.create_task_group().__aenter__()
            return
        ready = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._runner = asyncio.create_task(self._run(ready), name="asyncdicom.AssociationPool")
        try:
            await asyncio.shield(ready)
        except BaseException:
            self._runner.cancel()
            raise

    async def _run(self, ready: asyncio.Future[None]) -> None:
        assert self._stop is not None
        async with anyio.create_task_group() as group:
            self._group = group
            ready.set_result(None)
            await self._stop.wait()
            group.cancel_scope.cancel()

    async def stop(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        if self._runner is not None:
            assert self._stop is not None
            self._stop.set()
            try:
                await asyncio.wait([self._runner])
            except asyncio.CancelledError:
                self._runner.cancel()
                raise
        elif self._group is not None:
            self._group.cancel_scope.cancel()
            try:
                await self._group.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                if len(group.exceptions) == 1:
                    raise group.exceptions[0] from None
                raise


def _on_trio() -> bool:
    module: Any = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())


def _deadline(seconds: float | None) -> float:
    return math.inf if seconds is None else current_time() + seconds


def _is_readable(association: Association) -> bool:
    """Tell whether something has come on an association."""
    if association.transport.has_received:
        return True
    sock: Any = association.transport.socket
    descriptor = -1 if sock is None else sock.fileno()
    if descriptor < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


async def _end(association: Association) -> None:
    """Release an association if nothing is outstanding on it, else abort it; close it in any case."""
    try:
        if association.ended or association.is_quiet:
            await association.release()
        else:
            await association.abort()
    except DicomNetworkError as exc:
        logger.debug("an association did not end well: %s", exc)


def _close_now(association: Association) -> None:
    association.close_now(lambda: AssociationAborted(0, 0, "the association was aborted: its pool was closed"))
