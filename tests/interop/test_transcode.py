"""DCMTK's dcmconv and our conversion make the same of a file; dcmdump reads what we made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from asyncdicom.dataset import convert, decode_data_set, part10_head, without_bulk_data

from ..test_elements import BIG, EXPLICIT, IMPLICIT, data_set_of
from ..test_transcode import native_files, same

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("dcmconv") or not shutil.which("dcmdump"), reason="needs DCMTK"),
]

OPTIONS: dict[str, str] = {IMPLICIT: "+ti", EXPLICIT: "+te", BIG: "+tb"}

#: dcmconv does not know that these private elements of undefined VR are sequences.
PRIVATE_SEQUENCES = {"nested_priv_SQ.dcm", "meta_missing_tsyntax.dcm"}


@pytest.mark.parametrize("target", OPTIONS)
def test_dcmconv_makes_the_same_of_every_file(tmp_path: Path, test_files: Path, target: str) -> None:
    compared = 0
    for path, data, transfer_syntax in native_files(test_files):
        if transfer_syntax == target:
            continue  # there is nothing to be done
        theirs = tmp_path / "theirs"
        done = subprocess.run(["dcmconv", OPTIONS[target], path, theirs], capture_output=True, check=False)
        if done.returncode or path.name in PRIVATE_SEQUENCES:
            continue
        expected = decode_data_set(*data_set_of(theirs))
        ours = decode_data_set(b"".join(convert(data, transfer_syntax, target)), target)
        same(expected, ours, swapped=False, where=f"{path.name} to {target}")
        compared += 1
    assert compared > (10 if target == EXPLICIT else 40)


@pytest.mark.parametrize("target", OPTIONS)
def test_dcmdump_reads_every_file_that_was_converted(tmp_path: Path, test_files: Path, target: str) -> None:
    paths: list[Path] = []
    for _, data, transfer_syntax in native_files(test_files):
        for chunks, syntax in (
            (convert(data, transfer_syntax, target), target),
            (without_bulk_data(data, transfer_syntax), transfer_syntax),
        ):
            paths.append(tmp_path / f"{len(paths)}.dcm")
            paths[-1].write_bytes(part10_head("1.2", "1.3", syntax) + b"".join(chunks))
    assert len(paths) > 120
    done = subprocess.run(["dcmdump", "-q", *paths], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
