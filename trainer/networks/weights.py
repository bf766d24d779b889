"""Backbones of keras.applications with the weights that were asked for, or one clear error."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import WeightsError
from trainer.networks.catalogue import APPLICATIONS, IMAGENET_DEVIATION


def backbone(name: str, *, weights: str, alpha: float | None, side: int) -> Any:
    """The functional keras model, its input in the range that the application expects.

    `weights` is `random`, `imagenet` or the path of a Keras .h5 or .weights.h5 file without
    top; `alpha` the width of a MobileNet, None takes it from the file, or 1. Raises
    `WeightsError`.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    application = APPLICATIONS[name]
    options: dict[str, Any] = {"include_top": False, "input_shape": (side, side, 3)}
    from_file = weights not in ("random", "imagenet")
    if application.widths:
        options["alpha"] = alpha or (_width(name, Path(weights)) if from_file else 1.0)
    constructor = getattr(keras.applications, application.constructor)
    if weights != "imagenet":
        model = constructor(weights=None, **options)
        if from_file:
            _load(model, name, Path(weights))
    else:
        model = _downloaded(constructor, name, options)
    if name == "efficientnet_b0":
        model = _with_constant_scaling(model, from_file=from_file)
    for layer in model.layers:
        # drop-connect of EfficientNet: each replica would draw its own; heads have dropout
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def content_sha256(model: Any, *facts: str | float) -> str:
    """Of the facts, the scalings in the model, and type, shape and content of its weights."""
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    digest = hashlib.sha256(json.dumps(facts).encode())
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Rescaling):
            digest.update(json.dumps([layer.scale, layer.offset]).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _downloaded(constructor: Any, name: str, options: dict[str, Any]) -> Any:
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    keras.config.disable_interactive_logging()  # it would print between our JSON lines
    try:
        return constructor(weights="imagenet", **options)
    except (ValueError, OSError) as error:
        raise WeightsError(_unreachable(name)) from error
    except Exception as error:
        # keras.utils.get_file raises a bare Exception when a download fails
        if type(error) is not Exception:
            raise
        raise WeightsError(_unreachable(name)) from error


def _unreachable(name: str) -> str:
    return (
        f"the imagenet weights of {name} cannot be downloaded from here; "
        "fetch the no-top .h5 file elsewhere and pass it as --weights FILE"
    )


def _load(model: Any, name: str, path: Path) -> None:
    held, expected = _parameters(path), model.count_params()
    unfit = (
        f"{path} does not hold the weights of {name} without top: it has {held:,} parameters, "
        f"expected {expected:,} in Keras's layout; check --network, --alpha and that the file "
        "was saved with include_top=False"
    )
    if held != expected:
        raise WeightsError(unfit)
    try:
        # a file that does not fit makes hundreds of warnings before the error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(unfit) from error


def _with_constant_scaling(model: Any, *, from_file: bool) -> Any:
    """The same network, its `Normalization` as a scaling by constants.

    That layer keeps copies of its weights, which `set_weights` on a copy of the network leaves
    at 0 and 1: such a copy gives other features without a word.

    The published weights of EfficientNet expect (x - mean) / deviation**2. Keras adds the
    missing division as a layer, but only to a network that it downloads itself; for a file it
    is made up for here. A file with another normalisation (none, in a network that was never
    shown ImageNet) is left as it is.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    def constant(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Normalization):
            return layer.__class__.from_config(layer.get_config())
        mean, variance = (weight.ravel() for weight in layer.get_weights()[:2])
        scale = 1.0 / np.sqrt(variance)
        published = np.array(IMAGENET_DEVIATION)
        if from_file and mean.any() and np.allclose(variance, published**2, rtol=0.02):
            scale = scale / np.sqrt(published)
        return keras.layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), name=layer.name)

    copy = keras.models.clone_model(model, clone_function=constant)
    for layer in model.layers:
        if layer.weights and not isinstance(layer, keras.layers.Normalization):
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _width(name: str, path: Path) -> float:
    """The width of a MobileNet from the number of parameters in its file."""
    known, held = APPLICATIONS[name].widths, _parameters(path)
    if held not in known:
        widths = ", ".join(f"{alpha:g}" for alpha in known.values())
        raise WeightsError(
            f"{path} holds {held} parameters; {name} without top has {widths} as widths "
            "and none of that size; pass --alpha if it is another"
        )
    return known[held]


def _parameters(path: Path) -> int:
    """How many numbers a weights file holds. Raises `WeightsError`."""
    import h5py  # noqa: PLC0415 - comes with keras

    if path.suffix != ".h5":
        raise WeightsError(f"{path}: expected a Keras weights file ending in .h5 or .weights.h5")
    sizes: list[int] = []

    def add(name: str, node: Any) -> None:
        beside = name.startswith("optimizer") or "seed_generator" in name
        if isinstance(node, h5py.Dataset) and not beside:
            sizes.append(int(node.size or 0))

    try:
        with h5py.File(path) as file:
            file.visititems(add)
    except OSError as error:
        raise WeightsError(
            f"{path} is no weights file; expected HDF5 as Keras saves it (.h5 or .weights.h5)"
        ) from error
    return sum(sizes)
