"""Asyncio-native DICOM networking: streaming, cancellable, safe and fast.

Names are imported when they are first used, so that ``import asyncdicom`` loads neither pydicom nor SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Address": "settings",
    "Association": "association",
    "AssociationAborted": "exceptions",
    "AssociationClosed": "exceptions",
    "AssociationError": "exceptions",
    "AssociationPool": "pool",
    "AssociationRejected": "exceptions",
    "AssociationRequest": "admission",
    "Category": "status",
    "ConcurrencyError": "exceptions",
    "ConnectError": "exceptions",
    "DataSetError": "exceptions",
    "DicomNetworkError": "exceptions",
    "EchoRequest": "requests",
    "Find": "operations",
    "FindNegotiation": "protocol.extended",
    "FindRequest": "requests",
    "Get": "operations",
    "Instance": "instances",
    "Limits": "settings",
    "LocalProtocolError": "exceptions",
    "Move": "operations",
    "NRequest": "requests",
    "NoPresentationContext": "exceptions",
    "OperationTimeout": "exceptions",
    "Peer": "association",
    "PeerProfile": "settings",
    "PresentationContext": "protocol.negotiation",
    "Progress": "responses",
    "ProtocolError": "exceptions",
    "RemoteProtocolError": "exceptions",
    "Request": "requests",
    "Response": "responses",
    "Retrieval": "retrieval",
    "RetrieveNegotiation": "protocol.extended",
    "RetrieveRequest": "requests",
    "Server": "server",
    "Services": "services",
    "Status": "status",
    "StatusError": "exceptions",
    "StorageNegotiation": "protocol.extended",
    "StoreMany": "storing",
    "StoreRequest": "requests",
    "Stored": "storing",
    "Timeouts": "settings",
    "UserIdentity": "settings",
    "cleanup": "cancellation",
    "connect": "client",
    "listen": "listening",
    "retrieve": "retrieval",
    "serve": "server",
}
_MODULES = frozenset({"dataset", "exceptions", "instrument", "protocol", "sop", "status", "testing", "tls"})

__all__ = [
    "Address",
    "Association",
    "AssociationAborted",
    "AssociationClosed",
    "AssociationError",
    "AssociationPool",
    "AssociationRejected",
    "AssociationRequest",
    "Category",
    "ConcurrencyError",
    "ConnectError",
    "DataSetError",
    "DicomNetworkError",
    "EchoRequest",
    "Find",
    "FindNegotiation",
    "FindRequest",
    "Get",
    "Instance",
    "Limits",
    "LocalProtocolError",
    "Move",
    "NRequest",
    "NoPresentationContext",
    "OperationTimeout",
    "Peer",
    "PeerProfile",
    "PresentationContext",
    "Progress",
    "ProtocolError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Retrieval",
    "RetrieveNegotiation",
    "RetrieveRequest",
    "Server",
    "Services",
    "Status",
    "StatusError",
    "StorageNegotiation",
    "StoreMany",
    "StoreRequest",
    "Stored",
    "Timeouts",
    "UserIdentity",
    "cleanup",
    "connect",
    "dataset",
    "exceptions",
    "instrument",
    "listen",
    "protocol",
    "retrieve",
    "serve",
    "sop",
    "status",
    "testing",
    "tls",
]

if TYPE_CHECKING:
    from . import dataset, exceptions, instrument, protocol, sop, status, testing, tls
    from .admission import AssociationRequest
    from .association import Association, Peer
    from .cancellation import cleanup
    from .client import connect
    from .exceptions import (
        AssociationAborted,
        AssociationClosed,
        AssociationError,
        AssociationRejected,
        ConcurrencyError,
        ConnectError,
        DataSetError,
        DicomNetworkError,
        LocalProtocolError,
        NoPresentationContext,
        OperationTimeout,
        ProtocolError,
        RemoteProtocolError,
        StatusError,
    )
    from .instances import Instance
    from .listening import listen
    from .operations import Find, Get, Move
    from .pool import AssociationPool
    from .protocol.extended import FindNegotiation, RetrieveNegotiation, StorageNegotiation
    from .protocol.negotiation import PresentationContext
    from .requests import EchoRequest, FindRequest, NRequest, Request, RetrieveRequest, StoreRequest
    from .responses import Progress, Response
    from .retrieval import Retrieval, retrieve
    from .server import Server, serve
    from .services import Services
    from .settings import Address, Limits, PeerProfile, Timeouts, UserIdentity
    from .status import Category, Status
    from .storing import Stored, StoreMany


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
