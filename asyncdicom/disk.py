"""Where file IO happens: at once in the event loop if that is sure to be short, else in a worker thread.

Theory of operation
-------------------
Reading a small instance from the page cache takes 10 µs and writing one 30 to 50 µs; a hop to a worker thread and back
takes 60 to 150 µs, and wakes a processor twice. nginx does its file IO in its event loop for that reason. But a disk can
make its caller wait, and then every association would. So a call is made at once only where nothing known speaks against:

- The folder is on a local file system (Linux; see ``_LOCAL``). One over the network or in user space can hang for ever.
- A read asks the kernel not to wait for the disk (``RWF_NOWAIT``); what is not in the page cache is read in a thread. A file
  system in memory has no disk and refuses the question, so it is not asked (:func:`in_memory`).
- A call moves at most :data:`AT_ONCE` bytes, asks for no ``fsync``, and follows no symbolic link out of the folder.
- The calls on this device have been short. One that was not (``_SHORT``) sends what follows to the threads, for half a second;
  if it happens again soon after, for twice as long each time, up to a minute.

What is known of a folder is learnt in a thread, at the first call that concerns it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from . import threads

__all__ = ["AT_ONCE", "Device", "folder_of", "forget", "in_memory", "quick", "run"]

T = TypeVar("T")

#: Bytes that one call in the event loop moves at most: what one send or receive of a socket does, and a rest that is not
#: worth a call of its own.
AT_ONCE = 384 << 10

#: Seconds that a call may take to be called short.
_SHORT = 0.02

#: Seconds for which a slow device is left to the threads: first, and at most.
_FIRST_PAUSE = 0.5
_LAST_PAUSE = 60.0

#: File systems that wait for nothing but memory, and those that wait for nothing but that and a local disk, by their names
#: in ``/proc/self/mountinfo``.
_MEMORY = frozenset({"tmpfs", "ramfs"})
_LOCAL = _MEMORY | {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay"}

#: Folders that are remembered at most.
_FOLDERS = 4096


class Device:
    """What is known of the device that folders are on.

    :ivar local: whether it is of a kind that may be used in the event loop at all.
    :ivar memory: whether it is no disk, but memory.
    """

    __slots__ = ("_pause", "_until", "local", "memory")

    def __init__(self, *, local: bool, memory: bool = False) -> None:
        self.local = local
        self.memory = memory
        self._until = 0.0  # no call at once before then
        self._pause = _FIRST_PAUSE

    def quick(self, now: float) -> bool:
        """Tell whether the next call may be made at once."""
        return self.local and now >= self._until

    def took(self, begun: float, now: float) -> None:
        """Learn how long a call took."""
        if now - begun > _SHORT:
            # Slow again soon after it was tried again: leave it alone for longer.
            again = begun - self._until < self._pause
            self._pause = min(self._pause * 2, _LAST_PAUSE) if again and self._until else _FIRST_PAUSE
            self._until = now + self._pause


_UNKNOWN = Device(local=False)

_devices: dict[int, Device] = {}
_folders: dict[str, Device] = {}


def _learn(folder: str) -> None:
    """Find out on what device a folder is; may block."""
    device = _UNKNOWN
    try:
        number = os.stat(folder or ".").st_dev
        known = _devices.get(number)
        device = known if known is not None else _device(number)
        _devices[number] = device
    except OSError:
        pass  # the call itself will say what is wrong
    if len(_folders) >= _FOLDERS:
        _folders.clear()
    if device is not _UNKNOWN:
        _folders[folder] = device


def _device(number: int) -> Device:
    kind = _kind(number)
    return Device(local=kind in _LOCAL, memory=kind in _MEMORY)


def _kind(number: int) -> str | None:
    """Look a device up in the table of mounted file systems (proc(5): the third field, and the first behind the dash)."""
    if not sys.platform.startswith("linux"):
        return None
    wanted = f"{os.major(number)}:{os.minor(number)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            fields = line.split()
            if fields[2] == wanted and "-" in fields:
                return fields[fields.index("-") + 1]
    return None


def _learning(call: Callable[[], T], folder: str) -> T:
    _learn(folder)
    return call()


def forget() -> None:
    """Forget what is known of folders and devices."""
    _folders.clear()
    _devices.clear()


def folder_of(path: str | os.PathLike[str]) -> str:
    """Return the folder of a file as it is named to :func:`run`, and as the name of another file can be put behind it."""
    path = os.fspath(path)
    begin = path.rfind("/") + 1 if os.sep == "/" else len(path) - len(os.path.basename(path))
    return path[:begin]


def in_memory(number: int) -> bool:
    """Tell whether the device of this number (``st_dev``) is known to be memory, so that nothing waits for a disk."""
    device = _devices.get(number)
    return device is not None and device.memory


def quick(folder: str) -> bool:
    """Tell whether the next call in a folder may be made at once."""
    device = _folders.get(folder)
    return device is not None and device.quick(perf_counter())


async def run(
    folder: str, at_once: Callable[[], T] | None, call: Callable[[], T], dispose: Callable[[T], None] | None = None
) -> T:
    """Do something with a file, at once or in a worker thread, and return the result.

    :param folder: where the file is, see :func:`folder_of`.
    :param at_once: does it without waiting for a disk, or raises :class:`BlockingIOError` having done nothing; ``None`` if
        it cannot be done so.
    :param call: does it, however long it takes.
    :param dispose: see :func:`asyncdicom.threads.run`, as for what cancelling does.
    """
    device = _folders.get(folder)
    if device is None:
        return await threads.run(lambda: _learning(call, folder), dispose)
    if at_once is not None and device.quick(begun := perf_counter()):
        try:
            return at_once()
        except BlockingIOError:
            pass
        finally:
            device.took(begun, perf_counter())
    return await threads.run(call, dispose)
