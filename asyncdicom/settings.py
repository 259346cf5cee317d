"""Addresses, timeouts, limits and identities: plain values that clients and servers share."""

from __future__ import annotations

import re
from dataclasses import field
from functools import lru_cache
from typing import Literal

from .protocol.values import frozen

__all__ = [
    "DEFAULT_MAXIMUM_LENGTH",
    "DEFAULT_PROFILE",
    "Address",
    "Limits",
    "PeerProfile",
    "Timeouts",
    "UserIdentity",
    "validate_ae_title",
]

#: The maximum length of P-DATA-TF PDUs that we announce, in bytes (PS3.8 D.1).
DEFAULT_MAXIMUM_LENGTH = 131_072

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\uffff\\]")


def validate_ae_title(title: str) -> str:
    """Return an AE title without its padding.

    :raises ValueError: it has not 1 to 16 characters, or holds a backslash or a control character (PS3.5 6.2, AE).
    """
    stripped = title.strip(" ")
    if not 1 <= len(stripped) <= 16 or _CONTROL.search(stripped):
        raise ValueError(f"{title[:40]!r} is not an AE title: 1 to 16 characters, no backslash, no control characters")
    return stripped


@frozen(kw_only=False)
class Address:
    """Where an application entity is found: its AE title, host and port.

    :param ae_title: 1 to 16 characters.
    :param host: a host name, an IPv4 or IPv6 address, or the path of a UNIX socket.
    :param port: 0 to 65 535.
    :raises ValueError: one of them is not valid.
    """

    ae_title: str
    host: str
    port: int = 104

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", validate_ae_title(self.ae_title))
        if not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port!r} is not a port number (0 to 65535)")
        if not self.host or any(c.isspace() or c < " " for c in self.host):
            raise ValueError(f"{self.host[:80]!r} is not a host")

    @staticmethod
    def parse(text: str | Address) -> Address:
        """Read ``AET@host:port``, split at the last ``@``; an IPv6 address stands in brackets.

        :raises ValueError: the text is not of this form.
        """
        return text if isinstance(text, Address) else _parse(text)

    def __str__(self) -> str:
        if self.host.startswith("/"):
            return f"{self.ae_title}@{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@lru_cache(128)
def _parse(text: str) -> Address:
    """Read an address; the last ones are remembered, for the same peers are connected to again and again."""
    ae_title, at, location = text.rpartition("@")
    if not at:
        raise ValueError(f"{text[:80]!r} is not an address: expected AET@HOST:PORT")
    if location.startswith("/"):
        return Address(ae_title, location, 0)
    if location.startswith("["):
        host, bracket, rest = location[1:].partition("]")
        port = rest[1:] if bracket and rest.startswith(":") else ""
    else:
        host, _, port = location.rpartition(":")
        if ":" in host:
            raise ValueError(f"{text[:80]!r} is not an address: an IPv6 address stands in brackets")
    if not host or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise ValueError(f"{text[:80]!r} is not an address: expected AET@HOST:PORT")
    return Address(ae_title, host, int(port))


@frozen
class Timeouts:
    """Deadlines in seconds; ``None`` is no limit. They run only while we wait for the peer.

    :param connect: until the transport connection is open.
    :param tls: for the TLS handshake.
    :param associate: for the answer to our A-ASSOCIATE-RQ; as acceptor this is the ARTIM timer (PS3.8 9.1.5), from
        accepting the connection to the end of negotiation.
    :param message: between the bytes of one message.
    :param response: until the next response to an operation.
    :param retrieve: instead of ``response`` for C-GET and C-MOVE; restarted by every pending response and every C-GET
        sub-operation (pendings are optional, PS3.4 C.4.2.3.1).
    :param idle: as acceptor, between operations.
    :param release: for the answer to our A-RELEASE-RQ.
    :param cancel: for the operation to end after our C-CANCEL, and for a handler to close.
    :param abort: for an A-ABORT to be written and the peer to close.
    :param write: for each 256 KiB that we send to be taken by the peer.
    :param handler: for a handler to return, or to yield its next item; what takes longer is cancelled and answered with a
        failure.
    """

    connect: float | None = 15
    tls: float | None = 15
    associate: float | None = 30
    message: float | None = 60
    response: float | None = 60
    retrieve: float | None = 600
    idle: float | None = 300
    release: float | None = 10
    cancel: float | None = 5
    abort: float | None = 1
    write: float | None = 60
    handler: float | None = None


@frozen
class Limits:
    """Bounds on what a peer can make us hold or do; ``None`` is no limit.

    :param associations: associations of one server at once; more are rejected with (2,3,2).
    :param associations_per_address: the same for each peer address.
    :param associations_per_ae_title: the same for each calling AE title.
    :param unassociated: connections of one server that have not yet associated; the oldest is closed for a new one.
    :param associate_pdu: bytes of an A-ASSOCIATE PDU that we collect.
    :param pdu_slack: bytes over our announced maximum that a P-DATA-TF PDU may have.
    :param command_set: bytes of a command set.
    :param identifier: bytes of a data set that is collected in memory: identifiers and the data sets of N- services.
    :param data_set: bytes of the data set of a C-STORE.
    :param contexts: presentation contexts of a proposal.
    :param outstanding: requests of a peer beyond the negotiated window that are held back before we stop reading.
    :param data_rate: least bytes per second of a message, averaged over ``Timeouts.message``.
    :param inline_file_io: read and write pieces of files of at most 256 KiB in the event loop where the folder is on a local
        disk that answers quickly; ``False`` leaves all of that to worker threads, so that no disk can hold up an association
        that does not use it.
    """

    associations: int | None = 1000
    associations_per_address: int | None = None
    associations_per_ae_title: int | None = None
    unassociated: int | None = 1000
    associate_pdu: int = 1 << 20
    pdu_slack: int = 64
    command_set: int = 1 << 16
    identifier: int = 16 << 20
    data_set: int | None = None
    contexts: int = 128
    outstanding: int = 16
    data_rate: int | None = 64
    inline_file_io: bool = True


@frozen
class PeerProfile:
    """What a peer cannot do, or does not take: how it is treated instead. The defaults suit whoever keeps to the standard.

    What a peer does not understand of a query is said in another way, in several requests if need be, or refused with
    :class:`~asyncdicom.LocalProtocolError` before anything is sent; no key is ever left out. An identifier that is given as
    bytes is sent as it is.

    :param async_window: the asynchronous operations window (PS3.7 D.3.3.3) may be proposed, and answered with more than one
        operation at once. Some GE systems close the connection after an association that proposed it.
    :param storage_roles: what is proposed for storage classes beside a C-GET class: ``"both"`` roles, that of the ``"scp"``
        alone, or ``"none"``, no role selection at all (PS3.7 D.3.3.4).
    :param strict_roles: C-GET sub-operations are refused on contexts without a negotiated SCP role.
    :param assume_roles: roles of storage classes are taken for granted that were not: we store although the peer made us SCP
        only, as pynetdicom's qrscp does, and as C-GET SCP we send to requestors that negotiate none, as Horos does.
    :param maximum_length: the longest P-DATA-TF PDU in bytes that the peer is told it may send, at most; ``None`` leaves it
        at what was asked for.
    :param operations: most operations of one association, which pools, :func:`asyncdicom.retrieve` and C-MOVE destinations
        keep to by associating again; ``None`` is no limit. Some peers close after one.
    :param cancel: C-CANCEL may be sent. Without it, an operation that is left early is drained, for at most
        ``Timeouts.cancel``, and then aborted.
    :param uid_lists: List of UID Matching (PS3.4 C.2.2.2.2) is understood. Without it, each UID has a request of its own.
    :param date_ranges: Range Matching (PS3.4 C.2.2.2.5) is understood. Without it, each day of a closed range of dates has a
        request of its own; other ranges are refused.
    :param date_wildcards: ``*`` is understood in dates and times. Without it, ``*`` alone is sent as an empty value, which
        means the same, and ``2024*`` or ``202401*`` as a range of dates; others are refused.
    :param universal_wildcard: ``*`` alone is understood, anywhere. Without it, it is sent as an empty value.
    :raises ValueError: a number makes no sense, or values contradict each other.
    """

    async_window: bool = True
    storage_roles: Literal["both", "scp", "none"] = "both"
    strict_roles: bool = False
    assume_roles: bool = False
    maximum_length: int | None = None
    operations: int | None = None
    cancel: bool = True
    uid_lists: bool = True
    date_ranges: bool = True
    date_wildcards: bool = True
    universal_wildcard: bool = True

    def __post_init__(self) -> None:
        if self.storage_roles not in ("both", "scp", "none"):
            raise ValueError(f"storage_roles is {self.storage_roles!r}: expected 'both', 'scp' or 'none'")
        if self.strict_roles and (self.assume_roles or self.storage_roles == "none"):
            raise ValueError("strict_roles excludes assume_roles, and storage_roles 'none'")
        if self.maximum_length is not None and self.maximum_length < 8:
            raise ValueError(f"maximum_length is {self.maximum_length}: expected at least 8, or None")
        if self.operations is not None and self.operations < 1:
            raise ValueError(f"operations is {self.operations}: expected at least 1, or None")

    def most(self, maximum_length: int) -> int:
        """Return the maximum length to announce, in bytes, where ``maximum_length`` was asked for; 0 is unlimited."""
        if self.maximum_length is None:
            return maximum_length
        return min(self.maximum_length, maximum_length or self.maximum_length)


#: How a peer is treated that nothing is known of.
DEFAULT_PROFILE = PeerProfile()


@frozen(kw_only=False)
class UserIdentity:
    """Who asks for an association (PS3.7 D.3.3.7). Its values are never shown or logged.

    :ivar type: 1 user name, 2 user name and passcode, 3 Kerberos ticket, 4 SAML assertion, 5 JSON web token.
    :ivar primary: the user name, ticket, assertion or token.
    :ivar secondary: the passcode of type 2.
    :ivar positive_response_requested: ask the acceptor to confirm that it knew the user.
    """

    type: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)
    positive_response_requested: bool = False

    @classmethod
    def username(cls, user: str, *, positive_response_requested: bool = False) -> UserIdentity:
        """Identify by a user name alone."""
        return cls(1, user.encode(), b"", positive_response_requested)

    @classmethod
    def password(cls, user: str, passcode: str, *, positive_response_requested: bool = False) -> UserIdentity:
        """Identify by a user name and a passcode."""
        return cls(2, user.encode(), passcode.encode(), positive_response_requested)

    @classmethod
    def kerberos(cls, ticket: bytes, *, positive_response_requested: bool = True) -> UserIdentity:
        """Identify by a Kerberos service ticket."""
        return cls(3, ticket, b"", positive_response_requested)

    @classmethod
    def saml(cls, assertion: bytes, *, positive_response_requested: bool = True) -> UserIdentity:
        """Identify by a SAML assertion."""
        return cls(4, assertion, b"", positive_response_requested)

    @classmethod
    def jwt(cls, token: bytes, *, positive_response_requested: bool = True) -> UserIdentity:
        """Identify by a JSON web token."""
        return cls(5, token, b"", positive_response_requested)
