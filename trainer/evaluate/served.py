"""What a published version answers about films, asked as the node asks it.

The version's own graph and its own card: `uint8` films in, calibrated probabilities out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.imaging.preprocess import profile_named
from dicomnode.modelcard import CARD_PATH, ModelCard
from trainer import data
from trainer.errors import DataError, RegistryError
from trainer.evaluate.predictions import Predictions

SIGNATURE: Final = "uint8"


def read_card(version_folder: Path) -> ModelCard:
    """The card in a version's folder. Raises `RegistryError`."""
    path = version_folder / CARD_PATH
    try:
        return ModelCard.from_json(path.read_bytes())
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RegistryError(f"{path} is not a model card") from error


def predict_version(
    version_folder: Path,
    films: data.Films,
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Probabilities of the version for `films`, as it serves them (calibrated).

    `films` are prepared with the preprocess profile of the version's card. `progress` is
    called with the number of films done and due. Raises `RegistryError` when the version
    cannot be loaded or answers what its card does not say, `DataError` when the films are not
    for it.
    """
    card = read_card(version_folder)
    _require_fit(card, films)
    answer = _signature(version_folder)
    probabilities = np.empty((len(films.cases), len(card.classes)), dtype=np.float64)
    for start in range(0, len(films.cases), batch_size):
        stop = min(start + batch_size, len(films.cases))
        batch = answer(np.ascontiguousarray(films.tensors[start:stop]))
        if batch.shape != (stop - start, len(card.classes)):
            raise RegistryError(
                f"{version_folder} answers {list(batch.shape)} for {stop - start} films, its "
                f"card has {len(card.classes)} classes"
            )
        probabilities[start:stop] = batch
        if progress is not None:
            progress(stop, len(films.cases))
    if not np.isfinite(probabilities).all():
        raise RegistryError(f"{version_folder} answers numbers that are not finite")
    return Predictions.of(
        films.cases,
        probabilities,
        classes=card.classes,
        positive_class=card.positive_class,
    )


def require_labels(card: ModelCard, cases: Sequence[data.Case]) -> None:
    """Raises `DataError` when a film has a label that the model does not know."""
    unknown = sorted({case.label for case in cases} - set(card.classes))
    if unknown:
        raise DataError(
            f"the films have the label {unknown[0]!r}, the model tells "
            f"{', '.join(card.classes)} apart; name the classes alike"
        )


def _require_fit(card: ModelCard, films: data.Films) -> None:
    require_labels(card, films.cases)
    try:
        expected = profile_named(card.preprocess_profile).shape
    except ValueError as error:
        raise RegistryError(str(error)) from error
    if films.tensors.dtype != np.uint8 or films.tensors.shape[1:] != expected:
        raise DataError(
            f"the films are {films.tensors.dtype} {list(films.tensors.shape[1:])}, the model "
            f"takes uint8 {list(expected)}; prepare them with {card.preprocess_profile}"
        )


def _signature(version_folder: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    import tensorflow as tf  # noqa: PLC0415 - takes seconds to import

    try:
        model = tf.saved_model.load(str(version_folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise RegistryError(
            f"{version_folder} holds no model that can be loaded; `trainer models rollback` "
            "withdraws a damaged version"
        ) from error
    if SIGNATURE not in model.signatures:
        found = ", ".join(sorted(model.signatures)) or "none"
        raise RegistryError(
            f"{version_folder} has no signature {SIGNATURE!r} (found: {found}); publish the "
            "model with `trainer fit`"
        )
    function: Any = model.signatures[SIGNATURE]
    inputs = sorted(function.structured_input_signature[1])
    if len(inputs) != 1:
        raise RegistryError(
            f"{version_folder} takes the inputs {', '.join(inputs) or 'none'} in {SIGNATURE!r}, "
            "expected one"
        )

    def answer(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert model is not None, "the signature lives as long as its model"
        given = {inputs[0]: tf.constant(batch)}
        result: NDArray[np.float32] = function(**given)["probabilities"].numpy()
        return result

    return answer
