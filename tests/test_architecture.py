"""What imports what: the sans-IO line, layers that point one way, and the public API as all that the top layer uses."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import asyncdicom

ROOT = Path(asyncdicom.__file__).parent

#: From the bottom up: what is in a row imports from the rows above it here, and from nothing else of the package. A package
#: that is named stands for all its modules.
LAYERS = (
    ("protocol.values",),
    ("status", "sop", "settings", "cancellation", "threads", "_quiet", "instrument", "tls"),
    ("exceptions",),
    ("protocol.pdu", "protocol.states", "protocol.commands", "protocol.extended"),
    ("protocol.framing", "protocol.negotiation", "protocol.recurring"),
    ("protocol.upper_layer",),
    ("protocol.dimse",),
    # The sans-IO line.
    ("transport", "_deflate", "disk"),
    ("proxy_protocol", "listening"),
    ("_elements",),
    ("_part10",),
    ("_files",),
    ("_transcode",),
    ("dataset",),
    ("incoming", "outgoing", "identifiers", "fitting"),
    ("connection",),
    ("responses",),
    ("instances",),
    ("operations", "requests", "forwarding"),
    ("storing",),
    ("dispatch",),
    ("association",),
    ("client",),
    ("services", "pool"),
    ("admission", "acceptor"),
    ("server",),
    ("retrieval",),
    ("archive", "testing", "exporters"),
    ("cli",),
    ("__main__",),
)
#: What holds nothing but names, all of them imported when they are asked for.
FACADES = frozenset({"", "protocol"})

#: What the top layer may use, besides its own modules.
PUBLIC = ("asyncdicom", "asyncdicom.dataset", "asyncdicom.exceptions", "asyncdicom.sop", "asyncdicom.status")
PROTOCOL = tuple(f"asyncdicom.{name}" for row in LAYERS for name in row if name.startswith("protocol."))


class Import(NamedTuple):
    """One name that a module imports; ``name`` is empty for ``import module``."""

    module: str
    name: str
    line: int
    typing_only: bool
    at_import_time: bool


class Module(NamedTuple):
    """One module of the package, by its name inside of it."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        parts = ("asyncdicom", *self.name.split(".")) if self.name else ("asyncdicom",)
        return ".".join(parts if self.path.name == "__init__.py" else parts[:-1])


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(node: ast.AST, *, typing: bool = False, deferred: bool = False) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Yield every node with whether it is for type checkers only, and whether it runs after the import."""
    for child in ast.iter_child_nodes(node):
        yield child, typing, deferred
        yield from statements(
            child,
            typing=typing or is_typing(child),
            deferred=deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
        )


@cache
def imports(module: Module) -> tuple[Import, ...]:
    found = []
    for node, typing, deferred in statements(module.tree):
        flags = (typing, not deferred and not typing)
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", node.lineno, *flags) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.package.split(".")
                package = parts[: len(parts) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            found += [Import(base, alias.name, node.lineno, *flags) for alias in node.names]
    return tuple(found)


def home(imported: Import) -> str | None:
    """Give the module of the package that an import reads from, ``None`` for one of another package."""
    root, _, name = imported.module.partition(".")
    if root != "asyncdicom":
        return None
    inner = f"{name}.{imported.name}".strip(".")
    return inner if any(module.name == inner for module in modules()) else name


def layer(name: str) -> int:
    for number, row in enumerate(LAYERS):
        if any(name == entry or name.startswith(f"{entry}.") for entry in row):
            return number
    raise AssertionError(f"asyncdicom.{name} is in no layer")


def unit(name: str) -> str:
    """Give the entry of ``LAYERS`` that a module belongs to."""
    return next(entry for entry in LAYERS[layer(name)] if name == entry or name.startswith(f"{entry}."))


def named(*names: str) -> list[Module]:
    return [module for module in modules() if module.name.partition(".")[0] in names]


def where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT.parent)}:{line}"


ALL = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name or "asyncdicom")
SANS_IO = pytest.mark.parametrize("module", named("protocol"), ids=lambda module: module.name)
TOP = pytest.mark.parametrize("module", named("archive", "cli"), ids=lambda module: module.name)
TESTING = pytest.mark.parametrize("module", named("testing"), ids=lambda module: module.name)


@ALL
def test_every_module_has_a_layer_and_imports_from_lower_ones_only(module: Module) -> None:
    if module.name in FACADES:
        assert not [entry for entry in imports(module) if home(entry) is not None and not entry.typing_only]
        return
    own = layer(module.name)
    for entry in imports(module):
        name = home(entry)
        if name is None or entry.typing_only or name in FACADES:
            continue
        assert layer(name) < own or unit(name) == unit(module.name), f"{where(module, entry.line)} imports {name}"


@ALL
def test_what_is_slow_to_import_is_imported_when_it_is_needed(module: Module) -> None:
    slow = {"pydicom", "sqlalchemy", "rich"}
    if module.name.startswith("archive."):
        slow = {"rich"}
    found = {entry.module.partition(".")[0] for entry in imports(module) if entry.at_import_time}
    assert not found & slow


@ALL
def test_few_modules_know_pydicom(module: Module) -> None:
    knows = any(entry.module.partition(".")[0] == "pydicom" and not entry.typing_only for entry in imports(module))
    top = module.name.partition(".")[0] in ("archive", "cli", "testing")
    assert not knows or top or module.name in ("dataset", "_transcode", "identifiers", "fitting")


# The sans-IO line.


@SANS_IO
def test_the_protocol_imports_the_standard_library_and_tables_only(module: Module) -> None:
    for entry in imports(module):
        root, *inner = entry.module.split(".")
        if root == "asyncdicom":
            assert (home(entry) or "").partition(".")[0] in ("protocol", "exceptions", "status", "sop", "")
            assert inner or entry.name in ("protocol", "exceptions", "status", "sop")
        else:
            assert root in sys.stdlib_module_names, where(module, entry.line)


@SANS_IO
def test_the_protocol_has_no_clock_no_io_and_no_log(module: Module) -> None:
    forbidden = {
        "asyncio",
        "logging",
        "select",
        "selectors",
        "socket",
        "ssl",
        "threading",
        "time",
        "datetime",
        "random",
    }
    forbidden |= {"os", "io", "pathlib", "subprocess", "concurrent", "multiprocessing", "queue", "signal", "warnings"}
    assert not {entry.module.partition(".")[0] for entry in imports(module)} & forbidden


@SANS_IO
def test_the_protocol_is_synchronous(module: Module) -> None:
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert not [where(module, node.lineno) for node in ast.walk(module.tree) if isinstance(node, kinds)]


@SANS_IO
def test_the_protocol_prints_and_opens_nothing(module: Module) -> None:
    calls = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    names = {func.id for func in calls if isinstance(func, ast.Name)}
    # Value classes are made as the standard library makes them: from a text of our own.
    allowed = {"exec"} if module.name == "protocol.values" else set()
    assert not names & {"print", "open", "input", "exec", "eval", "__import__"} - allowed


# The top layer is the first user of the public API.


def is_public(module: str, name: str) -> bool:
    names = importlib.import_module(module).__all__
    return name in names or (module, name) == ("asyncdicom", "__version__")


def is_public_import(entry: Import) -> bool:
    if entry.module in PUBLIC and entry.name:
        return is_public(entry.module, entry.name) or f"{entry.module}.{entry.name}" in PUBLIC
    return entry.module in PUBLIC


def foreign_imports(module: Module) -> list[Import]:
    """Give what a package of the top layer imports from the rest of asyncdicom."""
    own = f"asyncdicom.{module.name.partition('.')[0]}"
    return [
        entry
        for entry in imports(module)
        if home(entry) is not None and entry.module != own and not entry.module.startswith(f"{own}.")
    ]


@TOP
def test_the_top_layer_imports_public_names_only(module: Module) -> None:
    # The program is a user of the archive, too.
    archive = "asyncdicom.archive"
    private = [
        f"{where(module, entry.line)} imports {entry.module}.{entry.name}".rstrip(".")
        for entry in foreign_imports(module)
        if not is_public_import(entry) and not (entry.module == archive and is_public(archive, entry.name))
    ]
    assert not private


@TESTING
def test_the_testing_tools_use_the_protocol_and_public_names_only(module: Module) -> None:
    private = []
    for entry in foreign_imports(module):
        protocol = f"{entry.module}.{entry.name}".startswith(PROTOCOL)
        # Public names may be taken from where they live: what is imported here is what ``asyncdicom`` gives.
        exported = entry.name in asyncdicom.__all__ and getattr(asyncdicom, entry.name) is getattr(
            importlib.import_module(entry.module), entry.name
        )
        if not protocol and not exported and not is_public_import(entry):
            private.append(f"{where(module, entry.line)} imports {entry.module}.{entry.name}")
    assert not private


@TOP
def test_the_top_layer_uses_public_names_of_public_modules_only(module: Module) -> None:
    bound = {}
    for entry in imports(module):
        target = f"{entry.module}.{entry.name}" if entry.name else entry.module
        if target in PUBLIC:
            bound[entry.name or entry.module] = target
    private = [
        f"{where(module, node.lineno)} uses {bound[node.value.id]}.{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in bound
        and not is_public(bound[node.value.id], node.attr)
    ]
    assert not private


@TOP
def test_the_top_layer_touches_no_private_attribute_of_others(module: Module) -> None:
    own = {
        node.attr if isinstance(node, ast.Attribute) else node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    private = [
        f"{where(module, node.lineno)} uses .{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in own
    ]
    assert not private
