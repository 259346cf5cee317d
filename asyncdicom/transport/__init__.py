"""Byte transports: TCP and UNIX sockets on asyncio and trio, TLS, any anyio byte stream, and listeners.

Theory of operation
-------------------
A :class:`Transport` is five things: receive, send, what a cancelled send left undone, close, and what is known of the
peer. The errors of sockets, TLS and streams become ours here and nowhere else: a connection that is lost is the end of
the bytes (``receive`` returns ``b""``) with the cause kept in :attr:`Transport.error`.

*A cancelled send is exact.* A message must never be left half-written, so whoever cancels a send must be able to learn
how far it got. :attr:`Transport.unsent` holds what remains, :meth:`Transport.flush` finishes it, and
:attr:`Transport.broken` says that this cannot be known (a foreign stream), so that the connection is worthless.

*Nothing is paid per call.* When bytes are there, or the socket takes them, no task switch, timer or scope is needed. A
task that never has to wait still yields every few milliseconds, so that others get their turn.
"""

from __future__ import annotations

from ._base import Transport
from ._connecting import open_tcp, start_tls, wrap_socket
from ._listening import Listener, listen
from ._stream import StreamTransport
from ._tls import TLSTransport

__all__ = ["Listener", "StreamTransport", "TLSTransport", "Transport", "listen", "open_tcp", "start_tls", "wrap_socket"]
