"""The documentation says what the package does."""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_description

from asyncdicom import (
    FindNegotiation,
    Limits,
    RetrieveNegotiation,
    Server,
    StorageNegotiation,
    Timeouts,
    sop,
)
from asyncdicom.archive import Archive, frame_attributes
from asyncdicom.settings import DEFAULT_MAXIMUM_LENGTH

ROOT = Path(__file__).parent.parent
TABLES = runpy.run_path(str(ROOT / "docs" / "tools" / "make_tables.py"))["PAGES"]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_generated_page_is_what_the_tables_give(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == TABLES[name]()


def python_blocks() -> list[tuple[str, str]]:
    blocks = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, match in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)):
            blocks.append((f"{path.name}-{number}", match))
    return blocks


@pytest.mark.parametrize(("name", "source"), python_blocks())
def test_an_example_is_valid_python(name: str, source: str) -> None:
    # Examples may await at the top level, as they stand inside of somebody's async function.
    body = "\n".join(f"    {line}" for line in source.splitlines())
    compile(f"async def example():\n{body}\n", name, "exec")


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readme_has_its_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert "asyncdicom demo" in commands[0]
    assert "pytest" in commands[1]


CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text of a section of the conformance statement."""
    return re.split(r"(?m)^## ", CONFORMANCE.partition(f"\n## {title}\n")[2])[0]


def tags_of(table: Any) -> list[int]:
    """Return the tags that a table of :mod:`asyncdicom.archive.frame_attributes` is about."""
    values = [*table, *table.values()] if isinstance(table, dict) else table if isinstance(table, tuple) else [table]
    return [value for value in values if isinstance(value, int) and value > 0xFFFF]


FRAME_TABLES = sorted(
    name for name, value in vars(frame_attributes).items() if re.fullmatch(r"_?[A-Z][A-Z_]*", name) and tags_of(value)
)
#: What is read to find out when frames come, or where a plane is, and stays as it is.
STAYS = {
    "_FRAME_DELAY",
    "_FRAME_CONTENT",
    "_FRAME_REFERENCE_DATE_TIME",
    "_TIMEZONE_OFFSET",
    "_MASK_OPERATION",
    "_TID_OFFSET",
}


@pytest.mark.parametrize("name", FRAME_TABLES)
def test_the_conformance_statement_tells_of_every_attribute_that_changes_with_frames(name: str) -> None:
    if name in STAYS:
        return
    told = section("Frames")
    for tag in tags_of(getattr(frame_attributes, name)):
        assert dictionary_description(tag) in told, dictionary_description(tag)


def test_the_conformance_statement_gives_the_defaults_that_run() -> None:
    told = dict(re.findall(r"(?m)^\| `(\w+)` [^|]*\| ([\d ]+)", section("Network interfaces and configuration")))
    defaults = {**values(Timeouts()), **values(Limits())}
    assert {name: int(number.replace(" ", "")) for name, number in told.items()} == {
        name: defaults[name] for name in told
    }
    assert {name for name, value in values(Timeouts()).items() if value is not None} <= told.keys()
    for text in (sop.IMPLEMENTATION_CLASS_UID, sop.IMPLEMENTATION_VERSION_NAME, f"{DEFAULT_MAXIMUM_LENGTH:,}"):
        assert text.replace(",", " ") in section("Associations")
    parameters = inspect.signature(Server.__init__).parameters
    assert f"up to {parameters['async_operations'].default}".replace(" ", "") in section("Associations").replace(
        " ", ""
    )


def values(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


#: What the conformance statement calls each subfield of FIND and retrieval, in their order.
SUBFIELDS = {
    "relational": ("relational queries", "relational retrieval"),
    "combined_date_time": ("combined date-time matching",),
    "fuzzy": ("fuzzy matching",),
    "timezone": ("timezone adjustment",),
    "enhanced_conversion": ("enhanced multi-frame conversion",),
    "empty_value": ("empty value matching",),
    "multiple_value": ("multiple value matching",),
}


@pytest.mark.parametrize("kind", [FindNegotiation, RetrieveNegotiation])
def test_the_conformance_statement_tells_what_extended_negotiation_is_answered(kind: Any, tmp_path: Path) -> None:
    services = Archive(tmp_path).services
    uid, label = (sop.STUDY_ROOT_FIND, "FIND") if kind is FindNegotiation else (sop.STUDY_ROOT_GET, "MOVE, GET")
    answer = kind.read(services.extended({uid: b"\1" * 7})[uid])
    row = re.search(rf"(?m)^\| {label} [^|]*\| ([^|]*) \| ([^|]*) \|$", section("Associations"))
    assert row is not None
    told = {name: column == 0 for column in (0, 1) for name in row[column + 1].split(", ")}
    said = {
        name: getattr(answer, field) for field, names in SUBFIELDS.items() for name in names if hasattr(kind, field)
    }
    assert told == {name: said[name] for name in said if name in told}
    assert len(told) == len([field for field in SUBFIELDS if hasattr(kind, field)])


def test_the_conformance_statement_tells_how_storage_is_answered(tmp_path: Path) -> None:
    answer = Archive(tmp_path).services.extended({sop.CT_IMAGE_STORAGE: StorageNegotiation()})[sop.CT_IMAGE_STORAGE]
    assert isinstance(answer, StorageNegotiation)
    told = section("Associations")
    assert f"level of support {answer.level} (full), digital signature support {answer.digital_signature}," in told
    assert f"elements are not coerced ({answer.element_coercion})" in told
