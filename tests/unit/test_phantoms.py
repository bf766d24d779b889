"""Phantoms: seeded, plausible, encodable in every transfer syntax."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGBaseline8Bit

from dicomnode.imaging import gate, pixels, reading
from dicomnode.testing.phantoms import (
    TRANSFER_SYNTAXES,
    chest_phantom,
    draw_phantom,
    part10_bytes,
    phantom_dataset,
    phantom_study,
    write_training_folder,
)

SIZE = {"rows": 288, "columns": 256}


def read(ds: pydicom.Dataset) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(part10_bytes(ds)))


def test_the_same_arguments_give_the_same_pixels_and_uids():
    first, second = phantom_dataset(5, True, **SIZE), phantom_dataset(5, True, **SIZE)
    assert part10_bytes(first) == part10_bytes(second)


def test_another_seed_is_another_patient():
    first, second = phantom_dataset(5, True, **SIZE), phantom_dataset(6, True, **SIZE)
    assert first.PatientID != second.PatientID
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.PixelData != second.PixelData


@pytest.mark.parametrize("shape", [(64, 64), (300, 240), (640, 512)])
def test_an_image_has_the_asked_shape_and_stays_in_0_to_1(shape):
    film = chest_phantom(3, True, *shape)
    assert film.shape == shape
    assert film.dtype == np.float32
    assert film.min() >= 0.0
    assert film.max() <= 1.0


def test_too_small_a_phantom_is_refused():
    with pytest.raises(ValueError, match="at least 32 rows and columns, got 16 x 64"):
        chest_phantom(1, True, 16, 64)


def test_positive_and_negative_twins_differ_only_where_the_opacities_are():
    positive, negative = draw_phantom(8, True, 256, 256), draw_phantom(8, False, 256, 256)
    assert not negative.opacities.any()
    added = positive.opacities > 0.3
    clear = positive.opacities < 1e-3
    difference = positive.attenuation - negative.attenuation
    assert difference[added].mean() > 0.1
    assert abs(difference[clear].mean()) < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_opacities_are_bilateral_and_mostly_in_the_lower_zones(seed):
    opacities = draw_phantom(seed, True, 256, 256).opacities
    assert opacities[:, :128].sum() > 0.1 * opacities.sum()
    assert opacities[:, 128:].sum() > 0.1 * opacities.sum()
    assert opacities[110:].sum() > opacities[:110].sum()


@pytest.mark.parametrize("seed", range(4))
def test_lungs_are_darker_than_heart_and_abdomen(seed):
    film = chest_phantom(seed, False, 200, 200)
    lung, heart, abdomen = film[70:110, 50:70], film[115:135, 105:120], film[165:190, 70:90]
    assert lung.mean() < heart.mean() - 0.2
    assert lung.mean() < abdomen.mean() - 0.2


@pytest.mark.parametrize("sop_class", ["CR", "DX", "SC"])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_decodes_to_the_same_image(syntax, sop_class):
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    options = {**SIZE, "bits_stored": bits, "sop_class": sop_class}
    plain = read(phantom_dataset(2, True, **options)).pixel_array
    ds = read(phantom_dataset(2, True, transfer_syntax=syntax, **options))
    assert ds.file_meta.TransferSyntaxUID == syntax
    difference = np.abs(ds.pixel_array.astype(int) - plain)
    assert difference.max() <= (16 if syntax == JPEGBaseline8Bit else 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_monochrome1_and_monochrome2_twins_look_the_same(bits):
    greys = [
        pixels.grey8(
            phantom_dataset(4, True, photometric_interpretation=name, bits_stored=bits, **SIZE),
            maximum_pixels=10**6,
        )
        for name in ("MONOCHROME1", "MONOCHROME2")
    ]
    assert np.abs(greys[0].astype(int) - greys[1]).max() <= 1


@pytest.mark.parametrize("name", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour_phantoms_read_back_as_the_same_greys(name):
    ds = phantom_dataset(4, True, photometric_interpretation=name, sop_class="SC", **SIZE)
    grey = pixels.grey8(read(ds), maximum_pixels=10**6)
    expected = np.round(chest_phantom(4, True, **SIZE) * 255)
    assert np.abs(grey - expected).max() <= 2


@pytest.mark.parametrize("sop_class", ["CR", "DX"])
@pytest.mark.parametrize("positive", [True, False])
def test_the_gate_takes_phantoms_for_frontal_chest_radiographs(sop_class, positive):
    ds = phantom_dataset(6, positive, sop_class=sop_class, **SIZE)
    ds = reading.read_instance(io.BytesIO(part10_bytes(ds)))
    assert gate.judge_header(ds) is None
    assert gate.judge_pixels(pixels.grey8(ds, maximum_pixels=10**6)) is None


def test_a_phantom_says_that_it_is_one():
    ds = phantom_dataset(7, True, **SIZE)
    assert str(ds.PatientName).startswith("PHANTOM^")
    assert ds.PatientID.startswith("PHANTOM-")
    assert "phantom" in ds.ImageComments


def test_a_study_has_several_films_of_one_patient_in_one_series():
    first, second = phantom_study(3, True, images=2, **SIZE)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert [first.InstanceNumber, second.InstanceNumber] == [1, 2]
    assert first.PixelData != second.PixelData


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits_stored": 7}, "8 to 16 bits, got bits_stored=7"),
        ({"transfer_syntax": JPEGBaseline8Bit}, "pass bits_stored=8"),
        ({"transfer_syntax": "1.2.3"}, "no phantom in transfer syntax 1.2.3"),
    ],
)
def test_what_cannot_be_encoded_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        phantom_dataset(1, True, **SIZE, **options)


@pytest.mark.parametrize(("format", "suffix"), [("png", "png"), ("dicom", "dcm")])
def test_a_training_folder_has_a_folder_per_class_and_a_manifest(tmp_path: Path, format, suffix):
    calls = []
    manifest = write_training_folder(
        tmp_path, 3, 2, 64, format=format, progress=lambda done, due: calls.append((done, due))
    )
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert len({row["patient_id"] for row in rows}) == 6
    assert {row["label"] for row in rows} == {"positive", "negative"}
    assert all((tmp_path / row["filename"]).suffix == f".{suffix}" for row in rows)
    assert all((tmp_path / row["filename"]).is_file() for row in rows)
    assert calls[-1] == (6, 6)


def test_the_manifest_has_the_columns_of_the_real_one(tmp_path: Path, shared_data: Path):
    manifest = write_training_folder(tmp_path, 1, 1, 64)
    real = shared_data / "cxr" / "manifest.csv"
    assert manifest.read_text().splitlines()[0] == real.read_text().splitlines()[0]
