"""Serve a folder as a Query/Retrieve archive: C-STORE, C-FIND, C-GET and C-MOVE of all information models.

Peers must call the archive by its own AE title, unless --any-called; --allow restricts who may call, by AE title or by
network address. C-MOVE sends to the --peer addresses. Options that are not given are taken from the TOML file of --config,
where they have the same names (peer, allow, listen, on-duplicate, ...).

example:
  asyncdicom archive /srv/dicom --listen ARCHIVE@0.0.0.0:11112 --peer WORKSTATION@10.0.0.7:11112
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .arguments import LISTEN, Parser, add_server_options, address, ae_title, server_limits, server_ssl, server_timeouts
from .outcome import CommandError, Exit
from .screen import Screen, counted

if TYPE_CHECKING:
    from .. import Server

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("folder", metavar="DIR", help="where the archive is; made if it is not there")
    parser.add_argument(
        "--peer", type=address, action="append", metavar="AET@HOST:PORT", help="a C-MOVE destination; may be repeated"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="take options that are not given here from this file")
    parser.add_argument(
        "--on-duplicate",
        choices=("refuse", "keep", "replace"),
        help="another content for an instance that is there: refuse it (the default), keep the first one and report "
        "success, or replace it",
    )
    parser.add_argument(
        "--sync",
        choices=("always", "batch", "never"),
        help="when an instance is forced to the disk before it is acknowledged (default: batch)",
    )
    parser.add_argument("--any-called", action="store_true", help="accept any called AE title")
    parser.add_argument(
        "--allow",
        action="append",
        metavar="AET|NETWORK",
        help="accept this calling AE title, or connections from this address or network; may be repeated",
    )
    parser.add_argument(
        "--rebuild-index", action="store_true", help="make the index anew from the files before serving"
    )
    add_server_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        raise CommandError("the archive needs SQLAlchemy (pip install 'asyncdicom[archive]')", Exit.USAGE) from None
    _configure(options)
    tls = server_ssl(options)
    limits, timeouts = server_limits(options), server_timeouts(options)
    titles, networks = _allowed(options.allow)
    from .. import Server
    from ..archive import Archive
    from .serving import run_server

    own = options.listen.ae_title
    archive = Archive(
        options.folder,
        ae_title=own,
        on_duplicate=options.on_duplicate or "refuse",
        sync=options.sync or "batch",
    )
    try:
        archive.open()
    except OSError as exc:
        raise CommandError(f"cannot use {options.folder}: {exc.strerror or exc}", Exit.USAGE) from exc
    try:
        if options.rebuild_index:
            found = archive.rebuild()
            screen.note(
                f"indexed {counted(found.indexed, 'instance')}; {counted(found.duplicates, 'duplicate')}, "
                f"{found.damaged} damaged"
            )
        peers = {peer.ae_title: peer for peer in options.peer or ()}

        def make() -> Server:
            return Server(
                archive.services,
                options.listen,
                ssl=tls,
                peers=peers,
                called=None if options.any_called else [own],
                calling=titles,
                allow=networks,
                limits=limits,
                timeouts=timeouts,
            )

        return run_server(options, screen, make)
    finally:
        archive.close()


def _allowed(given: list[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Part what is allowed into AE titles and networks."""
    import ipaddress

    titles: list[str] = []
    networks: list[str] = []
    for text in given or ():
        try:
            networks.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            try:
                titles.append(ae_title(text))
            except argparse.ArgumentTypeError as exc:
                raise CommandError(f"--allow: {exc}", Exit.USAGE) from exc
    return titles or None, networks or None


#: The options of the file: how each is read, and its default on the command line.
_OPTIONS: Mapping[str, Any] = {
    "listen": address,
    "peer": address,
    "allow": str,
    "any-called": bool,
    "on-duplicate": str,
    "sync": str,
    "max-associations": int,
    "artim-timeout": float,
    "network-timeout": float,
    "dimse-timeout": float,
    "tls-cert": str,
    "tls-key": str,
    "tls-ca": str,
    "loop": str,
}
_CHOICES = {
    "on-duplicate": ("refuse", "keep", "replace"),
    "sync": ("always", "batch", "never"),
    "loop": ("asyncio", "uvloop", "trio"),
}
_LISTS = frozenset({"peer", "allow"})
_DEFAULTS: Mapping[str, Any] = {"listen": LISTEN, "max-associations": 1000}


def _configure(options: argparse.Namespace) -> None:
    """Take options that were not given from the configuration file."""
    for name, value in _read(options.config).items():
        attribute = name.replace("-", "_")
        current = getattr(options, attribute)
        default = _DEFAULTS.get(name)
        if current in (None, False) or (default is not None and str(current) == str(default)):
            setattr(options, attribute, value)
    if isinstance(options.listen, str):
        options.listen = address(options.listen)


def _read(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    import tomllib

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}", Exit.USAGE) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise CommandError(f"{path} is not TOML: {exc}", Exit.USAGE) from exc
    values = {}
    for name, value in found.items():
        if name not in _OPTIONS:
            raise CommandError(f"{path}: {name!r} is no option of the archive", Exit.USAGE)
        values[name] = _value(path, name, value)
    return values


def _value(path: str, name: str, value: Any) -> Any:
    """Check a value of the file."""
    read = _OPTIONS[name]
    try:
        if name in _LISTS:
            if not isinstance(value, list):
                raise ValueError("expected a list")
            return [read(_text(item)) for item in value]
        if read is bool:
            if not isinstance(value, bool):
                raise ValueError("expected true or false")
            return value
        if read in (int, float):
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError("expected a number above 0")
            return read(value)
        text = _text(value)
        if name in _CHOICES and text not in _CHOICES[name]:
            raise ValueError(f"expected one of {', '.join(_CHOICES[name])}")
        return read(text)
    except (ValueError, argparse.ArgumentTypeError) as exc:
        raise CommandError(f"{path}: {name}: {exc}", Exit.USAGE) from exc


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value
