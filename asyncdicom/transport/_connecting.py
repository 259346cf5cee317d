"""Connections that are made, and those that were accepted."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
from typing import Any

import anyio

from ..exceptions import AssociationClosed, ConnectError, OperationTimeout
from ._asyncio import AsyncioTransport
from ._base import Transport, keep_alive, on_trio
from ._tls import TLSTransport
from ._trio import TrioTransport

__all__ = ["open_tcp", "start_tls", "wrap_socket"]


async def open_tcp(
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    connect_timeout: float | None = None,
    tls_timeout: float | None = None,
) -> Transport:
    """Connect to a host, over IPv6 or IPv4, whichever answers first.

    :param host: a name or an address; a path that starts with ``/`` is a UNIX socket.
    :param ssl_context: do a TLS handshake with it.
    :param server_hostname: the name to verify instead of ``host``.
    :param connect_timeout: seconds for the connection.
    :param tls_timeout: seconds for the handshake.
    :raises ConnectError: refused, unreachable, name or TLS failure; cancelling it closes what was opened.
    :raises OperationTimeout: of kind ``"connect"`` or ``"tls"``.
    """
    try:
        transport = await (_connect_on_trio if on_trio() else _connect_on_asyncio)(host, port, connect_timeout)
    except OSError as exc:
        raise ConnectError(f"cannot connect to {_show(host, port)}: {_reason(exc)}") from exc
    except UnicodeError as exc:
        raise ConnectError(f"cannot connect to {_show(host, port)}: not a host name") from exc
    if transport is None:
        raise OperationTimeout("connect", connect_timeout)
    if ssl_context is None:
        return transport
    return await start_tls(
        transport,
        ssl_context,
        server_side=False,
        hostname=server_hostname or host,
        timeout=tls_timeout,
    )


async def start_tls(
    transport: Transport,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    hostname: str | None = None,
    timeout: float | None = None,
) -> TLSTransport:
    """Do a TLS handshake over a transport, which is closed when it fails.

    :raises ConnectError: the handshake failed.
    :raises OperationTimeout: of kind ``"tls"``.
    """
    try:
        tls = TLSTransport(transport, context, server_side=server_side, hostname=hostname)
        await tls.handshake(_deadline(timeout))
    except (ssl.SSLError, ValueError) as exc:
        await transport.aclose()
        raise ConnectError(f"TLS handshake failed: {_reason(exc)}") from exc
    except AssociationClosed as exc:
        await transport.aclose()
        raise ConnectError("TLS handshake failed: the connection was closed") from exc
    except TimeoutError:
        transport.abort()
        raise OperationTimeout("tls", timeout) from None
    except BaseException:
        transport.abort()
        raise
    return tls


def _deadline(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else host if host.startswith("/") else f"{host}:{port}"


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(exc, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_reason(inner) for inner in exc.exceptions))
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    if isinstance(exc.__cause__, BaseExceptionGroup):
        return _reason(exc.__cause__)
    return str(exc)


async def _connect_on_trio(host: str, port: int, seconds: float | None) -> Transport | None:
    import trio

    with trio.CancelScope(deadline=_deadline(seconds)):
        if host.startswith("/"):
            return TrioTransport((await trio.open_unix_socket(host)).socket)
        return TrioTransport((await trio.open_tcp_stream(host, port)).socket)
    return None


async def _connect_on_asyncio(host: str, port: int, seconds: float | None) -> Transport | None:
    loop = asyncio.get_running_loop()
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            if host.startswith("/"):
                _, protocol = await loop.create_unix_connection(AsyncioTransport, host)
            else:
                # An address needs no race between addresses, and uvloop tries those of a name one after the other.
                races = not _is_address(host) and not type(loop).__module__.startswith("uvloop")
                eyeballs: dict[str, Any] = {"happy_eyeballs_delay": 0.25} if races else {}
                _, protocol = await loop.create_connection(AsyncioTransport, host, port, **eyeballs)
    except TimeoutError:
        if timeout.expired():
            return None
        raise  # the operating system gave up first
    keep_alive(protocol.socket)
    return protocol


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def wrap_socket(sock: socket.socket) -> Transport:
    """Return a transport for a connected, non-blocking socket, which it owns from now on."""
    if on_trio():
        import trio

        return TrioTransport(trio.socket.from_stdlib_socket(sock))
    loop = asyncio.get_running_loop()
    keep_alive(sock)
    try:
        _, protocol = await loop.connect_accepted_socket(AsyncioTransport, sock)
    except BaseException:
        sock.close()
        raise
    return protocol
