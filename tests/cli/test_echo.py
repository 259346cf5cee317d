"""``asyncdicom echo``, and what every client command does about the association."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncdicom

from ..interop.conftest import Certificates, certificates
from .program import run, serving

__all__ = ["certificates"]


def nobody() -> str:
    """Return an address that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"NOBODY@127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"SILENT@127.0.0.1:{sock.getsockname()[1]}"


def answering(answer: bytes) -> Iterator[str]:
    """Give the address of somebody who answers the first bytes with ``answer`` and closes."""
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def talk() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"PEER@127.0.0.1:{sock.getsockname()[1]}"
        thread.join()


@pytest.fixture
def impolite(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a peer that answers what the test says."""
    yield from answering(request.param)


def test_an_echo_prints_how_long_it_took(address: str) -> None:
    out = run("echo", address).check().out
    assert re.fullmatch(rf"{address} answered in \d+\.\d\d ms\n", out)


def test_echoes_are_repeated_on_one_association(address: str) -> None:
    lines = run("echo", address, "--repeat", 3).check().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["1", "2", "3"]
    assert re.fullmatch(rf"{address} answered 3 of 3: fastest .* ms, mean .* ms, slowest .* ms", lines[3])


def test_a_failure_status_is_status_1() -> None:
    services = asyncdicom.Services()

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> int:
        raise asyncdicom.StatusError(0x0110, "not today")

    with serving(services) as (address, log):
        result = run("echo", address)
    assert (result.status, result.error) == (1, "asyncdicom echo: status 0x0110 (Processing failure): not today")
    assert log.has("released")


def test_a_refused_connection_is_status_3() -> None:
    address = nobody()
    result = run("echo", address)
    expected = f"asyncdicom echo: cannot connect to {address.partition('@')[2]}: connection refused"
    assert (result.status, result.out, result.error) == (3, "", expected)


def test_a_name_that_cannot_be_resolved_is_status_3() -> None:
    result = run("echo", "X@no-such-host.invalid:104")
    assert result.status == 3
    assert result.error.startswith("asyncdicom echo: cannot connect to no-such-host.invalid:104: ")


def test_a_peer_that_says_nothing_is_status_3(silent: str) -> None:
    result = run("echo", silent, "--timeout", 0.3)
    assert (result.status, result.error) == (3, f"asyncdicom echo: {silent}: timed out after 0.3 s (associate)")


def test_a_rejected_association_is_status_3() -> None:
    with serving(asyncdicom.Services(), called=["OTHER"]) as (address, _):
        result = run("echo", address)
    assert result.status == 3
    assert result.error == (
        f"asyncdicom echo: {address}: association rejected permanently: called AE title not recognized "
        "(result 1, source 1, reason 7)"
    )


@pytest.mark.parametrize(
    "impolite", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x07\0\0\0\0\4\0\0\2\6"], indirect=True
)
def test_a_peer_that_closes_aborts_or_talks_otherwise_is_status_3(impolite: str) -> None:
    result = run("echo", impolite)
    assert result.status == 3
    assert result.error.startswith(f"asyncdicom echo: {impolite}: ")


def test_the_calling_ae_title_is_ours_to_choose() -> None:
    with serving(asyncdicom.Services(), calling=["WORKSTATION"]) as (address, _):
        assert run("echo", address).status == 3
        run("echo", address, "--calling", "WORKSTATION").check()


def test_verbose_logs_to_stderr(address: str) -> None:
    assert run("echo", address, "-v").err == ""
    debug = run("echo", address, "-vv")
    assert debug.status == 0
    assert " DEBUG asyncdicom." in debug.err


@pytest.fixture
def secure(certificates: Certificates) -> Iterator[str]:
    with serving(asyncdicom.Services(), ssl=certificates.server) as (address, _):
        yield str(address)


def test_tls_with_certificates_of_both_sides(secure: str, certificates: Certificates) -> None:
    ours = ["--tls-cert", certificates.chain, "--tls-key", certificates.key]
    run("echo", secure, "--tls-ca", certificates.authority, *ours).check()


def test_a_tls_peer_that_is_not_vouched_for_is_status_3(secure: str) -> None:
    result = run("echo", secure, "--tls")
    assert result.status == 3
    assert "certificate not accepted" in result.error


def test_plain_dicom_to_a_tls_port_is_status_3(secure: str) -> None:
    result = run("echo", secure, "--timeout", 5)
    assert result.status == 3
    assert result.error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tls-ca", "nowhere.pem"], "cannot read nowhere.pem"),
        (["--tls-ca", "empty.pem"], "no usable certificates or key in empty.pem: "),
        (["--tls-key", "empty.pem"], "--tls-key is the key of a --tls-cert"),
        (["--tls-cert", "empty.pem"], "no usable certificates or key in empty.pem: "),
    ],
)
def test_unusable_certificates_are_wrong_usage(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "empty.pem").touch()
    result = run("echo", nobody(), *arguments, cwd=tmp_path)
    assert result.status == 2
    assert result.error.startswith(f"asyncdicom echo: {expected}")
