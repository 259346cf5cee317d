"""Where the archive keeps its instances: a small protocol, and the folder that is the default.

Theory of operation
-------------------
An instance is first written whole to a staging name. :meth:`Files.keep` then gives it a name of its own, derived from its
SOP Instance UID only after that was checked to be digits and dots, and never one that exists: two instances of the same
UID never meet in one file. Which of them counts is decided by the index, afterwards; a file that the index does not know
is an orphan, which a rebuild finds. So whatever moment the process dies at, no name ever shows half an instance.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ..dataset import is_temporary, safe_uid

__all__ = ["Files", "FolderFiles", "Sync"]


class Sync(enum.Enum):
    """When an instance is forced to the disk, before it is acknowledged.

    ``ALWAYS``: each for itself; ``BATCH``: those that arrived together at once; ``NEVER``: when the system likes.
    """

    ALWAYS = "always"
    BATCH = "batch"
    NEVER = "never"


class Files(Protocol):
    """Keeps instances under names of its own making. Its methods block; they are called in worker threads."""

    def stage(self) -> str:
        """Return a path for an instance that is being received."""
        ...

    def keep(self, staged: str, sop_instance_uid: str) -> str:
        """Take a staged instance in; return its name.

        :raises ValueError: the UID is not one.
        :raises OSError: it cannot be kept.
        """
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Force instances and their names to the disk."""
        ...

    def path(self, name: str) -> str:
        """Return the path of an instance, for reading."""
        ...

    def discard(self, name: str) -> None:
        """Remove an instance, if it is there."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all instances."""
        ...

    def clean(self) -> int:
        """Remove what an earlier process left half done; return how many files."""
        ...


class FolderFiles:
    """Instances in a folder: ``instances/ab/cd/<UID>-<random>.dcm``, staged in ``incoming/``.

    :param folder: where; made if it is not there.
    :raises OSError: it cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._instances = Path(folder) / "instances"
        self._incoming = Path(folder) / "incoming"
        self._instances.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        self._made: set[str] = set()

    def stage(self) -> str:
        return str(self._incoming / f"{secrets.token_hex(8)}.dcm")

    def keep(self, staged: str, sop_instance_uid: str) -> str:
        if not safe_uid(sop_instance_uid):
            raise ValueError("not a UID")
        digest = hashlib.blake2b(sop_instance_uid.encode("ascii"), digest_size=2).hexdigest()
        folder = f"{digest[:2]}/{digest[2:]}"
        if folder not in self._made:
            (self._instances / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        name = f"{folder}/{sop_instance_uid}-{secrets.token_hex(4)}.dcm"
        os.rename(staged, self._instances / name)
        return name

    def sync(self, names: Iterable[str]) -> None:
        folders: dict[Path, None] = {}
        for name in names:
            path = self._instances / name
            _fsync(path, os.O_RDONLY)
            folders[path.parent] = None
            folders[path.parent.parent] = None
        for folder in folders:
            _fsync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        _fsync(self._instances, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))

    def path(self, name: str) -> str:
        return str(self._instances / name)

    def discard(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._instances / name)

    def names(self) -> Iterator[str]:
        for first in sorted(self._instances.iterdir()):
            if not first.is_dir():
                continue
            for second in sorted(first.iterdir()):
                if not second.is_dir():
                    continue
                for path in sorted(second.iterdir()):
                    if path.suffix == ".dcm" and not is_temporary(path.name):
                        yield f"{first.name}/{second.name}/{path.name}"

    def clean(self) -> int:
        count = 0
        for path in self._incoming.iterdir():
            if path.suffix == ".dcm" or is_temporary(path.name):
                path.unlink(missing_ok=True)
                count += 1
        return count


def _fsync(path: Path, flags: int) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
