"""A relay that delays: what comes from one side goes to the other a fixed time later, as fast as it came.

``python -m benchmarks.relay serve '{"port": 11112, "delay": 0.04}'`` listens on a free port of 127.0.0.1, which it writes as
a line of JSON, and connects to ``port`` there. ``delay`` is that of each direction, in seconds; a round trip takes twice as
long. There is no limit of bandwidth: the relay is a long line, not a slow one.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any

from .worker import main, say, wait

__all__ = ["DelayLine", "relay"]


class DelayLine(asyncio.Protocol):
    """One end of the relay: reads its connection, and writes to that of the other end after the delay."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._other: DelayLine | None = None
        self._ended = False

    def join(self, other: DelayLine) -> None:
        """Join the two ends; nothing is read before."""
        self._other, other._other = other, self
        for end in (self, other):
            if end._transport is not None:
                end._transport.resume_reading()

    def close(self) -> None:
        """Close the connection, without a word if anything is left to be written."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._push(data)

    def eof_received(self) -> bool:
        self._push(None)
        return True  # the connection stays open for the other direction

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is not None and self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        other = self._other
        if other is not None and other._transport is not None:
            other._transport.pause_reading()

    def resume_writing(self) -> None:
        other = self._other
        if other is not None and other._transport is not None:
            other._transport.resume_reading()

    # The delay.

    def _push(self, data: bytes | None) -> None:
        self._waiting.append((self._loop.time() + self._delay, data))
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._pop)

    def _pop(self) -> None:
        """Pass on what is due, in order; ``None`` is the end of this direction."""
        now = self._loop.time()
        other = self._other
        assert other is not None
        while self._waiting and self._waiting[0][0] <= now:
            _, data = self._waiting.popleft()
            if other._transport is None:
                continue
            if data is not None:
                other._transport.write(data)
                continue
            self._ended = True
            if other._ended or self._transport is None:
                other._transport.close()
                if self._transport is not None:
                    self._transport.close()
            else:
                other._transport.write_eof()
        self._timer = self._loop.call_at(self._waiting[0][0], self._pop) if self._waiting else None


async def relay(port: int, delay: float) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1, and relay each connection to ``port`` there.

    :param delay: of each direction, in seconds.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    class Accepted(DelayLine):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(connect(self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def connect(accepted: DelayLine) -> None:
        try:
            _, line = await loop.create_connection(lambda: DelayLine(delay), "127.0.0.1", port)
        except OSError:
            accepted.close()
        else:
            accepted.join(line)

    return await loop.create_server(lambda: Accepted(delay), "127.0.0.1", 0)


async def _serve(options: dict[str, Any]) -> None:
    server = await relay(options["port"], options["delay"])
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.to_thread(wait)


if __name__ == "__main__":
    main({"serve": lambda options: asyncio.run(_serve(options))})
