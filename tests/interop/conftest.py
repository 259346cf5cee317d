"""Peers that several modules share, and the rule that none of them may complain about us."""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from . import peers
from .scp import Scp, running_scp


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "complains(pattern): pynetdicom logs warnings that match, and that is right here"
    )


@pytest.fixture(scope="session")
def dcmtk() -> None:
    """Skip without DCMTK; but a continuous integration that lost it must not pass."""
    missing = peers.dcmtk_missing()
    if missing and os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"DCMTK is not installed: no {', '.join(missing)}")
    if missing:
        pytest.skip(f"DCMTK is not installed: no {', '.join(missing)}")


@pytest.fixture(autouse=True)
def pynetdicom_complaints(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fail a test during which pynetdicom logged a warning or an error that was not expected of it."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger = logging.getLogger("pynetdicom")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    patterns = [mark.args[0] for mark in request.node.iter_markers("complains")]
    unexpected = [text for text in found if not any(re.search(pattern, text) for pattern in patterns)]
    assert not unexpected, "pynetdicom complained: " + "; ".join(unexpected)


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate authority, and contexts and files of a server and a client that it vouches for."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    anonymous: ssl.SSLContext
    authority: Path
    key: Path
    chain: Path

    @property
    def dcmtk(self) -> tuple[object, ...]:
        """DCMTK's options for TLS in either role, with a certificate of its own."""
        return ("+tls", self.key, self.chain, "+cf", self.authority)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give a certificate authority and certificates for both sides."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


def make_certificates(folder: Path) -> Certificates:
    """Make a certificate authority and certificates for both sides; both sides ask for each other's."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    certificate = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    anonymous = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    for context in (server, client):
        certificate.configure_cert(context)
    for context in (server, client, anonymous):
        authority.configure_trust(context)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "chain.pem", append=True)
    return Certificates(server, client, anonymous, folder / "ca.pem", folder / "key.pem", folder / "chain.pem")


@pytest.fixture(scope="session")
def _storescp(tmp_path_factory: pytest.TempPathFactory, dcmtk: None) -> Iterator[peers.DcmtkServer]:
    with peers.start_dcmtk("storescp", tmp_path_factory.mktemp("storescp"), "+B", "+xa", "-pm") as server:
        yield server


@pytest.fixture
def storescp(_storescp: peers.DcmtkServer) -> Iterator[peers.DcmtkServer]:
    """Give a storescp that keeps any instance bit by bit, and check that it had nothing to complain of."""
    _storescp.clear()
    _storescp.mark()
    yield _storescp
    _storescp.check()


@pytest.fixture(scope="module")
def _scp() -> Iterator[Scp]:
    with running_scp() as running:
        yield running


@pytest.fixture
def scp(_scp: Scp) -> Scp:
    """Give a pynetdicom SCP without any handlers of an earlier test."""
    _scp.reset()
    return _scp
