"""Plain values: how addresses are read, what is refused, and the defaults of limits and timeouts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from asyncdicom import Address, Limits, PeerProfile, Timeouts, UserIdentity
from asyncdicom.settings import DEFAULT_MAXIMUM_LENGTH, validate_ae_title

# Application entity titles (PS3.5 6.2, AE).

#: As it is given -> as it is used.
AE_TITLES = [
    ("PACS", "PACS"),
    ("P", "P"),
    ("SIXTEEN_LETTERS_", "SIXTEEN_LETTERS_"),
    ("  PACS  ", "PACS"),
    ("SIXTEEN_LETTERS_    ", "SIXTEEN_LETTERS_"),
    ("MY PACS", "MY PACS"),
    ("a@b:c", "a@b:c"),
    ("~!", "~!"),
]

NO_AE_TITLES = ["", " ", " " * 16, "SEVENTEEN_LETTERS", "A\\B", "A\tB", "A\nB", "\x00", "A\x7f", "KÜCHE", "\u202eA"]


@pytest.mark.parametrize(("given", "used"), AE_TITLES)
def test_an_ae_title_is_used_without_its_padding(given: str, used: str) -> None:
    assert validate_ae_title(given) == used
    assert Address(given, "host").ae_title == used


@pytest.mark.parametrize("title", NO_AE_TITLES)
def test_what_is_no_ae_title_is_refused(title: str) -> None:
    with pytest.raises(ValueError, match="is not an AE title"):
        validate_ae_title(title)
    with pytest.raises(ValueError, match="is not an AE title"):
        Address(title, "host")


def test_a_refused_ae_title_is_quoted_in_part_only() -> None:
    with pytest.raises(ValueError, match="is not an AE title") as caught:
        validate_ae_title("A" * 100_000)
    assert len(str(caught.value)) < 200


# Addresses.

#: Text -> AE title, host, port, and the text that is made of it again.
ADDRESSES = [
    ("PACS@pacs.example:104", ("PACS", "pacs.example", 104), "PACS@pacs.example:104"),
    ("PACS@127.0.0.1:11112", ("PACS", "127.0.0.1", 11112), "PACS@127.0.0.1:11112"),
    ("PACS@[::1]:11112", ("PACS", "::1", 11112), "PACS@[::1]:11112"),
    ("PACS@[fe80::1%eth0]:104", ("PACS", "fe80::1%eth0", 104), "PACS@[fe80::1%eth0]:104"),
    ("PACS@[pacs]:104", ("PACS", "pacs", 104), "PACS@pacs:104"),
    ("PACS@pacs:0", ("PACS", "pacs", 0), "PACS@pacs:0"),
    ("PACS@pacs:65535", ("PACS", "pacs", 65535), "PACS@pacs:65535"),
    ("PACS@pacs:00104", ("PACS", "pacs", 104), "PACS@pacs:104"),
    ("ME@HOME@pacs:104", ("ME@HOME", "pacs", 104), "ME@HOME@pacs:104"),
    ("MY PACS@pacs:104", ("MY PACS", "pacs", 104), "MY PACS@pacs:104"),
    (" PACS @pacs:104", ("PACS", "pacs", 104), "PACS@pacs:104"),
    ("PACS@/run/pacs.sock", ("PACS", "/run/pacs.sock", 0), "PACS@/run/pacs.sock"),
]

NO_ADDRESSES = [
    "",
    "@",
    "PACS",
    "PACS@",
    "PACS@pacs",
    "PACS@pacs:",
    "PACS@:104",
    "@pacs:104",
    "pacs:104",
    "PACS@pacs:http",
    "PACS@pacs:-1",
    "PACS@pacs:+1",
    "PACS@pacs:1_0",
    "PACS@pacs: 104",
    "PACS@pacs:65536",
    "PACS@pacs:000104",
    "PACS@pacs:\u0661\u0660\u0664",
    "PACS@pa cs:104",
    "PACS@pa\x00cs:104",
    "PACS@::1:104",
    "PACS@[::1]",
    "PACS@[::1]104",
    "PACS@[::1",
    "PACS@[]:104",
    "SEVENTEEN_LETTERS@pacs:104",
]


@pytest.mark.parametrize(("text", "parts", "again"), ADDRESSES, ids=[text for text, _, _ in ADDRESSES])
def test_an_address_is_read_and_written(text: str, parts: tuple[str, str, int], again: str) -> None:
    address = Address.parse(text)
    assert (address.ae_title, address.host, address.port) == parts
    assert str(address) == again
    assert Address.parse(again) == address == Address(*parts)


def test_an_address_is_left_as_it_is() -> None:
    address = Address("PACS", "pacs")
    assert Address.parse(address) is address
    assert address.port == 104


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (an address|an AE title|a host|a port number)"):
        Address.parse(text)


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40, "104", None, 1.5])
def test_what_is_no_port_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match="is not a port number"):
        Address("PACS", "pacs", port)


@pytest.mark.parametrize("host", ["", " ", "pa cs", "pacs\n", "pa\x00cs"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        Address("PACS", host)


# Defaults: what the documentation promises, in seconds, bytes and counts.

DEFAULTS: list[tuple[object, dict[str, object]]] = [
    (
        Timeouts(),
        {
            "connect": 15,
            "tls": 15,
            "associate": 30,
            "message": 60,
            "response": 60,
            "retrieve": 600,
            "idle": 300,
            "release": 10,
            "cancel": 5,
            "abort": 1,
            "write": 60,
            "handler": None,
        },
    ),
    (
        Limits(),
        {
            "associations": 1000,
            "associations_per_address": None,
            "associations_per_ae_title": None,
            "unassociated": 1000,
            "associate_pdu": 1_048_576,
            "pdu_slack": 64,
            "command_set": 65_536,
            "identifier": 16_777_216,
            "data_set": None,
            "contexts": 128,
            "outstanding": 16,
            "data_rate": 64,
            "inline_file_io": True,
        },
    ),
    (
        PeerProfile(),
        {
            "async_window": True,
            "storage_roles": "both",
            "strict_roles": False,
            "assume_roles": False,
            "maximum_length": None,
            "operations": None,
            "cancel": True,
            "uid_lists": True,
            "date_ranges": True,
            "date_wildcards": True,
            "universal_wildcard": True,
        },
    ),
]


@pytest.mark.parametrize(("value", "expected"), DEFAULTS, ids=[type(value).__name__ for value, _ in DEFAULTS])
def test_defaults(value: Any, expected: dict[str, object]) -> None:
    assert dataclasses.asdict(value) == expected
    assert value == type(value)(**expected)


def test_the_default_maximum_length_is_128_kib() -> None:
    assert DEFAULT_MAXIMUM_LENGTH == 128 * 1024


VALUES = [Address("PACS", "pacs"), Timeouts(), Limits(), PeerProfile(), UserIdentity.username("ann")]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cannot_be_changed_and_can_be_keys(value: Any) -> None:
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
    assert {value: 1}[dataclasses.replace(value)] == 1


@pytest.mark.parametrize("kind", [Timeouts, Limits, PeerProfile], ids=lambda kind: kind.__name__)
def test_fields_of_tables_are_given_by_keyword_only(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind(1)


# Peer profiles.

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"storage_roles": "scu"}, "storage_roles is 'scu'"),
    ({"storage_roles": None}, "storage_roles is None"),
    ({"strict_roles": True, "assume_roles": True}, "strict_roles excludes"),
    ({"strict_roles": True, "storage_roles": "none"}, "strict_roles excludes"),
    ({"maximum_length": 7}, "maximum_length is 7"),
    ({"maximum_length": 0}, "maximum_length is 0"),
    ({"maximum_length": -1}, "maximum_length is -1"),
    ({"operations": 0}, "operations is 0"),
    ({"operations": -1}, "operations is -1"),
]


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS, ids=[message for _, message in CONTRADICTIONS])
def test_a_profile_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeerProfile(**fields)


#: What the profile allows, what is asked for -> what is announced; 0 is unlimited.
MAXIMUM_LENGTHS = [
    (None, 16384, 16384),
    (None, 0, 0),
    (16384, 131072, 16384),
    (16384, 8192, 8192),
    (16384, 0, 16384),
    (8, 0, 8),
]


@pytest.mark.parametrize(("allowed", "asked", "announced"), MAXIMUM_LENGTHS)
def test_a_profile_bounds_the_maximum_length(allowed: int | None, asked: int, announced: int) -> None:
    assert PeerProfile(maximum_length=allowed).most(asked) == announced


# User identities (PS3.7 D.3.3.7, Table D.3-14).

#: Type, primary field, secondary field, whether a positive response is requested.
IDENTITIES = [
    (UserIdentity.username("ann"), (1, b"ann", b"", False)),
    (UserIdentity.username("Jürgen"), (1, "Jürgen".encode(), b"", False)),
    (UserIdentity.username("ann", positive_response_requested=True), (1, b"ann", b"", True)),
    (UserIdentity.password("ann", "secret"), (2, b"ann", b"secret", False)),
    (UserIdentity.password("ann", "geheim€"), (2, b"ann", "geheim€".encode(), False)),
    (UserIdentity.kerberos(b"secret"), (3, b"secret", b"", True)),
    (UserIdentity.saml(b"<secret/>"), (4, b"<secret/>", b"", True)),
    (UserIdentity.jwt(b"secret"), (5, b"secret", b"", True)),
    (UserIdentity.jwt(b"secret", positive_response_requested=False), (5, b"secret", b"", False)),
]


@pytest.mark.parametrize(("identity", "fields"), IDENTITIES)
def test_identities_have_the_fields_of_their_type(
    identity: UserIdentity, fields: tuple[int, bytes, bytes, bool]
) -> None:
    assert dataclasses.astuple(identity) == fields


@pytest.mark.parametrize("identity", [identity for identity, _ in IDENTITIES], ids=lambda identity: identity.type)
def test_what_an_identity_holds_is_never_shown(identity: UserIdentity) -> None:
    for text in (repr(identity), str(identity), f"{identity}"):
        assert not any(word in text for word in ("ann", "secret", "rgen", "geheim"))
