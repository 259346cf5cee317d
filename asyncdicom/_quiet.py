"""Keep pydicom's remarks about odd values out of other people's programs.

pydicom reports a value that the standard does not allow twice: as a Python warning and to its logger. Both texts may
hold the value, which may be patient data, and a program that turns warnings into errors would fail on the data of a
peer. The tools at hand do not fit: :class:`warnings.catch_warnings` and ``pydicom.config.settings`` change the whole
process, so two threads that decode at the same time would undo each other's change, and pydicom would fall silent for
its other users.

Instead one filter is put in front of the list of warning filters and one on pydicom's logger. Both ask a thread-local
flag, so they are blind outside of ``with quiet():`` and in any other thread.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

__all__ = ["quiet"]


class _Depth(threading.local):
    value = 0


_depth = _Depth()


class _Message:
    """Stand where a filter has its regular expression for the text."""

    def match(self, text: str) -> bool:
        return _depth.value > 0


_FILTER = ("ignore", _Message(), Warning, None, 0)


def _keep(record: logging.LogRecord) -> bool:
    return _depth.value == 0


@contextmanager
def quiet() -> Iterator[None]:
    """Drop all warnings of this thread, and what it says to pydicom's logger, until the block is left."""
    # Tests and catch_warnings exchange the list, and others put their filters in front of ours: look at each entry.
    filters = cast(list[Any], warnings.filters)
    if not filters or filters[0] is not _FILTER:
        if _FILTER in filters:
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)
    logger = logging.getLogger("pydicom")
    if _keep not in logger.filters:
        logger.addFilter(_keep)
    _depth.value += 1
    try:
        yield
    finally:
        _depth.value -= 1
