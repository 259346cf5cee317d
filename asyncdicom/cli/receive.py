"""Receive instances into a folder, as a storage SCP: <SOP Instance UID>.dcm.

Any storage SOP class is accepted, private ones too, in any transfer syntax, and any called AE title unless --called names
those that are accepted. An instance that is there already with another data set is replaced, in one step, unless
--on-duplicate says otherwise. --config is a TOML file of options, users and rules, as that of 'asyncdicom archive'.

example:
  asyncdicom receive incoming --listen STORE@0.0.0.0:11112
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from .access import add_access_options, guard, server_access
from .arguments import Parser, add_server_options, server_ssl, server_timeouts
from .screen import Screen, amount, clean, counted, size

if TYPE_CHECKING:
    import anyio

    from .. import Association, Server
    from .keep import Folder, Kept

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("folder", metavar="DIR", help="where the files go; made if it is not there")
    parser.add_argument(
        "--on-duplicate",
        choices=("refuse", "keep", "replace"),
        default="replace",
        help="another content of an instance that is there: refuse it, keep the first one and report success, or replace "
        "that (the default)",
    )
    add_server_options(parser)
    add_access_options(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .. import Server, Services, StatusError, StoreRequest
    from .keep import Folder, Kept
    from .serving import run_server

    tls, timeouts = server_ssl(options), server_timeouts(options)
    folder = Folder(options.folder, replace=options.on_duplicate == "replace")
    folder.prepare()
    received = _Received(screen, folder)
    services = Services()

    @services.store("*", unknown=True)
    async def store(request: StoreRequest) -> None:
        kept = await folder.keep(request)
        if kept is Kept.REFUSED and options.on_duplicate == "refuse":
            raise StatusError(_DUPLICATE, "another content is there already")
        received.add(request.association, kept)

    guard(services, options)

    def make() -> Server:
        return Server(
            services, options.listen, ssl=tls, called=options.called, timeouts=timeouts, **server_access(options)
        )

    try:
        return run_server(options, screen, make, received.watch)
    finally:
        received.end()


#: Refused: duplicate SOP Instance (PS3.7 C.5.8).
_DUPLICATE = 0x0111

#: Seconds between two looks at which associations have ended.
_LOOK = 0.5


class _Received:
    """Counts what comes, and says so once an association has ended."""

    def __init__(self, screen: Screen, folder: Folder) -> None:
        self._screen = screen
        self._folder = folder
        self._counts: dict[Association, Counter[Kept]] = {}
        self._total = 0
        self._begun: anyio.Event | None = None

    def add(self, association: Association, kept: Kept) -> None:
        """Count an instance."""
        self._total += 1
        self._counts.setdefault(association, Counter())[kept] += 1
        if self._begun is not None:
            self._begun.set()

    async def watch(self, server: Server) -> None:
        """Print a line for each association that has ended; does nothing while nothing comes."""
        import anyio

        while True:
            self._begun = anyio.Event()
            if not self._counts:
                await self._begun.wait()
            await anyio.sleep(_LOOK)
            alive = set(server.associations)
            for association in [one for one in self._counts if one not in alive]:
                self._say(association)

    def _say(self, association: Association) -> None:
        peer = association.peer
        where = f" ({peer.address[0]})" if isinstance(peer.address, tuple) else ""
        counts = self._counts.pop(association)
        parts = [f"{amount(number)} {kept.value}" for kept, number in counts.items() if kept.value != "new"]
        text = counted(counts.total(), "instance") + (f" ({', '.join(parts)})" if parts else "")
        try:
            self._screen.line(clean(f"{peer.ae_title}{where}: {text}"))
        except OSError:
            pass  # nobody reads it: no reason to stop

    def end(self) -> None:
        """Print what is left to be said."""
        for association in list(self._counts):
            self._say(association)
        if self._total:
            try:
                self._screen.line(f"received {counted(self._total, 'instance')}, {size(self._folder.bytes)}")
            except OSError:
                pass
