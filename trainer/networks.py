"""The networks: a backbone that looks, and a head that decides.

Every network takes float32 [N, 224, 224, 3] in 0..1 and scales it for itself, so the
exported graph does too. A backbone gives a feature map float32 [N, h, w, d]; a head turns
that into probabilities float32 [N, classes], its last but one layer named `logits`.

=============  =======================================================================
`tiny`         five convolutions, learns from scratch in seconds; for phantoms and demos
`mobilenet`    keras.applications.MobileNet, frozen, input to -1..1
`mobilenet_v2` keras.applications.MobileNetV2, frozen, input to -1..1
`vgg16`        keras.applications.VGG16, frozen, input left at 0..1 as the thesis had it
=============  =======================================================================

The thesis head pools 4 x 4 without padding, which on a 7 x 7 map keeps the upper left four
rows and columns only. It is kept so, because its published tables stand on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer.errors import WeightsError

_ALPHAS: Final = {
    "mobilenet": {218_544: 0.25, 829_536: 0.5, 1_832_976: 0.75, 3_228_864: 1.0},
    "mobilenet_v2": {
        410_208: 0.35,
        706_224: 0.5,
        1_382_064: 0.75,
        2_257_984: 1.0,
        3_766_048: 1.3,
        4_363_712: 1.4,
    },
}
"""Parameters without top by width: a weights file tells its width by its size."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A backbone and its head, both keras.Model."""

    name: str
    backbone: Any
    head: Any
    frozen: bool
    """The backbone is a constant function: its features are worth computing once."""


def build(
    name: str, *, weights: str, classes: int, seed: int, alpha: float | None = None
) -> Network:
    """A network with the given weights: `random`, `imagenet` or the path of an .h5 file.

    Raises `WeightsError`.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    keras.utils.set_random_seed(seed)
    if name == "tiny":
        backbone, head = _tiny_backbone(keras), _tiny_head(keras, classes)
        return Network(name=name, backbone=backbone, head=head, frozen=False)
    backbone = _application(keras, name, weights, alpha)
    head = _thesis_head(keras, backbone.output_shape[1:], classes)
    return Network(name=name, backbone=backbone, head=head, frozen=True)


def _tiny_backbone(keras: Any) -> Any:
    layers, ops = keras.layers, keras.ops
    images = keras.Input((224, 224, 3), name="images")
    grey = layers.AveragePooling2D(2)(ops.mean(images, axis=-1, keepdims=True))
    # each film by its own mean and spread: the exposure says nothing about the finding
    mean = ops.mean(grey, axis=(1, 2, 3), keepdims=True)
    spread = ops.std(grey, axis=(1, 2, 3), keepdims=True)
    x = (grey - mean) / (spread + 0.02)
    for filters, strides in ((16, 2), (32, 2), (48, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    return keras.Model(images, x, name="tiny")


def _tiny_head(keras: Any, classes: int) -> Any:
    layers = keras.layers
    features = keras.Input((14, 14, 64), name="features")
    x = layers.GlobalAveragePooling2D()(features)
    x = layers.Dropout(0.2)(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(features, layers.Softmax()(logits), name="head")


def _thesis_head(keras: Any, shape: tuple[int, int, int], classes: int) -> Any:
    layers = keras.layers
    features = keras.Input(shape, name="features")
    x = layers.Flatten()(layers.AveragePooling2D(4)(features))
    x = layers.Dropout(0.5)(layers.Dense(64, activation="relu")(x))
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(features, layers.Softmax()(logits), name="head")


def _application(keras: Any, name: str, weights: str, alpha: float | None) -> Any:
    source = None if weights == "random" else weights
    if alpha is None and source not in (None, "imagenet"):
        alpha = _alpha_of(name, Path(weights))
    options: dict[str, Any] = {"include_top": False, "input_shape": (224, 224, 3)}
    if name != "vgg16":
        options["alpha"] = alpha or 1.0
    applications = {
        "mobilenet": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
        "vgg16": keras.applications.VGG16,
    }
    try:
        model = applications[name](weights=source, **options)
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(_why(name, weights)) from error
    except Exception as error:
        # keras.utils.get_file raises a bare Exception when a download fails
        if type(error) is not Exception:
            raise
        raise WeightsError(_why(name, weights)) from error
    model.trainable = False
    if name == "vgg16":
        return model
    images = keras.Input((224, 224, 3), name="images")
    return keras.Model(images, model(keras.layers.Rescaling(2.0, -1.0)(images)), name=name)


def _why(name: str, weights: str) -> str:
    if weights == "imagenet":
        return (
            f"the imagenet weights of {name} cannot be downloaded from here; "
            "fetch the no-top .h5 file elsewhere and pass it as --weights FILE"
        )
    return f"{weights} does not hold the weights of {name} without top; expected a Keras .h5 file"


def _alpha_of(name: str, path: Path) -> float | None:
    """The width of a MobileNet from the number of parameters in its file."""
    known = _ALPHAS.get(name)
    if known is None:
        return None
    import h5py  # noqa: PLC0415 - comes with keras

    sizes: list[int] = []

    def add(_name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            sizes.append(node.size)

    try:
        with h5py.File(path) as file:
            file.visititems(add)
    except OSError as error:
        raise WeightsError(_why(name, str(path))) from error
    if sum(sizes) not in known:
        widths = ", ".join(f"{alpha:g}" for alpha in known.values())
        raise WeightsError(
            f"{path} holds {sum(sizes)} parameters; {name} without top has {widths} as widths "
            "and none of that size; pass --alpha if it is another"
        )
    return known[sum(sizes)]
