"""What fits a value representation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.sr import values


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (values.is_uid, ["1.2.3", "2.25.0", "0.1"], ["", "1", "3.1", "1.02", "1..2", "1.2\n"]),
        (values.is_date, ["20240229", "00010101"], ["20230229", "2024022", "٢٠٢٤٠٢٢٩", "20241301"]),
        (values.is_time, ["08", "0815", "235959", "000000.1"], ["24", "8", "0860", "08:15", "10."]),
        (values.is_age, ["042Y", "003D"], ["42Y", "042y"]),
        (values.is_code_string, ["CR", "A_B 1"], ["cr", "A" * 17, ""]),
        (values.is_utc_offset, ["+0000", "-0930", "+1400"], ["-0000", "+1401", "+0160", "0100"]),
        (values.is_person_name, ["A^B", "A=B=C", "^^^^"], ["A=B=C=D", "a^b^c^d^e^f", "A\\B"]),
    ],
)  # fmt: skip
def test_values_are_judged_by_their_representation(check, good, bad):
    assert [value for value in good if not check(value)] == []
    assert [value for value in bad if check(value)] == []


@given(st.text(max_size=300), st.integers(min_value=8, max_value=64))
def test_fitted_text_is_one_value_of_its_length(text, limit):
    assert values.is_text(
        values.fitted(text, limit).replace("\N{REPLACEMENT CHARACTER}", ""), limit
    )


@given(st.text(max_size=200))
def test_judging_never_raises(text):
    for check in (values.is_uid, values.is_date, values.is_time, values.is_person_name,
                  values.is_utc_offset, values.is_age, values.is_code_string):  # fmt: skip
        assert check(text) in (True, False)
    values.canonical_name(text)
