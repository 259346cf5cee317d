"""Who may do what with a server: AE titles, addresses, users and their passwords, and what each calling AE title may do.

An AE title is what a peer says that it is; a password is what it knows. So where users are named, there is no association
without the password of one. Each table, once it is there, fails closed: whoever is not in it is refused.

Passwords are kept as salted hashes (scrypt, RFC 7914), written ``scrypt$N$r$p$salt$hash`` in base 64. A hash is made to take
time and memory, so it is computed in a worker thread, and few at once, however many associations are asked for.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .arguments import Parser, ae_title, count, server_limits

if TYPE_CHECKING:
    import anyio

    from .. import AssociationRequest, PeerProfile, Request, Services

__all__ = ["OPERATIONS", "PasswordHash", "add_access_options", "guard", "server_access"]

#: What the table of rules may allow. A C-ECHO is always allowed.
OPERATIONS = ("store", "query", "retrieve")
#: Stands for every calling AE title that has no rule of its own.
_ANYBODY = "*"

#: The cost of new hashes: 16 MiB and some tens of milliseconds.
_COST = (1 << 14, 8, 1)
_SALT, _HASH = 16, 32
#: The most memory in bytes that a hash of the table may take.
_MOST_MEMORY = 256 << 20
#: Hashes that are computed at once.
_AT_ONCE = 2

#: User name and passcode (PS3.7 D.3.3.7.1).
_NAME_AND_PASSCODE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordHash:
    """The hash of a password.

    :ivar cost: N, r and p of scrypt.
    """

    cost: tuple[int, int, int]
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def make(cls, password: bytes) -> PasswordHash:
        """Hash a password, with a new salt. It takes some tens of milliseconds."""
        salt = os.urandom(_SALT)
        return cls(cost=_COST, salt=salt, hash=_scrypt(password, salt, _COST, _HASH))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Read a hash as ``asyncdicom password`` writes it.

        :raises ValueError: it is not one, or costs more than is reasonable.
        """
        kind, *rest = text.split("$")
        try:
            n, r, p = map(int, rest[:3])
            salt, expected = (base64.b64decode(part, validate=True) for part in rest[3:])
        except ValueError:
            n = r = p = 0
            salt = expected = b""
        reasonable = n > 1 and not n & (n - 1) and r > 0 and p > 0 and 128 * r * (n + p + 2) <= _MOST_MEMORY
        if kind != "scrypt" or not reasonable or len(expected) < _SALT:
            raise ValueError("not a hash of 'asyncdicom password', or one of unreasonable cost")
        return cls(cost=(n, r, p), salt=salt, hash=expected)

    def __str__(self) -> str:
        salt, expected = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.hash))
        return "$".join(["scrypt", *map(str, self.cost), salt, expected])

    def matches(self, password: bytes) -> bool:
        """Tell whether a password is the one; takes the same time whether it is or not."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost, len(self.hash)), self.hash)


def _scrypt(password: bytes, salt: bytes, cost: tuple[int, int, int], length: int) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=2 * _MOST_MEMORY, dklen=length)


# Options.


def add_access_options(parser: Parser) -> None:
    """Add what says who may use a server, and the file that says more of it."""
    group = parser.add_argument_group("who may use it")
    group.add_argument("--config", metavar="FILE.toml", help="take options, users and rules from this file")
    group.add_argument(
        "--called", type=ae_title, action="append", metavar="AET", help="accept this called AE title; may be repeated"
    )
    group.add_argument(
        "--allow",
        type=_title_or_network,
        action="append",
        default=[],
        metavar="AET|NETWORK",
        help="accept this calling AE title, or connections from this address or network; may be repeated",
    )
    group.add_argument("--max-per-address", type=count, metavar="N", help="associations of one address at once")
    group.add_argument("--max-per-ae", type=count, metavar="N", help="associations of one calling AE title at once")
    parser.set_defaults(users=None, access=None, profiles=None)
    parser.tables = {"users": _read_users, "access": _read_rules, "profiles": _read_profiles}


def _title_or_network(text: str) -> tuple[str, str]:
    """Read an AE title, or an address or network; what could be both is an address."""
    import ipaddress

    try:
        return "network", str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return "title", ae_title(text)


def _read_users(table: Mapping[str, object]) -> Mapping[bytes, PasswordHash]:
    """Read the table of users: names and hashes.

    :raises ValueError: a value is not a hash; it is not shown, for it may be a password.
    """
    users = {}
    for name, value in table.items():
        try:
            users[name.encode()] = PasswordHash.parse(value if isinstance(value, str) else "")
        except ValueError:
            raise ValueError(f"the user {name!r} has no hash of 'asyncdicom password'") from None
    return users


def _read_rules(table: Mapping[str, object]) -> Mapping[str, frozenset[str]]:
    """Read the table of what calling AE titles may do.

    :raises ValueError: an AE title or an operation is none.
    """
    rules = {}
    for title, value in table.items():
        operations = value if isinstance(value, list) else [value]
        unknown = [one for one in operations if one not in OPERATIONS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} of {title!r} is not one of {', '.join(OPERATIONS)}")
        try:
            rules[_ANYBODY if title == _ANYBODY else ae_title(title)] = frozenset(operations)
        except argparse.ArgumentTypeError as exc:
            raise ValueError(str(exc)) from exc
    return rules


def _read_profiles(table: Mapping[str, object]) -> Mapping[str, PeerProfile]:
    """Read the table of what peers cannot do, by AE title.

    :raises ValueError: an AE title is none, or a value is not one of a :class:`asyncdicom.PeerProfile`.
    """
    from dataclasses import fields

    from .. import PeerProfile

    defaults = {one.name.replace("_", "-"): one.default for one in fields(PeerProfile)}
    profiles = {}
    for title, values in table.items():
        if not isinstance(values, dict):
            raise ValueError(f"{title!r} is not a table")
        for name, value in values.items():
            if name not in defaults:
                raise ValueError(f"{name!r} of {title!r} is not one of {', '.join(defaults)}")
            expected = int if defaults[name] is None else type(defaults[name])
            if type(value) is not expected:
                raise ValueError(f"{name!r} of {title!r} has another kind of value than {expected.__name__}")
        try:
            key = _ANYBODY if title == _ANYBODY else ae_title(title)
        except argparse.ArgumentTypeError as exc:
            raise ValueError(str(exc)) from exc
        profiles[key] = PeerProfile(**{name.replace("-", "_"): value for name, value in values.items()})
    return profiles


# What they make.


def server_access(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a server that say who may use it, but for its called AE titles."""
    from dataclasses import replace

    profiles: Mapping[str, PeerProfile] = options.profiles or {}
    return {
        "profiles": lambda title: profiles.get(title, profiles.get(_ANYBODY)),
        "calling": [text for kind, text in options.allow if kind == "title"] or None,
        "allow": [text for kind, text in options.allow if kind == "network"] or None,
        "limits": replace(
            server_limits(options),
            associations_per_address=options.max_per_address,
            associations_per_ae_title=options.max_per_ae,
        ),
    }


def guard(services: Services, options: argparse.Namespace) -> None:
    """Have the tables of users and rules decide on associations and requests, where there are any."""
    if options.users is not None:
        services.on_associate(_Users(options.users).admit)
    if options.access is not None:
        services.on_request(_Rules(options.access).permit)


class _Users:
    """Decides on associations by who asks for them."""

    def __init__(self, users: Mapping[bytes, PasswordHash]) -> None:
        self._users = MappingProxyType(dict(users))
        # For names that nobody has: their refusal takes as long as that of a wrong password.
        self._nobody = PasswordHash(cost=next((one.cost for one in users.values()), _COST), salt=b"", hash=bytes(_HASH))
        self._limiter: anyio.CapacityLimiter | None = None  # there is no event loop yet

    async def admit(self, request: AssociationRequest) -> None:
        """Accept an association of a user with the right password.

        :raises AssociationRejected: of anybody else.
        """
        from anyio import CapacityLimiter, to_thread

        from .. import AssociationRejected

        self._limiter = limiter = self._limiter or CapacityLimiter(_AT_ONCE)
        identity = request.user_identity
        if identity is not None and identity.type == _NAME_AND_PASSCODE:
            user = self._users.get(identity.primary)
            known = user or self._nobody
            if await to_thread.run_sync(known.matches, identity.secondary, limiter=limiter) and user is not None:
                return
        raise AssociationRejected(1, 2, 1)


class _Rules:
    """Decides on requests by who makes them."""

    def __init__(self, rules: Mapping[str, frozenset[str]]) -> None:
        self._rules = MappingProxyType(dict(rules))
        self._anybody = self._rules.get(_ANYBODY, frozenset())

    async def permit(self, request: Request) -> bool:
        """Tell whether a peer may do what it asks for."""
        operation = _operation(request)
        if operation is None:
            return True
        return operation in self._rules.get(request.association.peer.ae_title, self._anybody)


def _operation(request: Request) -> str | None:
    from .. import FindRequest, RetrieveRequest, StoreRequest

    match request:
        case StoreRequest():
            return "store"
        case FindRequest():
            return "query"
        case RetrieveRequest():
            return "retrieve"
    return None
