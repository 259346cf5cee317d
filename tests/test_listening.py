"""Sockets that are listened on before there is a server, and connections that come ready made."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import sop

pytestmark = pytest.mark.anyio


def services() -> asyncdicom.Services:
    made = asyncdicom.Services()
    made.echo()(lambda request: None)
    return made


async def test_sockets_that_listen_already_are_served() -> None:
    (sock,) = asyncdicom.listen("X@127.0.0.1:0")
    async with asyncdicom.Server(services(), "X@127.0.0.1:0", sockets=[sock], drain=0) as server:
        assert server.addresses[0].port == sock.getsockname()[1]
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]) as association:
            assert (await association.echo()).status == 0


async def test_an_address_that_is_taken_is_refused() -> None:
    (sock,) = asyncdicom.listen("X@127.0.0.1:0")
    with sock:
        with pytest.raises(
            asyncdicom.ConnectError, match=r"cannot listen on X@127\.0\.0\.1:\d+: address already in use"
        ):
            asyncdicom.listen(f"X@127.0.0.1:{sock.getsockname()[1]}")


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
async def test_a_port_is_shared_if_both_sides_say_so() -> None:
    (one,) = asyncdicom.listen("X@127.0.0.1:0", reuse_port=True)
    with one:
        (other,) = asyncdicom.listen(f"X@127.0.0.1:{one.getsockname()[1]}", reuse_port=True)
        other.close()


async def test_the_path_of_a_server_that_has_ended_is_used_again(tmp_path: Path) -> None:
    address = f"X@{tmp_path}/dicom.sock"
    for _ in range(2):  # nobody removes the path
        (sock,) = asyncdicom.listen(address)
        with sock:
            with pytest.raises(asyncdicom.ConnectError, match="address already in use"):
                asyncdicom.listen(address)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{tmp_path}/dicom.sock")


async def test_a_file_is_not_taken_for_the_socket_of_a_server_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("important")
    with pytest.raises(asyncdicom.ConnectError, match="address already in use"):
        asyncdicom.listen(f"X@{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "important"


async def test_a_connected_socket_is_served_as_if_it_had_been_accepted() -> None:
    (sock,) = asyncdicom.listen("X@127.0.0.1:0")
    with sock:
        async with asyncdicom.Server(services(), "X@127.0.0.1:0", sockets=[], drain=0) as server:
            assert server.addresses == ()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_hand_over, sock, server)
                address = f"X@127.0.0.1:{sock.getsockname()[1]}"
                async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as association:
                    assert (await association.echo()).status == 0
                    assert len(server.associations) == 1
    assert server.associations == ()


async def _hand_over(sock: socket.socket, server: asyncdicom.Server) -> None:
    await anyio.wait_readable(sock)
    connection, _ = sock.accept()
    await server.serve_socket(connection)
    assert connection.fileno() == -1


async def test_a_connected_socket_of_a_peer_that_has_gone_is_closed() -> None:
    async with asyncdicom.Server(services(), "X@127.0.0.1:0", sockets=[], drain=0) as server:
        ours, theirs = socket.socketpair()
        theirs.close()
        descriptor = ours.fileno()
        await server.serve_socket(ours)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
