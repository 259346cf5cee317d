"""The documentation says what the package does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

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
