"""Find the DICOM files among what the command line names, and what it takes to send them.

Only heads are read, in a worker thread, for a tenth of a second at a time: between two of those an interruption is seen.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from anyio import to_thread

from .. import PresentationContext, sop
from ..dataset import FileHead, is_temporary, read_file_head
from ..exceptions import DataSetError
from .outcome import CommandError, Exit
from .screen import Bar

__all__ = ["MOST_CONTEXTS", "Found", "Scan", "group"]

#: An association has at most so many presentation contexts (PS3.8 9.3.2.2).
MOST_CONTEXTS = 128

#: Seconds of scanning in one hop to a worker thread.
_SLICE = 0.1

_NATIVE = (str(sop.EXPLICIT_VR_LITTLE_ENDIAN), str(sop.IMPLICIT_VR_LITTLE_ENDIAN))


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be sent.

    :ivar size: bytes of its data set.
    """

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int


@dataclass(slots=True)
class Scan:
    """What was found.

    :ivar files: the instances, in the order of the paths, those of a folder by name.
    :ivar skipped: files inside of folders that hold no instance.
    :ivar unreadable: files and folders inside of folders that cannot be read, and why.
    """

    files: list[Found] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    async def run(self, paths: Iterable[str], bar: Bar) -> None:
        """Look at all paths.

        :raises CommandError: one that was named itself does not exist, cannot be read or holds no instance.
        """
        steps = self._steps(paths)

        def go_on() -> bool:
            until = time.monotonic() + _SLICE
            return any(time.monotonic() > until for _ in steps)

        while await to_thread.run_sync(go_on):
            bar.update(len(self.files))

    def _steps(self, paths: Iterable[str]) -> Iterator[None]:
        """Look at one file after the other."""
        for path in paths:
            try:
                mode = os.stat(path).st_mode
                if stat.S_ISDIR(mode):
                    os.scandir(path).close()
            except OSError as exc:
                raise CommandError(f"{path}: {_reason(exc)}", Exit.USAGE) from exc
            if stat.S_ISDIR(mode):
                yield from self._folder(path)
            elif not stat.S_ISREG(mode):
                raise CommandError(f"{path}: neither a file nor a folder", Exit.USAGE)
            else:
                self._named(path)
                yield

    def _named(self, path: str) -> None:
        try:
            head = read_file_head(path)
        except DataSetError as exc:
            raise CommandError(f"{path}: not a DICOM file", Exit.USAGE) from exc
        except OSError as exc:
            raise CommandError(f"{path}: {_reason(exc)}", Exit.USAGE) from exc
        why_not = _not_storable(head)
        if why_not:
            raise CommandError(f"{path}: {why_not}", Exit.USAGE)
        self._add(path, head)

    def _folder(self, root: str) -> Iterator[None]:
        """Look at what is in a folder, and below; links are followed, but no folder is looked at twice."""
        stack: list[Iterator[str]] = []
        seen: set[tuple[int, int]] = set()

        def enter(folder: str) -> None:
            try:
                status = os.stat(folder)
                identity = status.st_dev, status.st_ino
                if identity not in seen:
                    seen.add(identity)
                    stack.append(iter([os.path.join(folder, name) for name in sorted(os.listdir(folder))]))
            except OSError as exc:
                self.unreadable.append((folder, _reason(exc)))

        enter(root)
        while stack:
            path = next(stack[-1], None)
            if path is None:
                stack.pop()
                continue
            try:
                mode = os.stat(path).st_mode
            except FileNotFoundError:
                self.skipped.append(path)  # a link to nothing, or gone since
                continue
            except OSError as exc:
                self.unreadable.append((path, _reason(exc)))
                continue
            if stat.S_ISDIR(mode):
                enter(path)
            elif stat.S_ISREG(mode) and not is_temporary(os.path.basename(path)):
                self._inside(path)
            yield

    def _inside(self, path: str) -> None:
        try:
            head = read_file_head(path)
        except DataSetError:
            self.skipped.append(path)
        except OSError as exc:
            self.unreadable.append((path, _reason(exc)))
        else:
            if _not_storable(head):
                self.skipped.append(path)
            else:
                self._add(path, head)

    def _add(self, path: str, head: FileHead) -> None:
        uids = head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid
        self.files.append(Found(path, *uids, head.data_set_size))


def _not_storable(head: FileHead) -> str | None:
    """Return why an instance cannot be sent by C-STORE, or ``None``."""
    if not head.sop_class_uid or not head.sop_instance_uid:
        return "no instance: a SOP Class or SOP Instance UID is missing"
    if head.sop_class_uid == sop.MEDIA_STORAGE_DIRECTORY_STORAGE:
        return "a DICOMDIR is no instance to send"
    known = sop.lookup(head.sop_class_uid)
    if known.keyword and not known.is_storage:
        return f"{known.name} is no storage SOP class"
    return None


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()


def group(files: Sequence[Found]) -> list[tuple[list[PresentationContext], list[Found]]]:
    """Return the presentation contexts that files need, with the files, in parts that fit an association.

    Each (SOP class, transfer syntax) pair is a context of its own, for with several in one the peer would choose. Where
    one of them is native, the other native syntaxes are proposed as well: the instance can be converted, and Implicit VR
    Little Endian has to be offered (PS3.5 10.1).
    """
    by_class: dict[str, dict[str, list[Found]]] = {}
    for file in files:
        by_class.setdefault(file.sop_class_uid, {}).setdefault(file.transfer_syntax_uid, []).append(file)
    parts: list[tuple[list[PresentationContext], set[tuple[str, str]]]] = []
    for uid, syntaxes in by_class.items():
        for chunk in _chunks(list(syntaxes)):
            contexts = [PresentationContext(abstract_syntax=uid, transfer_syntaxes=one) for one in _proposals(chunk)]
            if not parts or len(parts[-1][0]) + len(contexts) > MOST_CONTEXTS:
                parts.append(([], set()))
            parts[-1][0].extend(contexts)
            parts[-1][1].update((uid, syntax) for syntax in chunk)
    grouped = []
    for contexts, pairs in parts:
        mine = [file for file in files if (file.sop_class_uid, file.transfer_syntax_uid) in pairs]
        grouped.append((contexts, mine))
    return grouped


def _proposals(syntaxes: Sequence[str]) -> list[tuple[str, ...]]:
    proposals: list[tuple[str, ...]] = [(syntax,) for syntax in syntaxes]
    if any(sop.transfer_syntax(syntax).is_native for syntax in syntaxes):
        others = tuple(syntax for syntax in _NATIVE if syntax not in syntaxes)
        if others:
            proposals.append(others)
    return proposals


def _chunks(syntaxes: list[str]) -> Iterator[list[str]]:
    most = MOST_CONTEXTS - 1
    for start in range(0, len(syntaxes), most):
        yield syntaxes[start : start + most]
