"""Fixtures of the archive's tests."""

from __future__ import annotations

import pydicom.config
import pytest


@pytest.fixture(autouse=True)
def _no_validation_by_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests put values into data sets that the standard forbids: keys have wildcards, real files worse."""
    settings = pydicom.config.settings
    monkeypatch.setattr(settings, "_reading_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(settings, "_writing_validation_mode", pydicom.config.IGNORE)
    return
