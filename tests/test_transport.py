"""Byte transports."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from asyncdicom.exceptions import AssociationClosed
from asyncdicom.protocol.framing import RECEIVE_SIZE
from asyncdicom.transport import Listener, Transport, listen, open_tcp, wrap_socket
from asyncdicom.transport._asyncio import _of_thread

pytestmark = pytest.mark.anyio

needs_uvloop = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[Transport, Transport]]:
    """Give two transports that are connected."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    left, right = await wrap_socket(one), await wrap_socket(other)
    try:
        yield left, right
    finally:
        await left.aclose()
        await right.aclose()


async def _send_all(transport: Transport, data: bytes, sizes: list[int]) -> None:
    position = 0
    while position < len(data):
        size = sizes[position % len(sizes)]
        await transport.send(data[position : position + size])
        position += size


@pytest.mark.parametrize("sizes", [[RECEIVE_SIZE], [1 << 20], [70_000, 300_000, 12], [16_000]])
async def test_what_was_received_does_not_change_while_it_is_looked_at(sizes: list[int]) -> None:
    data = random.Random(1).randbytes(6 << 20)
    kept: list[bytes | memoryview] = []
    async with _pair() as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(_send_all, left, data, sizes)
        size = 0
        while size < len(data):
            piece = await right.receive()
            size += len(piece)
            kept.append(piece)
        assert b"".join(kept) == data


async def test_what_nobody_looks_at_any_more_makes_room_for_more() -> None:
    data = random.Random(2).randbytes(32 << 20)
    views: set[int] = set()
    position = 0
    async with _pair() as (left, right), anyio.create_task_group() as tasks:
        tasks.start_soon(_send_all, left, data, [1 << 20])
        while position < len(data):
            piece = await right.receive()
            assert piece == data[position : position + len(piece)]
            position += len(piece)
            if isinstance(piece, memoryview):
                assert piece.readonly
                views.add(id(piece.obj))
            del piece
    assert len(views) <= 8


async def test_each_thread_receives_into_memory_of_its_own() -> None:
    here = _of_thread()
    assert _of_thread() is here
    assert await anyio.to_thread.run_sync(_of_thread) is not here


async def test_a_deadline_ends_a_receive_and_loses_nothing() -> None:
    async with _pair() as (left, right):
        with pytest.raises(TimeoutError):
            await right.receive(anyio.current_time() + 0.001)
        await left.send(b"late")
        assert await right.receive() == b"late"


async def test_the_end_of_the_stream_is_empty_bytes_again_and_again() -> None:
    async with _pair() as (left, right):
        await left.send(b"last")
        await left.aclose()
        assert [await right.receive() for _ in range(3)] == [b"last", b"", b""]


async def test_a_peer_that_does_not_read_ends_a_send_at_its_deadline_and_what_is_left_is_known() -> None:
    async with _pair() as (left, right):
        data = bytes(32 << 20)
        with pytest.raises(TimeoutError):
            await left.send(data, anyio.current_time() + 0.01)
        assert not left.broken
        size = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(left.flush)
            while size < len(data):
                size += len(await right.receive())
        assert size == len(data)


async def test_a_send_to_a_closed_connection_says_so() -> None:
    async with _pair() as (left, right):
        await right.aclose()
        with pytest.raises(AssociationClosed):
            await _send_all(left, bytes(64 << 20), [1 << 16])


async def test_a_listener_is_connected_to_by_name_and_number() -> None:
    sockets = listen("127.0.0.1", 0)
    try:
        port = sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            transport = await open_tcp(host, port)
            assert transport.peer_address == ("127.0.0.1", port)
            await transport.aclose()
    finally:
        for sock in sockets:
            sock.close()


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[Transport, Transport]]:
    """Give the two ends of a connection over TCP: that which was made, and that which was accepted."""
    (listener,) = listen("127.0.0.1", 0)
    with listener:
        made = await open_tcp("127.0.0.1", listener.getsockname()[1])
        listener.setblocking(True)
        connection, _ = listener.accept()
        connection.setblocking(False)
        accepted = await wrap_socket(connection)
        try:
            yield made, accepted
        finally:
            await made.aclose()
            await accepted.aclose()


@pytest.mark.parametrize(
    "anyio_backend",
    ["asyncio", "trio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=needs_uvloop)],
)
async def test_both_ends_send_at_once_and_notice_a_peer_that_is_gone(anyio_backend: object) -> None:
    async with _connected() as ends:
        for end in ends:
            assert end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert ends[0].peer_address == ends[1].local_address
        assert ends[0].local_address == ends[1].peer_address


class Unlucky(socket.socket):
    """A socket that listens, and fails to accept so many times."""

    failures: Iterator[int] = iter(())

    def accept(self) -> tuple[socket.socket, object]:
        for number in self.failures:
            raise OSError(number, os.strerror(number))
        return super().accept()


def _unlucky(*failures: int) -> Unlucky:
    (listener,) = listen("127.0.0.1", 0)
    sock = Unlucky(fileno=listener.detach())
    sock.failures = iter(failures)
    sock.setblocking(False)
    return sock


def _call(sock: socket.socket) -> socket.socket:
    return socket.create_connection(sock.getsockname())


@pytest.mark.parametrize(
    "failures",
    [(), (errno.ECONNABORTED,), (errno.EPROTO, errno.EPERM), (errno.EMFILE,), (errno.ENFILE, errno.EMFILE)],
    ids=str,
)
async def test_what_fails_to_be_accepted_does_not_end_accepting(failures: tuple[int, ...]) -> None:
    sock = _unlucky(*failures)
    listener = Listener([sock])
    taken: list[socket.socket] = []
    came = anyio.Event()

    def take(connection: socket.socket) -> None:
        taken.append(connection)
        if len(taken) == 2:
            came.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.accept, sock, take)
            callers = [_call(sock), _call(sock)]
            await came.wait()
            assert sorted(one.getpeername() for one in taken) == sorted(one.getsockname() for one in callers)
            assert not any(connection.getblocking() for connection in taken)
            listener.close()
    for one in (*taken, *callers):
        one.close()


async def test_a_listener_can_be_closed_while_it_pauses() -> None:
    taken: list[socket.socket] = []

    def fail() -> Iterator[int]:
        failed.set()
        yield errno.EMFILE

    failed = anyio.Event()
    sock = _unlucky()
    sock.failures = fail()
    listener = Listener([sock])
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.accept, sock, taken.append)
            with _call(sock):
                await failed.wait()
                await anyio.wait_all_tasks_blocked()
                listener.close()
    assert sock.fileno() == -1
    assert not taken


async def test_a_socket_that_listens_no_more_ends_accepting() -> None:
    taken: list[socket.socket] = []
    sock = _unlucky(errno.EINVAL)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Listener([sock]).accept, sock, taken.append)
            with _call(sock):
                pass
    sock.close()
    assert not taken


async def test_who_stops_accepting_leaves_what_comes_to_others() -> None:
    taken: list[socket.socket] = []
    (sock,) = listen("127.0.0.1", 0)
    listener = Listener([sock])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.accept, sock, taken.append)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with _call(sock):
        await anyio.wait_readable(sock)
        sock.accept()[0].close()
    listener.close()
    await listener.accept(sock, taken.append)
    assert not taken
