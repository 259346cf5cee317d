"""The program as a whole: help, versions, wrong words, and what starting costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asyncdicom
from asyncdicom.cli import COMMANDS

from .program import run

PACKAGE = Path(asyncdicom.__file__).parent


def test_help_names_every_command() -> None:
    result = run("--help").check()
    for name, text in COMMANDS.items():
        assert f"  {name}" in result.out
        assert text in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(name: str) -> None:
    result = run(name, "--help").check()
    assert result.out.startswith(f"usage: asyncdicom {name}")
    assert f"  asyncdicom {name}" in result.out.partition("example")[2]
    assert "`" not in result.out


def test_no_command_is_wrong_usage_and_shows_the_help() -> None:
    result = run()
    assert result.status == 2
    assert result.out == ""
    assert "commands:" in result.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fnd"], "asyncdicom: 'fnd' is no command; did you mean find? (see asyncdicom --help)"),
        (["frobnicate"], "asyncdicom: 'frobnicate' is no command (see asyncdicom --help)"),
        (["--frobnicate"], "asyncdicom: unrecognized arguments: --frobnicate (see asyncdicom --help)"),
        (["echo"], "asyncdicom echo: the following arguments are required: AET@HOST:PORT (see asyncdicom echo --help)"),
        (
            ["echo", "pacs:104"],
            "asyncdicom echo: argument AET@HOST:PORT: 'pacs:104' is not an address: expected AET@HOST:PORT "
            "(see asyncdicom echo --help)",
        ),
        (
            ["echo", "A\x1b[2J@h:1"],
            "asyncdicom echo: argument AET@HOST:PORT: 'A\\x1b[2J' is not an AE title: 1 to 16 characters, no backslash, "
            "no control characters (see asyncdicom echo --help)",
        ),
        (
            ["echo", "X@h:1", "--repeat", "0"],
            "asyncdicom echo: argument --repeat: '0' is not a number of at least 1 (see asyncdicom echo --help)",
        ),
        (
            ["echo", "X@h:1", "--timeout", "never"],
            "asyncdicom echo: argument --timeout: 'never' is not a number of seconds above 0 "
            "(see asyncdicom echo --help)",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words: list[str], expected: str) -> None:
    result = run(*words)
    assert (result.status, result.out, result.error) == (2, "", expected)


def test_version() -> None:
    assert run("--version").check().out == f"asyncdicom {asyncdicom.__version__}\n"


def test_help_loads_neither_the_network_nor_pydicom_nor_rich() -> None:
    code = (
        "import sys\nfrom asyncdicom.cli import main\n"
        "try:\n    main({words})\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    for words in (["--help"], ["find", "--help"], ["receive", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words=words)], capture_output=True, text=True, check=True, timeout=60
        )
        loaded = set(done.stderr.split())
        assert not loaded & {"pydicom", "rich", "anyio", "asyncio", "ssl", "sqlalchemy", "asyncdicom.client"}, words


def test_a_client_loads_no_pydicom_for_an_echo() -> None:
    code = "import sys\nfrom asyncdicom.cli import main\nmain(['echo', 'X@127.0.0.1:1'])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not set(done.stdout.split()) & {"pydicom", "rich", "sqlalchemy"}


def test_commands_use_public_names_only() -> None:
    public = set(asyncdicom.__all__) | {"__version__"}
    modules = {"sop", "status", "dataset", "exceptions", "archive", "testing"}
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                names = {alias.name for alias in node.names}
                if node.module is None:
                    assert names <= public | modules, path.name
                else:
                    assert node.module.partition(".")[0] in modules, path.name
                assert not any(name.startswith("_") and name != "__version__" for name in names), path.name
