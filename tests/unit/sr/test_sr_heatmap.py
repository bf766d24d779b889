"""The picture beside the report."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.errors import ModelCardMissing, ReportUnbuildable
from dicomnode.sr import build_heatmap, heatmap_pixels, heatmap_png, to_bytes
from dicomnode.sr.colours import ramp
from dicomnode.sr.drawing import _layout
from tests.unit.sr.examples import card, evaluated, header, heatmap_content


def test_the_heatmap_is_a_derived_secondary_capture_of_the_same_study():
    ds = dcmread(BytesIO(to_bytes(build_heatmap(heatmap_content()))))
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert ds.StudyInstanceUID == header().StudyInstanceUID
    assert ds.SeriesInstanceUID == "2.25.2002"
    assert ds.PatientID == "PID-0042"
    assert ds.ImageType == ["DERIVED", "SECONDARY"]
    assert ds.BurnedInAnnotation == "YES"
    assert ds.SeriesDescription == "AI result - investigational, not for diagnostic use"
    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("dicomnode", "covid19")
    assert ds.DeviceUID == card().device_uid
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == header().SOPInstanceUID
    assert ds.ContributingEquipmentSequence[0].DeviceUID == card().device_uid
    assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)


def test_the_same_content_gives_the_same_bytes():
    once, again = (to_bytes(build_heatmap(heatmap_content())) for _ in range(2))
    assert once == again


def test_no_patient_data_is_burnt_in():
    other = header(PatientName="Somebody^Else", PatientID="OTHER", AccessionNumber="A2")
    mine, theirs = heatmap_pixels(heatmap_content()), heatmap_pixels(heatmap_content(other))
    assert np.array_equal(mine, theirs)


def test_what_is_burnt_in_follows_the_outcome():
    present = heatmap_pixels(heatmap_content())
    absent = heatmap_pixels(heatmap_content(outcome=evaluated(0.04)))
    other = heatmap_pixels(heatmap_content(outcome=evaluated(version=2), card=card(2)))
    assert not np.array_equal(present, absent)
    assert not np.array_equal(present, other)


@pytest.mark.parametrize(
    "shape", [(1024, 800), (640, 1024), (440, 440), (1024, 30), (30, 1024), (1, 1)]
)
def test_image_scale_and_words_never_overlap(shape):
    grey = np.zeros(shape, dtype=np.uint8)
    pixels = heatmap_pixels(heatmap_content(display=grey))
    zoom = 896 / max(shape)
    layout = _layout(max(1, round(shape[1] * zoom)), max(1, round(shape[0] * zoom)))
    left, top, width, height = layout.image
    scale_left, scale_top, scale_width, scale_height = layout.scale
    assert pixels.shape == (layout.height, layout.width, 3)
    assert layout.banner <= top
    assert layout.margin <= left
    assert left + width < scale_left
    assert scale_left + scale_width + 50 <= layout.width
    assert max(top + height, scale_top + scale_height) <= layout.words_top


def test_the_longest_names_are_drawn_within_the_canvas():
    long = card(model_name="n" * 64, finding={"value": "1", "scheme_designator": "SCT",
                                              "meaning": "W" * 64})  # fmt: skip
    pixels = heatmap_pixels(heatmap_content(card=long))
    assert (pixels[-138:, -18:] == (24, 28, 34)).all()


def test_where_nothing_is_active_the_image_keeps_its_greys():
    display = np.full((90, 70), 100, dtype=np.uint8)
    pixels = heatmap_pixels(heatmap_content(display=display, cam=np.zeros((7, 7), np.float32)))
    left, top, width, height = _layout(697, 896).image
    assert (pixels[top : top + height, left : left + width] == 100).all()


def test_the_ramp_grows_lighter_in_even_steps():
    linear = (ramp() / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= 0).all()
    assert luminance[0] < 0.03
    assert luminance[-1] > 0.8


def test_the_png_holds_the_same_picture():
    with Image.open(BytesIO(heatmap_png(heatmap_content()))) as image:
        assert np.array_equal(np.asarray(image), heatmap_pixels(heatmap_content()))


def test_loss_once_is_loss_for_ever():
    assert build_heatmap(heatmap_content()).LossyImageCompression == "00"
    lossy = header(LossyImageCompression="01")
    assert build_heatmap(heatmap_content(lossy)).LossyImageCompression == "01"


def test_the_order_is_carried_only_with_its_id():
    request = Dataset()
    request.RequestedProcedureID = "RP-1"
    ds = build_heatmap(heatmap_content(header(RequestAttributesSequence=[request])))
    assert ds.RequestAttributesSequence[0].RequestedProcedureID == "RP-1"
    del request.RequestedProcedureID
    request.RequestedProcedureDescription = "Chest"
    ds = build_heatmap(heatmap_content(header(RequestAttributesSequence=[request])))
    assert "RequestAttributesSequence" not in ds


def test_pictures_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="finite"):
        heatmap_content(cam=np.full((7, 7), np.nan, np.float32))
    with pytest.raises(ValueError, match="finite"):
        heatmap_content(cam=np.zeros((7, 7, 1), np.float32))
    with pytest.raises(ValueError, match="without a cam"):
        heatmap_content(outcome=replace(evaluated(), cam=None))
    with pytest.raises(ValueError, match="uint8"):
        heatmap_content(display=np.zeros((9, 9), np.uint16))
    with pytest.raises(ModelCardMissing):
        heatmap_content(card=card(2))
    with pytest.raises(ReportUnbuildable, match="PatientID"):
        build_heatmap(heatmap_content(header(PatientID="x\\y")))


def test_several_images_of_a_study_share_one_heatmap_with_a_panel_each() -> None:
    one = heatmap_content()
    another = heatmap_content(
        header(SOPInstanceUID="1.2.3.99"), display=np.zeros((300, 200), np.uint8)
    )
    ds = build_heatmap(one, another)
    sources = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert sources == [str(one.header.SOPInstanceUID), "1.2.3.99"]
    first, second = heatmap_pixels(one), heatmap_pixels(another)
    both = heatmap_pixels(one, another)
    assert np.array_equal(both[: first.shape[0], : first.shape[1]], first)
    assert np.array_equal(both[: second.shape[0], -second.shape[1] :], second) or (
        both.shape[1] > first.shape[1] + second.shape[1]
    )


def test_of_very_many_images_those_with_the_highest_probabilities_are_shown() -> None:
    panels = [
        heatmap_content(header(SOPInstanceUID=f"1.2.3.{number}"), outcome=evaluated(number / 20))
        for number in range(1, 13)
    ]
    ds = build_heatmap(*panels)
    sources = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert sources == [f"1.2.3.{number}" for number in range(4, 13)]
    assert ds.DerivationDescription.startswith("9 of 12 images")


def test_images_of_different_patients_never_share_a_heatmap() -> None:
    stranger = heatmap_content(header(SOPInstanceUID="1.2.3.99", PatientID="SOMEBODY-ELSE"))
    with pytest.raises(ReportUnbuildable):
        build_heatmap(heatmap_content(), stranger)
