"""pydicom's remarks are dropped in our functions, and nowhere else."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

from asyncdicom._quiet import quiet


def test_warnings_are_dropped_inside_and_raised_outside() -> None:
    with quiet():
        warnings.warn("odd value", stacklevel=1)
        with quiet():
            warnings.warn("odd value", stacklevel=1)
        warnings.warn("odd value", stacklevel=1)
    with pytest.raises(UserWarning, match="odd value"):
        warnings.warn("odd value", stacklevel=1)


def test_a_filter_that_somebody_put_in_front_does_not_win() -> None:
    with quiet():
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = len(warnings.filters)
        for _ in range(3):
            with quiet():
                warnings.warn("odd value", stacklevel=1)
        assert len(warnings.filters) <= before + 1


def test_another_thread_is_not_silenced() -> None:
    caught: list[Warning] = []

    def other() -> None:
        try:
            warnings.warn("odd value", stacklevel=1)
        except UserWarning as warning:
            caught.append(warning)

    with quiet():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_the_logger_of_pydicom_is_silent_inside_only(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    with quiet():
        logger.warning("inside")
    logger.warning("outside")
    assert [record.message for record in caplog.records] == ["outside"]


def test_an_error_inside_ends_the_silence() -> None:
    with pytest.raises(KeyError), quiet():
        raise KeyError
    with pytest.raises(UserWarning):
        warnings.warn("odd value", stacklevel=1)
