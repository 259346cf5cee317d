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
from .arguments import Parser, add_server_options
from .screen import Screen, amount, clean, counted, size

if TYPE_CHECKING:
    import anyio

    from .. import Association, Server, StoreRequest
    from .keep import Kept
    from .serving import Work

__all__ = ["add_arguments", "make_work", "run"]


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
    from .serving import run_server

    return run_server("receive", options, screen, make_work(options, screen))


def make_work(options: argparse.Namespace, screen: Screen) -> Work:
    """Make what is served."""
    return _Receiving(options, screen)


#: Refused: duplicate SOP Instance (PS3.7 C.5.8).
_DUPLICATE = 0x0111

#: Seconds between two looks at which associations have ended.
_LOOK = 0.5


class _Receiving:
    """Keeps what comes, counts it, and says so once an association has ended."""

    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        from .. import Services
        from .keep import Folder

        self.services = Services()
        self.services.store("*", unknown=True)(self._store)
        guard(self.services, options)
        self.options = {"called": options.called, **server_access(options)}
        self._refuses = options.on_duplicate == "refuse"
        self._folder = Folder(options.folder, replace=options.on_duplicate == "replace", shared=options.workers > 1)
        self._screen = screen
        self._counts: dict[Association, Counter[Kept]] = {}
        self._total = 0
        self._begun: anyio.Event | None = None

    def prepare(self) -> None:
        """Remove what a killed process has left in the folder."""
        self._folder.prepare()
        self._folder.remove_left_over()

    def open(self) -> None:
        """See that files can be made in the folder."""
        self._folder.prepare()

    async def _store(self, request: StoreRequest) -> None:
        from .. import StatusError
        from .keep import Kept

        kept = await self._folder.keep(request)
        if kept is Kept.REFUSED and self._refuses:
            raise StatusError(_DUPLICATE, "another content is there already")
        self._total += 1
        self._counts.setdefault(request.association, Counter())[kept] += 1
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

    def close(self) -> None:
        """Print what is left to be said of associations."""
        for association in list(self._counts):
            self._say(association)

    def tally(self) -> tuple[int, ...]:
        """Return how many instances were received, and how many bytes were written."""
        return self._total, self._folder.bytes

    def report(self, tally: tuple[int, ...]) -> None:
        """Print a line for all of it."""
        if tally and tally[0]:
            try:
                self._screen.line(f"received {counted(tally[0], 'instance')}, {size(tally[1])}")
            except OSError:
                pass  # nobody reads it
