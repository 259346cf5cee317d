"""TLS contexts after BCP 195 (RFC 9325, PS3.15 B.12): TLS 1.2 and 1.3, forward secrecy, authenticated encryption.

They are plain :class:`ssl.SSLContext` objects for the ``ssl`` argument of :func:`asyncdicom.connect` and
:class:`asyncdicom.Server`; any other context will do as well.
"""

from __future__ import annotations

import os
import ssl

__all__ = ["client_context", "reload", "server_context"]

#: What TLS 1.2 may use (RFC 9325 4.2); the suites of TLS 1.3 are all of this kind.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

StrPath = str | os.PathLike[str]


def server_context(
    certificate: StrPath,
    key: StrPath | None = None,
    *,
    ca: StrPath | None = None,
    require_client: bool | None = None,
    password: str | None = None,
) -> ssl.SSLContext:
    """Make the context of a server.

    :param certificate: a PEM file with its certificate chain.
    :param key: a PEM file with its private key, if that is not in the same file.
    :param ca: a PEM file with the authorities whose client certificates are accepted.
    :param require_client: refuse clients without a certificate (mutual authentication); by default if ``ca`` is given.
    :param password: of the key; nobody is asked for it on the terminal.
    :raises OSError: a file cannot be read, or is not what it should be (:class:`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.load_cert_chain(certificate, key, password or "")
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    if require_client if require_client is not None else ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    elif ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    *,
    ca: StrPath | None = None,
    certificate: StrPath | None = None,
    key: StrPath | None = None,
    verify_hostname: bool = True,
    password: str | None = None,
) -> ssl.SSLContext:
    """Make the context of a client.

    :param ca: a PEM file with the authorities that are trusted instead of the system's.
    :param certificate: a PEM file with our certificate chain, for servers that want one.
    :param key: a PEM file with its private key, if that is not in the same file.
    :param verify_hostname: check that the server's certificate is for the host that we connect to. Its issuer is always
        checked.
    :param password: of the key; nobody is asked for it on the terminal.
    :raises OSError: a file cannot be read, or is not what it should be (:class:`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = verify_hostname
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate is not None:
        context.load_cert_chain(certificate, key, password or "")
    return context


def reload(
    context: ssl.SSLContext,
    certificate: StrPath,
    key: StrPath | None = None,
    *,
    ca: StrPath | None = None,
    password: str | None = None,
) -> None:
    """Load a renewed certificate into a context that is in use: new connections get it, running ones go on.

    :param password: of the key; nobody is asked for it on the terminal.
    :raises OSError: a file cannot be read, or is not what it should be; the context still has the old one.
    """
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trial.load_cert_chain(certificate, key, password or "")
    if ca is not None:
        trial.load_verify_locations(cafile=ca)
        context.load_verify_locations(cafile=ca)
    context.load_cert_chain(certificate, key, password or "")


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
