"""dciodvfy (dicom3tools) finds no error in a phantom."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from dicomnode.testing.phantoms import TRANSFER_SYNTAXES, part10_bytes, phantom_dataset
from tests.conftest import require_program

# dciodvfy does not inflate
SYNTAXES = [syntax for syntax in TRANSFER_SYNTAXES if syntax != DeflatedExplicitVRLittleEndian]


def errors(path: Path) -> list[str]:
    command = [require_program("dciodvfy"), "-new", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith(("Error", "Abort"))]


@pytest.mark.parametrize("sop_class", ["CR", "DX", "SC"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_grey_phantom_is_a_valid_instance(tmp_path: Path, sop_class, photometric, syntax):
    ds = phantom_dataset(
        3,
        True,
        sop_class=sop_class,
        photometric_interpretation=photometric,
        transfer_syntax=syntax,
        bits_stored=8 if syntax == JPEGBaseline8Bit else 12,
        rows=96,
        columns=80,
    )
    path = tmp_path / "phantom.dcm"
    path.write_bytes(part10_bytes(ds))
    assert errors(path) == []


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_a_colour_phantom_is_a_valid_secondary_capture(tmp_path: Path, photometric):
    ds = phantom_dataset(
        3, True, sop_class="SC", photometric_interpretation=photometric, rows=96, columns=80
    )
    path = tmp_path / "phantom.dcm"
    path.write_bytes(part10_bytes(ds))
    assert errors(path) == []


def test_the_checker_would_notice_a_missing_attribute(tmp_path: Path):
    ds = phantom_dataset(3, True, rows=96, columns=80)
    del ds.PixelIntensityRelationshipSign
    path = tmp_path / "phantom.dcm"
    path.write_bytes(part10_bytes(ds))
    assert any("PixelIntensityRelationshipSign" in line for line in errors(path))
