"""Serve a folder as a Query/Retrieve archive: C-STORE, C-FIND, C-GET and C-MOVE of all information models.

Peers must call the archive by its own AE title or a --called one, unless --any-called; --allow restricts who may call, by
AE title or by network address. C-MOVE sends to the --peer addresses, and through TLS to those of --tls-peer. The TOML file
of --config may have any of the options, by the same names, with lists for those that may be repeated; what the command line
says comes on top. It may also name users, with hashes of 'asyncdicom password', what calling AE titles may do, and what peers
cannot do:

  listen = "ARCHIVE@0.0.0.0:11112"
  peer = ["WORKSTATION@10.0.0.7:11112"]
  on-duplicate = "keep"

  [users]
  alice = "scrypt$16384$8$1$..."

  [access]
  CT1 = ["store"]
  "*" = ["query", "retrieve"]

  [profiles.OLD_PACS]
  async-window = false

example:
  asyncdicom archive /srv/dicom --listen ARCHIVE@0.0.0.0:11112 --peer WORKSTATION@10.0.0.7:11112
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .access import add_access_options, guard, server_access
from .arguments import (
    Parser,
    add_peer_tls_options,
    add_server_options,
    address,
    peer_ssl,
)
from .outcome import CommandError, Exit
from .screen import Screen, counted

if TYPE_CHECKING:
    from .. import Server
    from .serving import Work

__all__ = ["add_arguments", "make_work", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("folder", metavar="DIR", help="where the archive is; made if it is not there")
    parser.add_argument(
        "--peer", type=address, action="append", metavar="AET@HOST:PORT", help="a C-MOVE destination; may be repeated"
    )
    parser.add_argument(
        "--tls-peer", type=address, action="append", metavar="AET@HOST:PORT", help="one that takes TLS; may be repeated"
    )
    parser.add_argument(
        "--on-duplicate",
        choices=("refuse", "keep", "replace"),
        default="refuse",
        help="another content of an instance that is there: refuse it (the default), keep the first one and report "
        "success, or replace that",
    )
    parser.add_argument(
        "--sync",
        choices=("always", "batch", "never"),
        default="batch",
        help="when an instance is forced to the disk before it is acknowledged (default: batch)",
    )
    parser.add_argument("--any-called", action="store_true", help="accept any called AE title")
    parser.add_argument(
        "--rebuild-index", action="store_true", help="make the index anew from the files before serving"
    )
    add_server_options(parser)
    add_access_options(parser)
    add_peer_tls_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .serving import run_server

    return run_server("archive", options, screen, make_work(options, screen))


def make_work(options: argparse.Namespace, screen: Screen) -> Work:
    """Make what is served.

    :raises CommandError: what the archive needs is not installed.
    """
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        raise CommandError("the archive needs SQLAlchemy (pip install 'asyncdicom[archive]')", Exit.USAGE) from None
    return _Archiving(options, screen)


class _Archiving:
    """An archive in a folder."""

    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        from ..archive import Archive

        plain, secure = options.peer or [], options.tls_peer or []
        towards_peers = peer_ssl(options) if secure else None
        own = options.listen.ae_title
        self._folder = options.folder
        self._rebuilds = options.rebuild_index
        self._screen = screen
        self._archive = Archive(options.folder, ae_title=own, on_duplicate=options.on_duplicate, sync=options.sync)
        self.services = self._archive.services
        guard(self.services, options)
        self.options = {
            "peers": {peer.ae_title: peer for peer in (*plain, *secure)},
            "peer_ssl": lambda peer: towards_peers if peer in secure else None,
            "called": None if options.any_called else [own, *(options.called or ())],
            **server_access(options),
        }

    def prepare(self) -> None:
        """Make the index anew if that is wanted: before it is opened, which a damaged one cannot be."""
        if not self._rebuilds:
            return
        with self._usable(), self._screen.bar("making the index") as bar:
            found = self._archive.rebuild(lambda so_far: bar.update(so_far.indexed))
        parts = [f"indexed {counted(found.indexed, 'instance')}"]
        parts += [counted(found.duplicates, "duplicate")] if found.duplicates else []
        parts += [counted(found.damaged, "damaged file")] if found.damaged else []
        parts += [counted(found.missing, "missing file")] if found.missing else []
        self._screen.note("; ".join(parts))

    def open(self) -> None:
        """Open the archive, and remove what a killed process has left half done."""
        with self._usable():
            self._archive.open()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise CommandError(f"cannot use {self._folder}: {reason}", Exit.USAGE) from exc

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    async def watch(self, server: Server) -> None:
        """Do nothing: the archive needs nobody to look after it."""

    def tally(self) -> tuple[int, ...]:
        """Count nothing."""
        return ()

    def report(self, tally: tuple[int, ...]) -> None:
        """Say nothing."""
