from __future__ import annotations

from pathlib import Path

import pytest

from .program import run, run_on_terminal

pytest.importorskip("sqlalchemy")


def test_the_demo_shows_the_main_job() -> None:
    out = run("demo").check().out
    for text in (
        "C-STORE",
        "C-ECHO",
        "C-FIND",
        "C-GET",
        "C-CANCEL",
        "C-MOVE",
        "byte for byte",
        "0xfe00",
        "All of it in ",
    ):
        assert text in out
    assert "\x1b" not in out


def test_the_demo_on_a_terminal_leaves_the_folder_that_is_to_be_kept(tmp_path: Path) -> None:
    result = run_on_terminal("demo", "--keep", tmp_path / "kept")
    assert result.status == 0
    assert "All of it in " in result.out
    assert (tmp_path / "kept" / "archive").is_dir()
