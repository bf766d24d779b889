"""The gate and the decoder on real files: each verdict, and the agreement with pydicom."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest

from dicomnode.errors import DicomnodeError, UndecodableImage
from dicomnode.findings import NotEvaluated
from dicomnode.imaging.appearance import MINIMUM_LIKENESS, likeness
from dicomnode.imaging.frames import first_frame
from dicomnode.imaging.limits import describe
from dicomnode.imaging.pixels import grey8
from dicomnode.imaging.preprocess import PROFILES, image_file_grey8, prepare
from dicomnode.imaging.reading import read_instance

MAXIMUM_PIXELS = 100_000_000

VERDICTS = {
    "bits_CT_small.dcm": "sop_class",
    "bits_SignedCT.dcm": "sop_class",
    "bits_emri_small.dcm": "sop_class",
    "bits_liver_1frame.dcm": "sop_class",
    "charset_chrGreek.dcm": "modality",
    "charset_chrX1.dcm": "modality",
    "chest_1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": "eligible",
    "chest_966_fixed.dcm": "eligible",
    # its window lies below every stored value, so any viewer shows it white; without the
    # window its lungs are bright: neither may be judged
    "chest_DX16raw_J2KLossless.dcm": "contrast",
    "chest_Monochrome1-Jpeg.dcm": "eligible",  # by its looks: no element names the chest
    "chest_RG1_J2KI.dcm": "eligible",
    "chest_RG1_JLSN.dcm": "eligible",
    "chest_dx_image.dcm": "species",  # a dog, lateral, though BodyPartExamined is THORAX
    "chest_gdcm-CR-MONO1-10-chest.dcm": "eligible",
    "colour_2022-11-14-RLEPlanarConfiguration.dcm": "modality",
    "colour_SC_rgb_expb_16bit.dcm": "modality",
    "colour_SC_rgb_jpeg_dcmtk.dcm": "modality",
    "colour_SC_rgb_rle_32bit.dcm": "modality",
    "colour_examples_ybr_color.dcm": "sop_class",
    "lut_mlut_18.dcm": "modality",
    "lut_vlut_04.dcm": "modality",
    "other_PR000000.dcm": "sop_class",
    "other_rtplan.dcm": "sop_class",
    "other_waveform_ecg.dcm": "sop_class",
    "palette_OBXXXX1A_rle.dcm": "sop_class",
    "palette_OT-PAL-8-face.dcm": "not_an_instance",
    "palette_examples_palette.dcm": "sop_class",
    "palette_jpeg-ls-Palette.dcm": "sop_class",
    "sr_reportsi.dcm": "sop_class",
    "sr_sr-ellipse.dcm": "sop_class",
    "sr_sr.dcm": "sop_class",
    "sr_sr_document.dcm": "sop_class",
    "sr_structured_report.dcm": "sop_class",
    "sr_test-SR.dcm": "sop_class",
    "ts_.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": "sop_class",
    "ts_1.2.840.10008.1.2.1.99.dcm": "localizer",
    "ts_1.2.840.10008.1.2.1.dcm": "sop_class",
    "ts_1.2.840.10008.1.2.2.dcm": "sop_class",
    "ts_1.2.840.10008.1.2.4.51.dcm": "sop_class",
    "ts_1.2.840.10008.1.2.4.57.dcm": "sop_class",
    "ts_1.2.840.10008.1.2.4.70.dcm": "localizer",  # a CT topogram that looks like a chest film
    "ts_1.2.840.10008.1.2.4.80.dcm": "modality",
    "ts_1.2.840.10008.1.2.5.dcm": "modality",
    "ts_HTJ2KLossless_08_RGB.dcm": "modality",
    "ts_image_dfl.dcm": "modality",
    "ts_will-jxl.dcm": "sop_class",
    "xray_CR000000.dcm": "body_part",
    "xray_Issue56-NoPixelData.dcm": "species",
    "xray_KarstenHilbertRF.dcm": "sop_class",
    "xray_RG2_J2KR.dcm": "body_part",
    "xray_RG3_JPLL.dcm": "body_part",
    "xray_RG3_JPLY.dcm": "body_part",
    "xray_RG3_RLE.dcm": "body_part",
    "xray_XA1_JPLY.dcm": "modality",
    "xray_example-mg.dcm": "modality",
    "xray_jpeg-baseline.dcm": "species",
}

NOT_DECODABLE = {
    "ts_will-jxl.dcm": "no decoder for this transfer syntax",
    "xray_CR000000.dcm": "no (7FE0,0010) Pixel Data",
    "xray_Issue56-NoPixelData.dcm": "no (7FE0,0010) Pixel Data",
}

MENDED = {  # pydicom's decoders refuse these; the scan header is mended first
    "xray_RG3_JPLY.dcm",
    "xray_XA1_JPLY.dcm",
    "ts_1.2.840.10008.1.2.4.51.dcm",
    "ts_.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm",
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    warnings.filterwarnings("ignore", module="pydicom")


def verdict_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            ds = read_instance(stream)
        outcome = prepare(ds, PROFILES["unit-rgb-224/1"], maximum_pixels=MAXIMUM_PIXELS)
    except DicomnodeError as error:
        return error.code
    return outcome.reason.value if isinstance(outcome, NotEvaluated) else "eligible"


def test_every_real_file_gets_the_verdict_that_it_deserves(shared_data: Path) -> None:
    """The table was made by looking at each picture and its header."""
    found = {path.name: verdict_of(path) for path in (shared_data / "dicom").glob("*.dcm")}
    assert found == VERDICTS


def test_stored_values_are_those_that_pydicom_decodes(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        if path.name in MENDED or path.name == "palette_OT-PAL-8-face.dcm":
            continue
        with path.open("rb") as stream:
            ds = read_instance(stream)
        if "Rows" not in ds:
            continue
        if path.name in NOT_DECODABLE:
            with pytest.raises(UndecodableImage) as caught:
                grey8(ds, maximum_pixels=MAXIMUM_PIXELS)
            assert NOT_DECODABLE[path.name] in str(caught.value)
            continue
        frame = first_frame(ds, describe(ds, maximum_pixels=MAXIMUM_PIXELS))
        reference = ds.pixel_array
        if int(ds.get("NumberOfFrames") or 1) > 1:
            reference = reference[0]
        assert np.array_equal(frame.stored(frame.words), reference.astype(np.int64)), path.name
        compared += 1
    assert compared >= 35


def test_extended_jpeg_with_a_wrong_scan_header_decodes_like_its_lossless_twin(
    shared_data: Path,
) -> None:
    lossy, lossless = (
        grey8(
            read_instance((shared_data / "dicom" / name).open("rb")), maximum_pixels=MAXIMUM_PIXELS
        ).astype(int)
        for name in ("xray_RG3_JPLY.dcm", "xray_RG3_JPLL.dcm")
    )
    assert np.abs(lossy - lossless).mean() < 1


def test_two_codecs_of_one_image_give_the_same_grey(shared_data: Path) -> None:
    one, other = (
        grey8(
            read_instance((shared_data / "dicom" / name).open("rb")), maximum_pixels=MAXIMUM_PIXELS
        ).astype(int)
        for name in ("chest_RG1_J2KI.dcm", "chest_RG1_JLSN.dcm")
    )
    assert np.abs(one - other).mean() < 1


def test_the_chest_radiographs_look_like_chests_and_the_rest_does_not(shared_data: Path) -> None:
    """98 % of frontal chest radiographs pass the test of looks, inverted ones do not."""
    with (shared_data / "cxr" / "manifest.csv").open(encoding="utf-8") as stream:
        names = [row["filename"] for row in csv.DictReader(stream)]
    images = [
        image_file_grey8((shared_data / "cxr" / name).read_bytes(), maximum_pixels=MAXIMUM_PIXELS)
        for name in names
    ]
    passed = np.mean([likeness(image) >= MINIMUM_LIKENESS for image in images])
    inverted = np.mean([likeness(255 - image) >= MINIMUM_LIKENESS for image in images])
    turned = np.mean([likeness(np.rot90(image)) >= MINIMUM_LIKENESS for image in images])
    assert passed >= 0.98
    assert inverted <= 0.02
    assert turned <= 0.02


def test_radiographs_of_other_things_do_not_look_like_chests(shared_data: Path) -> None:
    """Legs, hips, shoulders, a dog's thorax: the test of looks alone would refuse them."""
    seen = 0
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        if not path.name.startswith(("xray", "chest")) or VERDICTS[path.name] == "eligible":
            continue
        with path.open("rb") as stream:
            ds = read_instance(stream)
        if path.name not in NOT_DECODABLE:
            assert likeness(grey8(ds, maximum_pixels=MAXIMUM_PIXELS)) < MINIMUM_LIKENESS, path.name
            seen += 1
    assert seen >= 8
