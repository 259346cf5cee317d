"""The command line program, ``asyncdicom``: one module per command.

Theory of operation
-------------------
Starting must cost next to nothing, so a module is imported when it is needed and not before: the parser of a command when
that command is named, the network when its arguments are good, pydicom when there is a query, Rich when something is drawn
on a terminal.

Results go to standard output, everything else to standard error. A command ends with an exit status of
:class:`~.outcome.Exit`; what goes wrong is one line, made in one place (:mod:`.outcome`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

__all__ = ["COMMANDS", "main"]

#: The commands, in the order of the help, and what each does.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "echo": "verify that a peer answers (C-ECHO)",
        "store": "send DICOM files and folders (C-STORE)",
        "find": "query patients, studies, series or images (C-FIND)",
        "get": "retrieve instances into a folder (C-GET)",
        "move": "have instances sent to another application entity (C-MOVE)",
        "receive": "receive instances into a folder (a storage SCP)",
        "archive": "serve a folder as a Query/Retrieve archive",
        "password": "make the hash of a password, for the users of a server",
        "demo": "show the main job on real data, without any peer",
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status.

    :param arguments: what follows the program's name; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in COMMANDS:
            from importlib import import_module

            from .outcome import run

            return run(words[0], import_module(f".{words[0]}", __name__), words[1:])
        return _without_command(words)
    except KeyboardInterrupt:  # before, or after, there was anything to leave
        return 130


def _without_command(words: Sequence[str]) -> int:
    """Help, or say what is wrong with the first word."""
    from .arguments import Parser, close_match
    from .outcome import Exit

    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="asyncdicom",
        usage="asyncdicom COMMAND ...",
        description="DICOM networking from the command line. Peers are named AET@HOST:PORT.",
        epilog=f"commands:\n{lines}\n\n'asyncdicom COMMAND --help' tells more about each.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    if not words:
        parser.print_help(sys.stderr)
        return Exit.USAGE
    if not words[0].startswith("-"):
        parser.error(f"{words[0]!r} is no command{close_match(words[0], COMMANDS)}")
    if parser.parse_args(words).version:
        from .. import __version__

        print(f"asyncdicom {__version__}")
    return Exit.DONE
