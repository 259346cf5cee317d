"""What the commands' parsers share: options, and the types of their values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import ssl

    from .. import Address, Limits, Timeouts, UserIdentity

__all__ = [
    "Parser",
    "add_client_options",
    "add_peer_tls_options",
    "add_query_options",
    "add_server_options",
    "add_verbosity",
    "address",
    "ae_title",
    "client_identity",
    "client_ssl",
    "client_timeouts",
    "close_match",
    "count",
    "parse",
    "peer_ssl",
    "read_password",
    "seconds",
    "server_limits",
    "server_ssl",
    "server_timeouts",
]

#: The default address of a server.
LISTEN = "ASYNCDICOM@127.0.0.1:11112"
#: Where the password of --user is, unless it is in a file.
PASSWORD = "ASYNCDICOM_PASSWORD"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr.

    :ivar source: the file that the words are from.
    :ivar tables: tables that the file of ``--config`` may have, by their names: what reads one raises :exc:`ValueError`.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.source: str | None = None
        self.tables: dict[str, Callable[[Mapping[str, object]], object]] = {}

    def error(self, message: str) -> NoReturn:
        from .screen import clean

        where = "" if self.source is None else f"{self.source}: "
        self.exit(2, f"{self.prog}: {clean(where + message)} (see {self.prog} --help)\n")


def close_match(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean ...?"`` for a word that nobody knows, or nothing."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


# Types of values. An ArgumentTypeError's text is shown as it is, a ValueError's is not.


def address(text: str) -> Address:
    """Read ``AET@HOST:PORT``."""
    from .. import Address

    try:
        return Address.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def ae_title(text: str) -> str:
    """Read an AE title."""
    from .. import Address

    try:
        return Address(text, "localhost").ae_title
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def count(text: str) -> int:
    """Read a number of things, at least one."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return number


def seconds(text: str) -> float:
    """Read a time in seconds, more than none."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


# Options.


def add_verbosity(parser: Parser) -> None:
    """Add ``-v``."""
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log what happens; twice: every PDU and message too"
    )


def add_client_options(parser: Parser) -> None:
    """Add what every client command takes."""
    group = parser.add_argument_group("the association")
    group.add_argument("--calling", type=ae_title, metavar="AET", default="ASYNCDICOM", help="our AE title")
    group.add_argument("--timeout", type=seconds, metavar="S", help="seconds to wait for a connection or an answer")
    group.add_argument(
        "--user", metavar="NAME", help=f"identify as this user; {PASSWORD} is the password, if it is set"
    )
    group.add_argument("--password-file", metavar="FILE", help="take the password from the first line of this file")
    group.add_argument("--tls", action="store_true", help="use TLS; the three options that follow imply it")
    group.add_argument("--tls-ca", metavar="FILE", help="certificates to verify the peer with, instead of the system's")
    group.add_argument("--tls-cert", metavar="FILE", help="our certificate, if the peer asks for one")
    group.add_argument("--tls-key", metavar="FILE", help="its key, if that is not in the same file")
    add_verbosity(parser)


def add_query_options(parser: Parser) -> None:
    """Add what says which entities are meant."""
    parser.add_argument(
        "-k",
        "--key",
        dest="keys",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="a key: a keyword or a tag, nested as in SequenceKeyword[0].Keyword",
    )
    parser.add_argument("--level", metavar="L", help="patient, study, series or image")
    parser.add_argument(
        "--model", choices=("study", "patient", "patient-study"), help="the information model's root (default: study)"
    )


def add_server_options(parser: Parser) -> None:
    """Add what every server takes."""
    group = parser.add_argument_group("the server")
    group.add_argument(
        "--listen",
        type=address,
        metavar="AET@HOST:PORT",
        default=LISTEN,
        help=f"our AE title and where to listen; port 0 picks one (default: {LISTEN})",
    )
    group.add_argument("--max-associations", type=count, metavar="N", default=1000, help="at once (default: 1000)")
    group.add_argument("--artim-timeout", type=seconds, metavar="S", help="for a peer to associate (default: 30)")
    group.add_argument("--network-timeout", type=seconds, metavar="S", help="inside of a message (default: 60)")
    group.add_argument("--dimse-timeout", type=seconds, metavar="S", help="for an answer (default: 60)")
    group.add_argument("--tls-cert", metavar="FILE", help="our certificate: serve TLS only")
    group.add_argument("--tls-key", metavar="FILE", help="its key, if that is not in the same file")
    group.add_argument("--tls-ca", metavar="FILE", help="demand certificates of peers, and verify them with these")
    group.add_argument(
        "--loop", choices=("asyncio", "uvloop", "trio"), help="the event loop (default: uvloop if it is installed)"
    )
    group.add_argument(
        "--workers",
        type=count,
        metavar="N",
        default=1,
        help="processes that serve the address together (default: 1); one for each processor core is most",
    )
    add_verbosity(parser)


def add_peer_tls_options(parser: Parser) -> None:
    """Add what is needed for TLS towards others."""
    group = parser.add_argument_group("TLS towards C-MOVE destinations")
    group.add_argument(
        "--peer-tls-ca", metavar="FILE", help="certificates to verify them with, instead of the system's"
    )
    group.add_argument("--peer-tls-cert", metavar="FILE", help="our certificate, if they ask for one")
    group.add_argument("--peer-tls-key", metavar="FILE", help="its key, if that is not in the same file")


# What options make.


def client_timeouts(options: argparse.Namespace) -> Timeouts:
    """Make the deadlines of a client."""
    from .. import Timeouts

    limit: float | None = options.timeout
    if limit is None:
        return Timeouts()
    return Timeouts(connect=limit, tls=limit, associate=limit, response=limit)


def server_timeouts(options: argparse.Namespace) -> Timeouts:
    """Make the deadlines of a server."""
    from .. import Timeouts

    given: dict[str, float] = {}
    for value, names in (
        (options.artim_timeout, ("associate", "tls")),
        (options.network_timeout, ("message", "write")),
        (options.dimse_timeout, ("response", "retrieve")),
    ):
        if value is not None:
            given.update(dict.fromkeys(names, value))
    return Timeouts(**given)


def server_limits(options: argparse.Namespace) -> Limits:
    """Make the bounds of a server."""
    from .. import Limits

    unassociated = Limits().unassociated
    return Limits(
        associations=options.max_associations,
        unassociated=None if unassociated is None else -(-unassociated // options.workers),
    )


def client_identity(options: argparse.Namespace) -> UserIdentity | None:
    """Make the identity of the user, or ``None``.

    :raises CommandError: the file of the password cannot be read, or there is nobody whose it is.
    """
    from .outcome import CommandError, Exit

    name, path = options.user, options.password_file
    if name is None:
        if path is not None:
            raise CommandError("--password-file has the password of a --user", Exit.USAGE)
        return None
    if not name.isprintable():
        raise CommandError("--user is not a printable name", Exit.USAGE)
    from .. import UserIdentity

    password = os.environ.get(PASSWORD) if path is None else read_password(path)
    return UserIdentity.username(name) if password is None else UserIdentity.password(name, password)


def read_password(path: str) -> str:
    """Return the first line of a file.

    :raises CommandError: it cannot be read.
    """
    from .outcome import CommandError, Exit

    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        reason = (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else "not UTF-8"
        raise CommandError(f"cannot read {path}: {reason}", Exit.USAGE) from exc


def client_ssl(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Make the TLS context of a client, or ``None``.

    :raises CommandError: a file is not what it should be.
    """
    if not (options.tls or options.tls_ca or options.tls_cert or options.tls_key):
        return None
    return _client_context(options.tls_ca, options.tls_cert, options.tls_key, "--tls")


def peer_ssl(options: argparse.Namespace) -> ssl.SSLContext:
    """Make the context for TLS towards C-MOVE destinations.

    :raises CommandError: a file is not what it should be.
    """
    return _client_context(options.peer_tls_ca, options.peer_tls_cert, options.peer_tls_key, "--peer-tls")


def _client_context(ca: str | None, certificate: str | None, key: str | None, prefix: str) -> ssl.SSLContext:
    from .. import tls

    with _tls_files(ca, certificate, key, prefix):
        # Without an empty password a key that has one would be asked for on the terminal.
        return tls.client_context(ca=ca, certificate=certificate, key=key, password="")


def server_ssl(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Make the TLS context of a server, or ``None``.

    :raises CommandError: a file is not what it should be, or the certificate is missing.
    """
    if not (options.tls_ca or options.tls_cert or options.tls_key):
        return None
    from .. import tls
    from .outcome import CommandError, Exit

    if not options.tls_cert:
        raise CommandError("a server needs --tls-cert for TLS", Exit.USAGE)
    with _tls_files(options.tls_ca, options.tls_cert, options.tls_key, "--tls"):
        return tls.server_context(options.tls_cert, options.tls_key, ca=options.tls_ca, password="")


@contextmanager
def _tls_files(ca: str | None, certificate: str | None, key: str | None, prefix: str) -> Iterator[None]:
    """Say what is wrong with the files of a TLS context."""
    from .outcome import CommandError, Exit

    if key and not certificate:
        raise CommandError(f"{prefix}-key is the key of a {prefix}-cert", Exit.USAGE)
    names = [name for name in (ca, certificate, key) if name is not None]
    for name in names:
        if not os.access(name, os.R_OK):
            raise CommandError(f"cannot read {name}", Exit.USAGE)
    try:
        yield
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise CommandError(f"no usable certificates or key in {', '.join(names)}: {exc}", Exit.USAGE) from exc


# A file of options.


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line, after those that a file of ``--config`` stands for.

    :raises CommandError: the file cannot be read.
    """
    options = parser.parse_args(words)
    path: str | None = getattr(options, "config", None)
    if path is None:
        return options
    values = _load(path)
    tables = {name: values.pop(name) for name in parser.tables if name in values}
    from_file = _words(path, values)
    parser.source = path
    _, unknown = parser.parse_known_args([*from_file, "DIR"])
    if unknown:
        parser.error(f"{unknown[0][2:].partition('=')[0]!r} is no option")
    parser.source = None
    options = parser.parse_args([*from_file, *words])
    for name, table in tables.items():
        setattr(options, name, _table(parser, path, name, table))
    return options


def _load(path: str) -> dict[str, Any]:
    """Read a TOML file."""
    import tomllib

    from .outcome import CommandError, Exit

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else str(exc)
        raise CommandError(f"{path}: {reason}", Exit.USAGE) from exc


def _table(parser: Parser, path: str, name: str, table: object) -> object:
    """Read a table that is no option."""
    from .outcome import CommandError, Exit

    if not isinstance(table, dict):
        raise CommandError(f"{path}: {name!r} is not a table", Exit.USAGE)
    try:
        return parser.tables[name](table)
    except ValueError as exc:
        raise CommandError(f"{path}: [{name}]: {exc}", Exit.USAGE) from exc


def _words(path: str, values: Mapping[str, Any]) -> list[str]:
    """Return what would stand on the command line instead of the values of a file."""
    from .outcome import CommandError, Exit

    words = []
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool):
                words += [f"--{name}"] if one else []
            elif isinstance(one, str | int | float) and name not in ("help", "config"):
                words.append(f"--{name}={one}")
            else:
                raise CommandError(f"{path}: {name!r} is no option that has such a value", Exit.USAGE)
    return words
