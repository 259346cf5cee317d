"""Who may still be about to read a file that nobody will ask for again.

A retrieval knows the files that it is going to send before it opens them. One of these may be replaced meanwhile: it is
removed when every reader that began before has ended.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque

__all__ = ["Leases"]


class Leases:
    """Readers, and the files that were retired while they read. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._readers: dict[int, None] = {}  # in the order in which they began
        self._retired: deque[tuple[int, str]] = deque()

    def begin(self) -> int:
        """Begin to read; return what ends it."""
        with self._lock:
            number = next(self._numbers)
            self._readers[number] = None
            return number

    def end(self, number: int) -> None:
        """End what :meth:`begin` began; may be called again."""
        with self._lock:
            self._readers.pop(number, None)

    def retire(self, name: str) -> None:
        """Note that a file is found by nobody any more who begins from now on."""
        with self._lock:
            self._retired.append((next(self._numbers), name))

    def has_expired(self) -> bool:
        """Say whether :meth:`expired` would return anything."""
        with self._lock:
            return self._has_expired()

    def _has_expired(self) -> bool:
        oldest = next(iter(self._readers), None)
        return bool(self._retired) and (oldest is None or self._retired[0][0] < oldest)

    def expired(self) -> list[str]:
        """Take and return the files that nobody reads any more."""
        with self._lock:
            names = []
            while self._has_expired():
                names.append(self._retired.popleft()[1])
            return names
