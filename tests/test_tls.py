"""TLS contexts: what they allow, whom they believe, and what a renewed certificate changes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from asyncdicom import tls


def _encrypt(key: bytes, password: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )


class Files:
    """PEM files of an authority, of certificates that it issued, and of an authority that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.ca = self._write("ca", self.authority.cert_pem.bytes())
        self.other_ca = self._write("other_ca", self.stranger.cert_pem.bytes())
        self.server = self._issue(self.authority, "server", "localhost")
        self.renewed = self._issue(self.authority, "renewed", "localhost")
        self.client = self._issue(self.authority, "client", "client.example")
        self.strange_client = self._issue(self.stranger, "strange", "client.example")
        apart = self.authority.issue_cert("localhost")
        self.certificate = self._write("certificate", b"".join(blob.bytes() for blob in apart.cert_chain_pems))
        self.key = self._write("key", apart.private_key_pem.bytes())
        self.encrypted = self._write("encrypted", _encrypt(apart.private_key_pem.bytes(), b"open sesame"))
        self.nonsense = self._write("nonsense", b"-----BEGIN NONSENSE-----\n")
        self.absent = folder / "absent.pem"

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / f"{name}.pem"
        path.write_bytes(data)
        return path

    def _issue(self, authority: trustme.CA, name: str, identity: str) -> Path:
        return self._write(name, authority.issue_cert(identity).private_key_and_cert_chain_pem.bytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make the files once: keys take their time."""
    return Files(tmp_path_factory.mktemp("tls"))


def shake_hands(
    client: ssl.SSLContext, server: ssl.SSLContext, hostname: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Do a handshake in memory, with a byte each way behind it; return both sides.

    :raises ssl.SSLError: one side refused the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [one.do_handshake, other.do_handshake]
    for _ in range(8):
        for step in list(waiting):
            try:
                step()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(step)
    assert not waiting
    # A client of TLS 1.3 learns only now that it was refused.
    for sender, receiver in ((one, other), (other, one)):
        sender.write(b"x")
        assert receiver.read(1) == b"x"
    return one, other


def certificate(side: ssl.SSLObject) -> bytes | None:
    """Return the certificate of the peer."""
    return side.getpeercert(binary_form=True)


# What both kinds of context allow (RFC 9325 3.1, 4.2).


def both(files: Files) -> list[ssl.SSLContext]:
    return [tls.server_context(files.server), tls.client_context(ca=files.ca)]


def test_nothing_older_than_tls_1_2_is_spoken(files: Files) -> None:
    for context in both(files):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.maximum_version in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3)


def test_all_ciphers_have_forward_secrecy_and_authenticated_encryption(files: Files) -> None:
    for context in both(files):
        ciphers = context.get_ciphers()
        assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
        for cipher in ciphers:
            assert cipher["aead"], cipher["name"]
            if cipher["protocol"] == "TLSv1.2":
                assert cipher["name"].startswith("ECDHE-"), cipher["name"]


def test_there_is_no_compression_and_no_renegotiation(files: Files) -> None:
    for context in both(files):
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION


VERSIONS = [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_both_versions_work(files: Files, version: ssl.TLSVersion, name: str) -> None:
    client, server = tls.client_context(ca=files.ca), tls.server_context(files.server)
    client.maximum_version = version
    one, other = shake_hands(client, server)
    assert one.version() == other.version() == name


def test_a_peer_that_has_only_ciphers_without_forward_secrecy_is_refused(files: Files) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(files.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        shake_hands(client, tls.server_context(files.server))


# Whom a server believes.

#: Whether it has authorities, require_client -> how clients are verified.
VERIFICATION: list[tuple[bool, bool | None, ssl.VerifyMode]] = [
    (False, None, ssl.CERT_NONE),
    (False, False, ssl.CERT_NONE),
    (False, True, ssl.CERT_REQUIRED),
    (True, None, ssl.CERT_REQUIRED),
    (True, True, ssl.CERT_REQUIRED),
    (True, False, ssl.CERT_OPTIONAL),
]


@pytest.mark.parametrize(("has_ca", "require", "mode"), VERIFICATION)
def test_how_a_server_verifies_clients(files: Files, has_ca: bool, require: bool | None, mode: ssl.VerifyMode) -> None:
    context = tls.server_context(files.server, ca=files.ca if has_ca else None, require_client=require)
    assert context.verify_mode is mode


#: require_client, the certificate of the client -> whether it is served.
CLIENTS: list[tuple[bool | None, str | None, bool]] = [
    (None, "client", True),
    (None, None, False),
    (None, "strange_client", False),
    (False, "client", True),
    (False, None, True),
    (False, "strange_client", False),
]


@pytest.mark.parametrize(("require", "name", "served"), CLIENTS)
def test_which_clients_a_server_with_authorities_serves(
    files: Files, require: bool | None, name: str | None, served: bool
) -> None:
    server = tls.server_context(files.server, ca=files.ca, require_client=require)
    client = tls.client_context(ca=files.ca, certificate=None if name is None else getattr(files, name))
    if served:
        _, other = shake_hands(client, server)
        assert (certificate(other) is not None) is (name is not None)
    else:
        with pytest.raises(ssl.SSLError):
            shake_hands(client, server)


# Whom a client believes.


def test_a_client_checks_the_issuer_and_the_host(files: Files) -> None:
    server = tls.server_context(files.server)
    client = tls.client_context(ca=files.ca)
    assert client.verify_mode is ssl.CERT_REQUIRED
    shake_hands(client, server)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client, server, "pacs.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls.client_context(ca=files.other_ca), server)


def test_a_client_that_does_not_check_the_host_still_checks_the_issuer(files: Files) -> None:
    server = tls.server_context(files.server)
    shake_hands(tls.client_context(ca=files.ca, verify_hostname=False), server, "pacs.example")
    stranger = tls.client_context(ca=files.other_ca, verify_hostname=False)
    assert stranger.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(stranger, server, "pacs.example")


def test_the_authorities_of_the_system_do_not_know_ours(files: Files) -> None:
    client = tls.client_context()
    assert client.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, tls.server_context(files.server))


# Files.


def test_a_key_may_be_in_a_file_of_its_own(files: Files) -> None:
    server = tls.server_context(files.certificate, files.key, ca=files.ca)
    shake_hands(tls.client_context(ca=files.ca, certificate=files.certificate, key=files.key), server)


def test_paths_may_be_strings(files: Files) -> None:
    server = tls.server_context(str(files.certificate), str(files.key), ca=str(files.ca))
    shake_hands(tls.client_context(ca=str(files.ca), certificate=str(files.client)), server)


#: The name of a file -> what is raised.
BAD_FILES: list[tuple[str, type[OSError]]] = [
    ("absent", FileNotFoundError),
    ("nonsense", ssl.SSLError),
]


@pytest.mark.parametrize(("name", "error"), BAD_FILES)
def test_a_file_that_is_absent_or_nonsense_is_an_oserror(files: Files, name: str, error: type[OSError]) -> None:
    bad = getattr(files, name)
    context = tls.server_context(files.server)
    calls: list[Any] = [
        lambda: tls.server_context(bad),
        lambda: tls.server_context(files.certificate, bad),
        lambda: tls.server_context(files.server, ca=bad),
        lambda: tls.client_context(ca=bad),
        lambda: tls.client_context(ca=files.ca, certificate=bad),
        lambda: tls.client_context(ca=files.ca, certificate=files.certificate, key=bad),
        lambda: tls.reload(context, bad),
        lambda: tls.reload(context, files.renewed, ca=bad),
    ]
    for call in calls:
        with pytest.raises(error):
            call()


def test_the_key_of_another_certificate_is_refused(files: Files) -> None:
    with pytest.raises(ssl.SSLError):
        tls.server_context(files.certificate, files.client)


def test_the_password_of_a_key_is_given(files: Files) -> None:
    server = tls.server_context(files.certificate, files.encrypted, ca=files.ca, password="open sesame")
    client = tls.client_context(ca=files.ca, certificate=files.certificate, key=files.encrypted, password="open sesame")
    shake_hands(client, server)
    tls.reload(server, files.certificate, files.encrypted, password="open sesame")
    shake_hands(client, server)


@pytest.mark.parametrize("password", ["guess", "", None])
def test_a_password_that_is_wrong_or_missing_is_an_error_and_nobody_is_asked(
    files: Files, password: str | None
) -> None:
    context = tls.server_context(files.server)
    calls: list[Any] = [
        lambda: tls.server_context(files.certificate, files.encrypted, password=password),
        lambda: tls.client_context(ca=files.ca, certificate=files.certificate, key=files.encrypted, password=password),
        lambda: tls.reload(context, files.certificate, files.encrypted, password=password),
    ]
    for call in calls:
        with pytest.raises(ssl.SSLError):
            call()


# Renewed certificates.


def test_new_connections_get_a_renewed_certificate_and_running_ones_go_on(files: Files) -> None:
    server, client = tls.server_context(files.server), tls.client_context(ca=files.ca)
    before, running = shake_hands(client, server)
    tls.reload(server, files.renewed)
    after, _ = shake_hands(client, server)
    assert certificate(before) != certificate(after)
    running.write(b"y")
    assert before.read(1) == b"y"


def test_a_client_context_is_renewed_too(files: Files) -> None:
    server = tls.server_context(files.server, ca=files.ca)
    client = tls.client_context(ca=files.ca, certificate=files.client)
    _, before = shake_hands(client, server)
    tls.reload(client, files.renewed)
    _, after = shake_hands(client, server)
    assert certificate(before) != certificate(after)


def test_another_authority_is_believed_besides(files: Files) -> None:
    server = tls.server_context(files.server, ca=files.ca)
    stranger = tls.client_context(ca=files.ca, certificate=files.strange_client)
    with pytest.raises(ssl.SSLError):
        shake_hands(stranger, server)
    tls.reload(server, files.renewed, ca=files.other_ca)
    shake_hands(stranger, server)
    shake_hands(tls.client_context(ca=files.ca, certificate=files.client), server)


BAD_RELOADS: list[tuple[str, str | None, str | None]] = [
    ("absent", None, None),
    ("nonsense", None, None),
    ("certificate", "client", None),
    ("renewed", None, "absent"),
    ("renewed", None, "nonsense"),
]


@pytest.mark.parametrize(("name", "key", "ca"), BAD_RELOADS)
def test_after_a_reload_that_fails_a_context_has_its_old_certificate(
    files: Files, name: str, key: str | None, ca: str | None
) -> None:
    server, client = tls.server_context(files.server), tls.client_context(ca=files.ca)
    before, _ = shake_hands(client, server)
    with pytest.raises(OSError):  # noqa: PT011 - any of them
        tls.reload(
            server,
            getattr(files, name),
            None if key is None else getattr(files, key),
            ca=None if ca is None else getattr(files, ca),
        )
    after, _ = shake_hands(client, server)
    assert certificate(before) == certificate(after)
