"""Events go out as JSON lines and never carry a patient."""

from __future__ import annotations

import io
import json
import logging

import pytest

from dicomnode.logs import configure, get_logger


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


def test_a_line_that_cannot_be_written_is_lost_and_not_printed_with_its_cause(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard library would print the whole chain of errors, a patient's row in it."""
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", closed)
        configure(json=True)
    try:
        raise ValueError("Mustermann")
    except ValueError:
        logging.getLogger("test").error("the row cannot be stored")
    assert capsys.readouterr().err == ""
