"""An index of as many instances as are wanted, without their files: ``python -m benchmarks.index fill OPTIONS``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import material
from .worker import main, say

__all__ = ["patient_name", "series_uid", "study_uid"]

_BATCH = 2000
#: Instances of a series, and of a study.
_SERIES = 100
_STUDY = 500


def study_uid(number: int) -> str:
    """Return the Study Instance UID of a number."""
    return f"2.25.48701{number:015d}"


def series_uid(number: int) -> str:
    """Return the Series Instance UID of a number; five follow each other in a study."""
    return f"2.25.48702{number:015d}"


def patient_name(number: int) -> str:
    """Return the name of the patient whose study has this number."""
    return f"P{number:07d}^M"


def _fill(options: dict[str, Any]) -> None:
    """Add instances to the index of an archive's folder."""
    from asyncdicom.archive.entities import NewInstance, read_attributes
    from asyncdicom.archive.index import Index

    template = material.encoded_header()
    url = f"sqlite:///{Path(options['folder']).absolute() / 'index.sqlite'}"
    with Index(url) as index:
        new = []
        for number in range(options["count"]):
            study = number // _STUDY
            data = (
                template.replace(material.uid(0).encode(), material.uid(number).encode())
                .replace(material.STUDY.encode(), study_uid(study).encode())
                .replace(material.SERIES.encode(), series_uid(number // _SERIES).encode())
                .replace(b"Bench^Mark", patient_name(study).encode())
                .replace(b"BENCHMARK ", f"{study:010d}".encode())
            )
            new.append(
                NewInstance(
                    attributes=read_attributes(data, material.EXPLICIT),
                    transfer_syntax_uid=material.EXPLICIT,
                    path=f"{number}.dcm",
                    size=len(data),
                )
            )
            if len(new) == _BATCH:
                index.add(new)
                new = []
        if new:
            index.add(new)
    say(event="filled")


if __name__ == "__main__":
    main({"fill": _fill})
