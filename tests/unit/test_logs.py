"""Events go out as JSON lines and never carry a patient."""

from __future__ import annotations

import json
import logging

import pytest

from dicomnode.logs import configure, get_logger


@pytest.fixture(autouse=True)
def restored_logging():
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_an_event_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True)
    get_logger("test").info("job.settled", job_id=7)
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "job.settled"
    assert event["job_id"] == 7
    assert event["level"] == "info"


@pytest.mark.parametrize(
    "key", ["patient_id", "PatientName", "birth_date", "referring_physician", "accession_number"]
)
def test_patient_data_is_dropped_whoever_binds_it(
    capsys: pytest.CaptureFixture[str], key: str
) -> None:
    configure(json=True)
    get_logger("test").warning("instance.received", **{key: "Mustermann"})
    assert "Mustermann" not in capsys.readouterr().err


def test_libraries_that_print_header_values_are_silenced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(json=True, level="DEBUG")
    logging.getLogger("pynetdicom.assoc").error("PatientName: Mustermann")
    logging.getLogger("pydicom").warning("PatientName: Mustermann")
    assert capsys.readouterr().err == ""
