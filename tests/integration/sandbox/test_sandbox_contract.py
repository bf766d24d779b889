"""What every `Preparer` does, with and without a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage, Reason
from dicomnode.imaging.preprocess import PROFILES, prepare
from dicomnode.imaging.reading import read_instance
from dicomnode.ports import Preparer
from dicomnode.sandbox import SandboxPreparer
from dicomnode.sandbox.inprocess import InProcessPreparer

PROFILE = "unit-rgb-224/1"
LIMIT = 1_000_000

Film = Callable[..., Path]


@pytest.fixture(scope="module", params=[SandboxPreparer, InProcessPreparer])
def preparer(request: pytest.FixtureRequest) -> Iterator[Preparer]:
    made: Preparer = request.param(maximum_pixels=LIMIT)
    yield made
    made.close()


def test_an_eligible_image_is_prepared_as_the_profile_says(preparer: Preparer, film: Film) -> None:
    path = film()
    with path.open("rb") as stream:
        expected = prepare(read_instance(stream), PROFILES[PROFILE], maximum_pixels=LIMIT)
    image = preparer.prepare(path, profile=PROFILE)
    assert isinstance(image, PreparedImage)
    assert isinstance(expected, PreparedImage)
    assert np.array_equal(image.tensor, expected.tensor)
    assert np.array_equal(image.display, expected.display)
    assert image.decode_seconds > 0
    assert image.preprocess_seconds > 0


def test_a_refusal_of_the_gate_comes_back_as_it_is(preparer: Preparer, film: Film) -> None:
    path = film()
    ds = dcmread(path)
    ds.BodyPartExamined = "HAND"
    ds.save_as(path)
    assert preparer.prepare(path, profile=PROFILE) == NotEvaluated(
        reason=Reason.BODY_PART, detail="Body Part Examined: HAND; expected the chest."
    )


def test_an_undecodable_image_is_named_with_its_transfer_syntax(
    preparer: Preparer, film: Film
) -> None:
    path = film()
    ds = dcmread(path)
    ds.PixelData = ds.PixelData[:1000]
    ds.save_as(path)
    with pytest.raises(UndecodableImage) as caught:
        preparer.prepare(path, profile=PROFILE)
    assert str(caught.value).startswith(
        f"cannot decode {ds.SOPInstanceUID} (transfer syntax 'Explicit VR Little Endian'): "
        "Pixel Data has 1000 bytes"
    )


def test_an_image_of_more_pixels_than_allowed_is_undecodable(
    preparer: Preparer, film: Film
) -> None:
    with pytest.raises(UndecodableImage, match="exceed 1000000 pixels"):
        preparer.prepare(film(rows=1200, columns=1100), profile=PROFILE)


def test_a_file_that_is_no_instance_is_said_to_be_none(preparer: Preparer, tmp_path: Path) -> None:
    path = tmp_path / "text.dcm"
    path.write_text("no DICOM at all")
    with pytest.raises(NotAnInstance, match="no 'DICM' prefix"):
        preparer.prepare(path, profile=PROFILE)


def test_a_missing_file_will_not_come_back(preparer: Preparer, tmp_path: Path) -> None:
    with pytest.raises(UndecodableImage, match="cannot be opened"):
        preparer.prepare(tmp_path / "gone.dcm", profile=PROFILE)


def test_an_unknown_profile_is_a_mistake_of_the_caller(preparer: Preparer, film: Film) -> None:
    with pytest.raises(ValueError, match="'nope/9' is unknown"):
        preparer.prepare(film(), profile="nope/9")
