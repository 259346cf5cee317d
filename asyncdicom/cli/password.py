"""Make the hash of a password, for the users of a server.

The password is asked for, or is the first line of a file. The hash goes into the table of users of the TOML file of
archive or receive:

  [users]
  alice = "scrypt$16384$8$1$..."

example:
  asyncdicom password
"""

from __future__ import annotations

import argparse
import sys

from .arguments import Parser, add_verbosity, read_password
from .outcome import CommandError, Exit
from .screen import Screen

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Describe the arguments."""
    parser.add_argument("--password-file", metavar="FILE", help="take it from the first line of this file")
    add_verbosity(parser)


def run(options: argparse.Namespace, screen: Screen) -> int:
    """Do it, and return the exit status."""
    from .access import PasswordHash

    password = _ask() if options.password_file is None else read_password(options.password_file)
    if not password:
        raise CommandError("an empty password is none", Exit.USAGE)
    screen.line(str(PasswordHash.make(password.encode())))
    return Exit.DONE


def _ask() -> str:
    """Ask for a password on the terminal, twice.

    :raises CommandError: there is no terminal, or it was not the same.
    """
    from getpass import getpass

    if not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask for the password: use --password-file", Exit.USAGE)
    password = getpass("password: ")
    if getpass("again: ") != password:
        raise CommandError("that was not the same", Exit.USAGE)
    return password
