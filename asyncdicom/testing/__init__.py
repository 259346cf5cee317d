"""Tools for testing programs that use asyncdicom, and asyncdicom itself: no network, no waiting, on asyncio and trio.

:func:`find_request`, :func:`store_request`, :func:`retrieve_request`, :func:`echo_request` and :func:`n_request` make the
requests that handlers are given, so that a handler is tested as the plain function that it is. :func:`connected` runs
:class:`asyncdicom.Services` behind an association in memory. :func:`memory_stream_pair` is the connection below,
:class:`FaultyStream` makes one that hangs or fails where it is told to, and :class:`ScriptedPeer` plays the other side
byte by byte. :class:`FaultyRelay` stands between real programs, and delays, stalls, cuts and corrupts what they say.
"""

from __future__ import annotations

from .handlers import echo_request, find_request, n_request, retrieve_request, store_request
from .peer import (
    RELEASE_RP,
    RELEASE_RQ,
    Received,
    ScriptedPeer,
    abort_pdu,
    command_set,
    message_pdus,
    parse_command_set,
    reject_pdu,
)
from .relay import FaultyRelay, Line
from .served import connected
from .streams import FaultyStream, MemoryStream, memory_stream_pair

__all__ = [
    "RELEASE_RP",
    "RELEASE_RQ",
    "FaultyRelay",
    "FaultyStream",
    "Line",
    "MemoryStream",
    "Received",
    "ScriptedPeer",
    "abort_pdu",
    "command_set",
    "connected",
    "echo_request",
    "find_request",
    "memory_stream_pair",
    "message_pdus",
    "n_request",
    "parse_command_set",
    "reject_pdu",
    "retrieve_request",
    "store_request",
]
