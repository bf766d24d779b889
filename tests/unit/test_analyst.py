"""One image is judged: which version's card decides, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dicomnode.errors import ModelCardMissing, ModelRefused, OtherSizeWanted
from dicomnode.findings import Evaluated, NotEvaluated, Prediction, PreparedImage, Reason
from dicomnode.metrics import Metrics
from dicomnode.modelcard import Code, ModelCard, Threshold
from dicomnode.pipeline import Analyst

IMAGE = Path("image.dcm")
REFUSED = NotEvaluated(reason=Reason.VIEW, detail="a lateral view")


def card(version: int, *, profile: str = "unit-rgb-224/1", threshold: float = 0.5) -> ModelCard:
    return ModelCard(
        model_name="covid19",
        model_version=version,
        network="tiny",
        classes=("negative", "positive"),
        positive_class="positive",
        finding=Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
        preprocess_profile=profile,
        threshold=Threshold(value=threshold),
        created_at="2026-01-01T00:00:00+00:00",
    )


class Cards:
    def __init__(self, *cards: ModelCard) -> None:
        self._cards = {card.model_version: card for card in cards}

    def get(self, version: int) -> ModelCard:
        if version not in self._cards:
            raise ModelCardMissing(f"no card for version {version}")
        return self._cards[version]

    def newest(self) -> ModelCard:
        return self.get(max(self._cards))


class Preparer:
    """Prepares an image whose pixels name the profile, or refuses."""

    def __init__(self, refusal: NotEvaluated | None = None) -> None:
        self.profiles: list[str] = []
        self._refusal = refusal

    def prepare(self, path: Path, *, profile: str) -> PreparedImage | NotEvaluated:
        self.profiles.append(profile)
        if self._refusal is not None:
            return self._refusal
        return PreparedImage(
            tensor=np.full((224, 224, 3), len(self.profiles), np.uint8),
            display=np.zeros((4, 4), np.uint8),
            decode_seconds=0.01,
            preprocess_seconds=0.001,
        )

    def close(self) -> None:
        pass


class Predictor:
    """Version `served` answers; a version that is asked for answers itself.

    With `wants`, the served version takes another size than the first image has.
    """

    def __init__(self, served: int, *probabilities: float, wants: str = "") -> None:
        self._served = served
        self._wants = wants
        self._probabilities = probabilities or (0.2, 0.8)
        self.asked: list[tuple[int, int | None]] = []

    def predict(self, image: np.ndarray, *, version: int | None = None) -> Prediction:
        self.asked.append((int(image[0, 0, 0]), version))
        if self._wants and version is None:
            raise OtherSizeWanted(f"prepare it as {self._wants}", model_version=self._served)
        return Prediction(
            model_name="covid19",
            model_version=version or self._served,
            backend="a:1",
            probabilities=self._probabilities,
            cam=np.ones((7, 7), np.float32),
            embedding=np.arange(3, dtype=np.float32),
        )

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def analyst(metrics: Metrics) -> Callable[..., Analyst]:
    def make(preparer: Preparer, predictor: Predictor, *cards: ModelCard) -> Analyst:
        return Analyst(preparer=preparer, predictor=predictor, cards=Cards(*cards), metrics=metrics)

    return make


@pytest.mark.parametrize(("threshold", "present"), [(0.5, True), (0.8, True), (0.81, False)])
def test_the_threshold_of_the_card_decides(
    analyst: Callable[..., Analyst], threshold: float, present: bool
) -> None:
    outcome = analyst(Preparer(), Predictor(1), card(1, threshold=threshold)).judge(IMAGE).outcome
    assert isinstance(outcome, Evaluated)
    assert (outcome.probability, outcome.present) == (0.8, present)


def test_the_card_of_the_version_that_answered_decides(analyst: Callable[..., Analyst]) -> None:
    """Version 1 still answers while version 2 is published already."""
    cards = card(1, threshold=0.9), card(2, threshold=0.5)
    outcome = analyst(Preparer(), Predictor(1), *cards).judge(IMAGE).outcome
    assert isinstance(outcome, Evaluated)
    assert (outcome.model_version, outcome.present) == (1, False)


def test_a_version_with_another_profile_is_asked_again_with_the_image_prepared_for_it(
    analyst: Callable[..., Analyst],
) -> None:
    preparer, predictor = Preparer(), Predictor(1)
    cards = card(1, profile="old/1"), card(2, profile="new/2")
    outcome = analyst(preparer, predictor, *cards).judge(IMAGE).outcome
    assert preparer.profiles == ["new/2", "old/1"]
    assert predictor.asked == [(1, None), (2, 1)]
    assert isinstance(outcome, Evaluated)
    assert outcome.model_version == 1


@pytest.mark.parametrize("served", [1, 2])
def test_a_version_that_takes_another_size_is_asked_with_the_image_prepared_for_it(
    analyst: Callable[..., Analyst], served: int
) -> None:
    """Version 2 is published and takes another size; until it is loaded version 1 answers."""
    preparer, predictor = Preparer(), Predictor(served, wants="small/1" if served == 1 else "")
    cards = card(1, profile="small/1"), card(2, profile="large/1")
    outcome = analyst(preparer, predictor, *cards).judge(IMAGE).outcome
    assert preparer.profiles == (["large/1", "small/1"] if served == 1 else ["large/1"])
    assert isinstance(outcome, Evaluated)
    assert outcome.model_version == served


def test_a_version_whose_card_names_a_profile_of_another_size_is_refused_not_asked_for_ever(
    analyst: Callable[..., Analyst],
) -> None:
    predictor = Predictor(1, wants="another/1")
    with pytest.raises(OtherSizeWanted):
        analyst(Preparer(), predictor, card(1)).judge(IMAGE)
    assert len(predictor.asked) == 1


def test_a_refused_image_never_reaches_the_model(
    analyst: Callable[..., Analyst], metrics: Metrics
) -> None:
    predictor = Predictor(1)
    assert analyst(Preparer(REFUSED), predictor, card(1)).judge(IMAGE).outcome == REFUSED
    assert predictor.asked == []
    counted = metrics.registry.get_sample_value("dicomnode_not_evaluated_total", {"reason": "view"})
    assert counted == 1


def test_probabilities_that_do_not_fit_the_card_are_refused(
    analyst: Callable[..., Analyst],
) -> None:
    with pytest.raises(ModelRefused, match="3 probabilities, its card names 2 classes"):
        analyst(Preparer(), Predictor(1, 0.1, 0.2, 0.7), card(1)).judge(IMAGE)


def test_an_answer_without_a_card_is_no_answer(analyst: Callable[..., Analyst]) -> None:
    with pytest.raises(ModelCardMissing):
        analyst(Preparer(), Predictor(7), card(1)).judge(IMAGE)


def test_map_and_embedding_are_kept_with_the_finding(analyst: Callable[..., Analyst]) -> None:
    outcome = analyst(Preparer(), Predictor(1), card(1)).judge(IMAGE).outcome
    assert isinstance(outcome, Evaluated)
    assert outcome.cam is not None
    assert outcome.cam.shape == (7, 7)
    assert outcome.embedding is not None
    assert outcome.embedding.tolist() == [0.0, 1.0, 2.0]
