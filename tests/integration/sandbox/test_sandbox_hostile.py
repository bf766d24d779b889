"""Malformed files: every one ends in an answer, within bounded memory and time."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage
from dicomnode.imaging.pixels import grey8
from dicomnode.imaging.reading import read_instance
from dicomnode.sandbox import SandboxPreparer
from dicomnode.testing.phantom_dicom import TRANSFER_SYNTAXES, part10_bytes, phantom_dataset

PROFILE = "unit-rgb-224/1"
TIMEOUT_SECONDS = 20.0
MEMORY_BYTES = 1_000_000_000


def answer(preparer: SandboxPreparer, path: Path) -> str:
    """What became of the file; anything else than these outcomes is an error of ours."""
    try:
        outcome = preparer.prepare(path, profile=PROFILE)
    except (UndecodableImage, NotAnInstance) as error:
        message = str(error)
        assert "unforeseen" not in message, message
        assert "decoder process" not in message, message
        return error.code
    assert isinstance(outcome, PreparedImage | NotEvaluated)
    return outcome.reason.value if isinstance(outcome, NotEvaluated) else "prepared"


def test_every_hostile_file_gets_an_answer(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    slowest = 0.0
    paths = sorted((shared_data / "dicom-hostile").glob("*.dcm"))
    with SandboxPreparer(
        slots=1, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES
    ) as preparer:
        for path in paths:
            started = time.monotonic()
            counts[answer(preparer, path)] += 1
            slowest = max(slowest, time.monotonic() - started)
        resident = psutil.Process(preparer.pids()[0]).memory_info().rss
    with capsys.disabled():
        print(f"\n{len(paths)} hostile files: {dict(counts)}, slowest {slowest:.2f} s")
    assert counts.total() == len(paths) > 100
    assert resident < 300_000_000


def test_every_hostile_file_is_decoded_or_refused_once_past_the_gate(shared_data: Path) -> None:
    """Most hostile files are no radiographs, so the gate would hide them from the decoder."""
    counts: Counter[str] = Counter()
    for path in sorted((shared_data / "dicom-hostile").glob("*.dcm")):
        try:
            with path.open("rb") as stream:
                grey8(read_instance(stream), maximum_pixels=10_000_000)
        except (UndecodableImage, NotAnInstance) as error:
            counts[error.code] += 1
        else:
            counts["decoded"] += 1
    assert counts["decoded"] > 50
    assert counts["undecodable_image"] > 30


@pytest.fixture(scope="module")
def valid() -> list[bytes]:
    """One small phantom in each transfer syntax."""
    return [
        part10_bytes(
            phantom_dataset(
                1, True, rows=256, columns=256, transfer_syntax=syntax,
                bits_stored=8 if syntax.endswith("4.50") else 12,
            )
        )
        for syntax in TRANSFER_SYNTAXES
    ]  # fmt: skip


@pytest.fixture(scope="module")
def preparer() -> SandboxPreparer:
    with SandboxPreparer(
        slots=1, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES
    ) as made:
        yield made


@given(data=st.data())
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_mutated_file_gets_an_answer(
    data: st.DataObject, valid: list[bytes], preparer: SandboxPreparer, tmp_path: Path
) -> None:
    """A child may crash on them (that is what it is for); the node gets an answer."""
    whole = bytearray(data.draw(st.sampled_from(valid), label="file"))
    header = min(len(whole), 2500)
    for _ in range(data.draw(st.integers(1, 6), label="changes")):
        reach = data.draw(st.sampled_from([header, len(whole)]), label="reach")
        position = data.draw(st.integers(128, reach - 1), label="position")
        whole[position] = data.draw(st.integers(0, 255), label="byte")
    if data.draw(st.booleans(), label="cut"):
        del whole[data.draw(st.integers(132, len(whole)), label="length") :]
    path = tmp_path / "mutant.dcm"
    path.write_bytes(whole)
    try:
        outcome = preparer.prepare(path, profile=PROFILE)
    except (UndecodableImage, NotAnInstance) as error:
        assert "unforeseen" not in str(error)
    else:
        assert isinstance(outcome, PreparedImage | NotEvaluated)
