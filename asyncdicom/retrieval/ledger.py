"""What has come of a retrieval so far, over all its requests."""

from __future__ import annotations

from collections.abc import Iterable

from ..dataset import safe_uid
from ..exceptions import DataSetError
from ..responses import Progress, Response
from ..status import OUT_OF_RESOURCES_SUBOPERATIONS
from .query import Part

__all__ = ["Ledger"]


class Ledger:
    """The book of one retrieval.

    :ivar received: instances that were delivered.
    :ivar delivered: their SOP Instance UIDs.
    :ivar missing: UIDs of instances that did not come, as far as they are known.
    :ivar unnamed: how many more did not come.
    :ivar responses: the final responses, in their order.
    """

    def __init__(self) -> None:
        self.received = 0
        self.delivered: set[str] = set()
        self.missing: dict[str, None] = {}
        self.unnamed = 0
        self.responses: list[Response] = []
        self._completed = 0
        self._failed = 0
        self._warning = 0
        self._ahead = 0  # instances that are named in requests which have not begun
        self._seen = Progress()  # the counters of the request in progress
        self._has_counters = False

    @property
    def progress(self) -> Progress:
        """The counters of all requests together; ``None`` where nothing is known."""
        if not self._has_counters:
            return Progress()
        seen = self._seen
        return Progress(
            None if seen.remaining is None else seen.remaining + self._ahead,
            self._completed + (seen.completed or 0),
            self._failed + (seen.failed or 0),
            self._warning + (seen.warning or 0),
        )

    def plan(self, parts: Iterable[Part], *, again: int = 0) -> None:
        """Note what is going to be asked for.

        :param again: how many of the instances that did not come are asked for again.
        """
        self._ahead = sum(len(part.uids) for part in parts)
        self._failed -= min(again, self._failed)
        self.unnamed = 0

    def compare(self, uids: Iterable[str]) -> None:
        """Note which of all instances that there are did not come."""
        absent = [uid for uid in uids if uid not in self.delivered and uid not in self.missing]
        self.missing.update(dict.fromkeys(absent))
        self.unnamed -= min(len(absent), self.unnamed)

    def begin(self, part: Part) -> None:
        """Note that a request is sent."""
        self._ahead -= len(part.uids)
        self._seen = Progress(len(part.uids) or None)

    def deliver(self, uid: str) -> None:
        """Note that an instance is delivered."""
        self.received += 1
        self.delivered.add(uid)
        self.missing.pop(uid, None)

    def pending(self, progress: Progress) -> None:
        """Note the counters of a response."""
        self._has_counters = True
        seen = self._seen
        self._seen = Progress(
            *(
                old if new is None else new
                for old, new in zip(
                    (seen.remaining, seen.completed, seen.failed, seen.warning),
                    (progress.remaining, progress.completed, progress.failed, progress.warning),
                    strict=True,
                )
            )
        )

    def finish(self, response: Response, part: Part) -> bool:
        """Note a final response; tell whether it says what did not come, or that all did.

        Otherwise it is a failure of the request, which other presentation contexts would not mend.
        """
        self.responses.append(response)
        self.pending(response.progress)
        seen = self._seen
        failed = seen.failed or 0
        self._completed += seen.completed or 0
        self._failed += failed
        self._warning += seen.warning or 0
        self._seen = Progress(0)
        status = response.status
        if status.is_success:
            return True
        named = _failed_uids(response)
        partly = bool(named or failed or status.is_warning or status == OUT_OF_RESOURCES_SUBOPERATIONS)
        if partly and not named and part.uids:
            named = [uid for uid in part.uids if uid not in self.delivered]
        elif failed > len(named):
            self.unnamed += failed - len(named)
        self.missing.update((uid, None) for uid in named if uid not in self.delivered)
        return partly

    def note(self, response: Response | None) -> None:
        """Note the final response of a request that was left early."""
        if response is not None:
            self.responses.append(response)
            self.pending(response.progress)


def _failed_uids(response: Response) -> list[str]:
    """Return the Failed SOP Instance UID List (0008,0058), as far as it can be read."""
    try:
        return [uid for uid in response.failed_sop_instance_uids if safe_uid(uid)]
    except DataSetError:
        return []
