"""A network as a SavedModel that TF Serving and the embedded model server can load.

Three signatures, any batch size, h x w as the network's preprocess profile has them (224 x 224
or 299 x 299); each input is named `images`:

==================  ==========================  =========================================
`serving_default`   float32 [N,h,w,3] in 0..1   `probabilities` float32 [N,C]
`uint8`             uint8 [N,h,w,3]             `probabilities`
`explain`           uint8 [N,h,w,3]             `probabilities`, `cam` float32 [N,i,j],
                                                `embedding` float32 [N,d]
==================  ==========================  =========================================

The probabilities are calibrated: the logits are divided by the temperature of the model card
(Guo et al. 2017) inside the graph, for all three.

`cam` is Grad-CAM (Selvaraju et al. 2017) of the positive class's logit over the others,
computed inside the graph: each channel of the feature map weighted by its mean gradient,
summed, negative parts cut off, scaled to a maximum that equals the probability of the
positive class. A film that the model calls negative therefore stays dark. `embedding` is
the mean of the feature map over the film.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.imaging.profiles import profile_named
from dicomnode.modelcard import CARD_PATH, ModelCard
from trainer.errors import TrainerError
from trainer.networks import Network

WARMUP_PATH: Final = "assets.extra/tf_serving_warmup_requests"
_TOLERANCE: Final = 1e-4


def export(
    network: Network,
    folder: Path,
    card: ModelCard,
    warmup: NDArray[np.uint8],
    temperature: float = 1.0,
) -> None:
    """Write the SavedModel, the card and the warm-up requests into `folder`.

    `warmup` is one film, uint8 [1, h, w, 3]; `temperature` is what the card's calibration
    says. What was written is loaded again and asked about the film. Raises `TrainerError` when
    it answers otherwise than the network in memory, or when the card tells of another network.
    """
    import tensorflow as tf  # noqa: PLC0415

    _require_fit(network, card, warmup, temperature)
    module = _servable(tf, network, card.positive_index, temperature)
    tf.saved_model.save(
        module,
        str(folder),
        signatures={
            "serving_default": module.serving_default,
            "uint8": module.uint8,
            "explain": module.explain,
        },
    )
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / CARD_PATH).write_text(card.to_json() + "\n", encoding="utf-8")
    _write_warmup(tf, folder / WARMUP_PATH, card.model_name, warmup)
    _check(tf, folder, module, warmup)


def _require_fit(
    network: Network, card: ModelCard, warmup: NDArray[np.uint8], temperature: float
) -> None:
    """Whoever reads the card later prepares films and reads probabilities by it."""
    if card.preprocess_profile != network.profile:
        raise TrainerError(
            f"the model card names the preprocess profile {card.preprocess_profile}, "
            f"{network.name} takes {network.profile}; nothing was published"
        )
    expected = (1, *profile_named(network.profile).shape)
    if warmup.dtype != np.uint8 or warmup.shape != expected:
        raise TrainerError(
            f"the warm-up film is {warmup.dtype} {list(warmup.shape)}, expected uint8 "
            f"{list(expected)} as {network.profile} makes it; nothing was published"
        )
    if not math.isclose(card.calibration.temperature, temperature, rel_tol=1e-3):
        raise TrainerError(
            f"the model card says temperature {card.calibration.temperature:g}, the graph would "
            f"get {temperature:g}; nothing was published"
        )


def _servable(tf: Any, network: Network, positive: int, temperature: float) -> Any:
    import keras  # noqa: PLC0415

    backbone, head = network.backbone, network.head
    logits_of = keras.Model(head.input, head.get_layer("logits").output)
    film = (None, *profile_named(network.profile).shape)

    def unit(images: Any) -> Any:
        return tf.cast(images, tf.float32) / 255.0

    def probabilities(images: Any) -> Any:
        logits = logits_of(backbone(images, training=False), training=False)
        return tf.nn.softmax(logits / temperature)

    def explain(images: Any) -> dict[str, Any]:
        features = backbone(unit(images), training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            logits = logits_of(features, training=False)
            others = tf.reduce_sum(logits, axis=1) - logits[:, positive]
            margin = logits[:, positive] - others / float(logits.shape[1] - 1)
        weights = tf.reduce_mean(tape.gradient(margin, features), axis=(1, 2), keepdims=True)
        evidence = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
        peak = tf.reduce_max(evidence, axis=(1, 2), keepdims=True)
        answer = tf.nn.softmax(logits / temperature)
        cam = tf.math.divide_no_nan(evidence, peak) * answer[:, positive, None, None]
        return {
            "probabilities": answer,
            "cam": tf.clip_by_value(cam, 0.0, 1.0),
            "embedding": tf.reduce_mean(features, axis=(1, 2)),
        }

    class Servable(tf.Module):
        """The variables and the three functions; nothing of Keras is needed to serve it."""

        def __init__(self) -> None:
            super().__init__(name="servable")
            self.network_variables = [v.value for v in (*backbone.variables, *head.variables)]

        @tf.function(input_signature=[tf.TensorSpec(film, tf.float32, name="images")])
        def serving_default(self, images: Any) -> dict[str, Any]:
            return {"probabilities": probabilities(images)}

        @tf.function(input_signature=[tf.TensorSpec(film, tf.uint8, name="images")])
        def uint8(self, images: Any) -> dict[str, Any]:
            return {"probabilities": probabilities(unit(images))}

        @tf.function(input_signature=[tf.TensorSpec(film, tf.uint8, name="images")])
        def explain(self, images: Any) -> dict[str, Any]:
            return explain(images)

    return Servable()


def _write_warmup(tf: Any, path: Path, model_name: str, film: NDArray[np.uint8]) -> None:
    """One request per signature as PredictionLog in a TFRecord file, which is what TF
    Serving replays before it makes a version available (SavedModel Warmup)."""
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415

    inputs = {
        "explain": film,
        "uint8": film,
        "serving_default": film.astype(np.float32) / np.float32(255.0),
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, images in inputs.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
            writer.write(log.SerializeToString())


def _check(tf: Any, folder: Path, module: Any, film: NDArray[np.uint8]) -> None:
    expected = module.explain(tf.constant(film))["probabilities"].numpy()
    signatures = tf.saved_model.load(str(folder)).signatures
    given = {
        "explain": tf.constant(film),
        "uint8": tf.constant(film),
        "serving_default": tf.constant(film.astype(np.float32) / np.float32(255.0)),
    }
    for name, images in given.items():
        answer = signatures[name](images=images)["probabilities"].numpy()
        difference = float(np.abs(answer - expected).max())
        if not difference <= _TOLERANCE:
            raise TrainerError(
                f"signature {name} of the exported model differs by {difference:.2g} from the "
                f"network in memory, expected at most {_TOLERANCE:g}; nothing was published"
            )
