"""Clean-up that may await although its task is cancelled."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from anyio import CancelScope, current_time

__all__ = ["cleanup"]


class cleanup(AbstractAsyncContextManager[None]):  # noqa: N801 - used as a function
    """Open a shielded, bounded scope: ``async with asyncdicom.cleanup(seconds=1): ...`` in a ``finally``.

    In anyio and trio an ``await`` in the ``finally`` of a cancelled handler is cancelled again, unless it is shielded.

    :param seconds: how long the clean-up may take; what takes longer is cancelled.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._scope: CancelScope | None = None

    async def __aenter__(self) -> None:
        self._scope = CancelScope(shield=True, deadline=current_time() + self._seconds)
        self._scope.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._scope is not None
        return bool(self._scope.__exit__(kind, exc, traceback))
