"""What the database is given, and which outcomes say the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy.dialects import postgresql, sqlite

from dicomnode.findings import Evaluated, NotEvaluated, Reason
from dicomnode.storage.records import clean, statement
from dicomnode.storage.schema import UtcDateTime

FOUND = Evaluated(
    model_name="covid19",
    model_version=1,
    backend="a:1",
    probability=0.25,
    threshold=0.5,
    present=False,
    cam=np.zeros((2, 2), np.float32),
    display_path="display/1.png",
)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"backend": "b:1"}, True),
        ({"probability": 0.2500001}, True),
        ({"probability": 0.250001}, False),
        ({"display_path": "display/2.png"}, True),
        ({"cam": np.ones((2, 2), np.float32)}, True),
        ({"cam": None}, False),
        ({"model_version": 2}, False),
        ({"threshold": 0.2, "present": True}, False),
    ],
)
def test_outcomes_say_the_same_when_a_report_of_them_would(
    change: dict[str, object], same: bool
) -> None:
    assert (statement(FOUND) == statement(replace(FOUND, **change))) is same  # type: ignore[arg-type]


def test_a_refusal_says_its_reason_and_detail() -> None:
    refusal = NotEvaluated(reason=Reason.VIEW, detail="found LATERAL")
    assert statement(refusal) == statement(replace(refusal))
    assert statement(refusal) != statement(replace(refusal, detail="found LL"))


def test_text_is_made_fit_for_both_databases() -> None:
    assert clean("a\0b\udcffc", 3) == "ab?"
    assert clean("Größe") == "Größe"


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])
def test_times_are_aware_and_in_utc_on_both_sides(dialect: object) -> None:
    column = UtcDateTime()
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    stored = column.process_bind_param(moment, dialect)  # type: ignore[arg-type]
    back = column.process_result_value(stored, dialect)  # type: ignore[arg-type]
    assert back == moment
    assert back.tzinfo is UTC
    with pytest.raises(ValueError, match="without a zone"):
        column.process_bind_param(datetime(2026, 1, 1), dialect)  # type: ignore[arg-type]
