"""Candidate and current version on the same patients: whom the current one knows already."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.test_trainer_registry import with_films
from trainer import data, evaluate, networks, registry
from trainer.export import export
from trainer.fit import Candidate
from trainer.gate import Policy
from trainer.retrain.judgement import judge

pytest.importorskip("tensorflow", reason="needs the `model` extra")

from dicomnode.testing.saved_models import tiny_card

FILMS, HELD_OUT = 80, 40
POLICY = Policy(
    resamples=200, minimum_patients=20, minimum_positive_patients=8, minimum_negative_patients=8
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory whose version 1 has learned nothing."""
    base = tmp_path_factory.mktemp("models") / "covid19"
    network = networks.build("tiny", weights="random", classes=2, seed=1)
    with registry.staging(base) as folder:
        export(network, folder, tiny_card("covid19", 1), np.zeros((1, 224, 224, 3), np.uint8))
        registry.publish(folder, base)
    return base


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    """Half of the films are held out, and it is right about all of those."""
    cases = tuple(
        data.Case(
            path=Path(f"{number}.png"),
            name=f"{number}.png",
            label="positive" if number % 2 else "negative",
            patient=f"patient-{number}",
            source="XRAY1",
        )
        for number in range(FILMS)
    )
    rng = np.random.default_rng(1)
    planes = rng.integers(0, 255, (FILMS, 224, 224, 1), dtype=np.uint8)
    parts = data.Split(
        training=np.arange(HELD_OUT, FILMS - 10),
        validation=np.arange(FILMS - 10, FILMS),
        test=np.arange(HELD_OUT),
    )
    predictions = [_right(cases, part) for part in (parts.validation, parts.test)]
    return Candidate(
        folder=None,
        card=tiny_card("covid19", 2),
        assessment=evaluate.assess(*predictions, resamples=50),
        validation=predictions[0],
        test=predictions[1],
        films=data.Films(
            cases=cases,
            tensors=np.broadcast_to(planes, (FILMS, 224, 224, 3)),
            digests=tuple(digest(number) for number in range(FILMS)),
            skipped=(),
            manifest_sha256="",
        ),
        split=parts,
        history=(),
    )


def _right(cases: tuple[data.Case, ...], part: Any) -> evaluate.Predictions:
    chosen = [cases[index] for index in part]
    scores = np.array([0.9 if case.label == "positive" else 0.1 for case in chosen])
    return evaluate.Predictions.of(
        chosen,
        np.stack([1 - scores, scores], axis=1),
        classes=("negative", "positive"),
        positive_class="positive",
    )


def compared_patients(judged: Any) -> int:
    checks = [check for check in judged.decision.checks if check.name == "enough_patients"]
    return int(checks[-1].figures["patients"])


def quiet(_event: str, _facts: dict[str, Any]) -> None: ...


def known_to_version_1(base: Path, films: range, part: str = "training") -> None:
    with_films(base, 1, *((digest(number), "positive", part) for number in films))


def test_a_version_that_does_not_say_its_films_is_compared_on_all_of_them(base, candidate):
    (base / "1" / registry.TRAINING_MANIFEST_PATH).unlink(missing_ok=True)
    judged = judge(candidate, base, POLICY, quiet)
    assert judged.decision.verdict == "promote"
    assert judged.current_version == 1
    assert compared_patients(judged) == HELD_OUT
    assert "does not say which films" in judged.notes[0]


def test_patients_that_the_current_version_learned_from_are_left_out(base, candidate):
    known_to_version_1(base, range(12))
    judged = judge(candidate, base, POLICY, quiet)
    assert compared_patients(judged) == HELD_OUT - 12
    assert judged.notes == (
        "left out of the comparison: 12 of 40 held-out patients, known to version 1",
    )


def test_patients_that_the_current_version_was_only_tested_on_stay_in(base, candidate):
    known_to_version_1(base, range(12), part="test")
    judged = judge(candidate, base, POLICY, quiet)
    assert compared_patients(judged) == HELD_OUT
    assert judged.notes == ()


def test_when_too_few_others_are_left_they_stay_in_and_it_is_said(base, candidate):
    known_to_version_1(base, range(30))
    judged = judge(candidate, base, POLICY, quiet)
    assert compared_patients(judged) == HELD_OUT
    assert judged.notes[0].startswith("version 1 learned from films of 30 of 40 held-out patients")
    assert judged.notes[0].endswith("they stay in the comparison, which favours it")


def test_versions_of_other_classes_are_refused_without_asking_them(base, candidate):
    other = replace(
        candidate, card=candidate.card.model_copy(update={"classes": ("negative", "positive", "x")})
    )
    judged = judge(other, base, POLICY, quiet)
    (reason,) = judged.decision.reasons
    assert reason.startswith("cannot be compared: the candidate tells negative, positive, x apart")


def test_without_a_version_there_is_nothing_to_compare_with(tmp_path: Path, candidate):
    judged = judge(candidate, tmp_path, POLICY, quiet)
    assert judged.current_version is None
    assert judged.decision.verdict == "promote"


def test_a_version_of_another_profile_gets_the_films_prepared_in_its_own(
    base, candidate, tmp_path: Path
):
    """Read again from their files: 299 pixels for the candidate, 224 for version 1."""
    cases = tuple(replace(case, path=tmp_path / case.name) for case in candidate.films.cases)
    for number, case in enumerate(cases[:HELD_OUT]):
        Image.fromarray(np.full((64, 64), 100 + number, np.uint8)).save(case.path)
    other = replace(
        candidate,
        card=candidate.card.model_copy(update={"preprocess_profile": "unit-rgb-299/1"}),
        films=replace(candidate.films, cases=cases),
    )
    known_to_version_1(base, range(0))
    told: list[dict[str, Any]] = []
    judged = judge(other, base, POLICY, lambda _event, facts: told.append(facts))
    assert told == [{"version": 1, "films": HELD_OUT}]
    assert compared_patients(judged) == HELD_OUT
