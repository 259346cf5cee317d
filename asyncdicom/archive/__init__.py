"""The embedded Query/Retrieve archive (needs the ``archive`` extra)."""

from __future__ import annotations

from .files import Files, FolderFiles, Sync
from .provider import Archive
from .rebuild import Rebuilt

__all__ = ["Archive", "Files", "FolderFiles", "Rebuilt", "Sync"]
