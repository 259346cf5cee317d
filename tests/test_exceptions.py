"""Exceptions: what they are, and that they survive being copied and sent to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

import asyncdicom

ONE_OF_EACH: list[asyncdicom.DicomNetworkError] = [
    asyncdicom.LocalProtocolError("no"),
    asyncdicom.RemoteProtocolError("the association was aborted", 6),
    asyncdicom.AssociationRejected(1, 1, 7),
    asyncdicom.AssociationAborted(2, 6),
    asyncdicom.AssociationAborted(0, 0, "the association was aborted: a data set broke off"),
    asyncdicom.AssociationClosed("the association was released"),
    asyncdicom.NoPresentationContext("1.2.840.10008.1.1", "Verification was not proposed"),
    asyncdicom.ConcurrencyError("another operation is in progress"),
    asyncdicom.ConnectError("cannot connect to host:104: connection refused"),
    asyncdicom.OperationTimeout("response", 60),
    asyncdicom.DataSetError("a data set cannot be decoded"),
    asyncdicom.StatusError(0xA700, "disk full"),
]


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (asyncdicom.ConnectError, OSError),
        (asyncdicom.OperationTimeout, TimeoutError),
        (asyncdicom.DataSetError, ValueError),
        (asyncdicom.LocalProtocolError, asyncdicom.ProtocolError),
        (asyncdicom.RemoteProtocolError, asyncdicom.ProtocolError),
        (asyncdicom.NoPresentationContext, asyncdicom.AssociationError),
    ],
)
def test_an_error_is_also_what_python_calls_it(kind: type[Exception], other: type[Exception]) -> None:
    assert issubclass(kind, other)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda exc: pickle.loads(pickle.dumps(exc))])
@pytest.mark.parametrize("exc", ONE_OF_EACH, ids=lambda exc: type(exc).__name__)
def test_an_error_survives_being_copied_and_pickled(
    exc: asyncdicom.DicomNetworkError, again: Callable[[asyncdicom.DicomNetworkError], asyncdicom.DicomNetworkError]
) -> None:
    exc.add_note("seen by a worker")
    copied = again(exc)
    assert (type(copied), str(copied), vars(copied)) == (type(exc), str(exc), vars(exc))
