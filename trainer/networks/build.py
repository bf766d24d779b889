"""Building a network from its name."""

from __future__ import annotations

from typing import Any, Final

from dicomnode.imaging.profiles import profile_named
from trainer.errors import UsageError
from trainer.networks import tiny
from trainer.networks.catalogue import APPLICATIONS, Application
from trainer.networks.cut import Cut, cut_off, freeze_statistics
from trainer.networks.heads import build_head
from trainer.networks.network import Network
from trainer.networks.weights import backbone, content_sha256

FINE_TUNING_RATE: Final = 0.1
"""Of the rate of the head: what was learned from many photographs is moved a little only."""


def profile_of(name: str) -> str:
    """The preprocess profile whose tensors a network takes. Raises `UsageError`."""
    if name == "tiny":
        return tiny.PROFILE
    return _application(name).profile


def build(
    name: str,
    *,
    weights: str,
    classes: int,
    seed: int,
    alpha: float | None = None,
    fine_tune: int = 0,
    head: str | None = None,
) -> Network:
    """A network with the given weights: `random`, `imagenet` or the path of an .h5 file.

    `alpha` is the width of a MobileNet (None: from the file, or 1); `fine_tune` the number of
    layers at the end of the backbone that are trained with the head; `head` is one of
    `heads.HEADS`, None the network's own. The same arguments give the same weights on every
    worker. Raises `WeightsError`, and `UsageError` for what no network can have.
    """
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    keras.utils.set_random_seed(seed)
    if name == "tiny":
        tail = tiny.backbone()
        shape = tail.output_shape[1:]
        return Network(
            name=name,
            base=None,
            tail=tail,
            head=build_head(head or tiny.HEAD, shape, classes, seed=seed),
            tail_rate=1.0,
            profile=tiny.PROFILE,
            weights_sha256="",
            tail_layers=len(tail.operations) - 1,
        )
    application = _application(name)
    side = profile_named(application.profile).height
    model = backbone(name, weights=weights, alpha=alpha, side=side)
    cut = cut_off(model, fine_tune, name=name) if fine_tune else None
    base = _scaled(application, model if cut is None else cut.base, name)
    shape = model.output_shape[1:]
    return Network(
        name=name,
        base=base,
        tail=_tail(application, cut, name),
        head=build_head(head or application.head, shape, classes, seed=seed),
        tail_rate=FINE_TUNING_RATE,
        profile=application.profile,
        weights_sha256=_sha256(name, base, cut),
        tail_layers=0 if cut is None else cut.layers,
    )


def _application(name: str) -> Application:
    if name not in APPLICATIONS:
        raise UsageError(f"--network must be one of tiny, {', '.join(APPLICATIONS)}, got {name!r}")
    return APPLICATIONS[name]


def _scaled(application: Application, model: Any | None, name: str) -> Any | None:
    """The frozen base with its scaling before it."""
    if model is None:
        return None
    joined = _with_scaling(application, model, name)
    joined.trainable = False
    return joined


def _tail(application: Application, cut: Cut | None, name: str) -> Any | None:
    if cut is None:
        return None
    freeze_statistics(cut.tail)
    return _with_scaling(application, cut.tail, name) if cut.base is None else cut.tail


def _with_scaling(application: Application, model: Any, name: str) -> Any:
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    if not application.scales:
        return model
    images = keras.Input(model.input_shape[1:], name="images")
    scaling = keras.layers.Rescaling(application.scale, application.offset)
    return keras.Model(images, model(scaling(images)), name=f"scaled_{name}")


def _sha256(name: str, base: Any | None, cut: Cut | None) -> str:
    if base is None:
        return ""
    return content_sha256(base, name, "" if cut is None else cut.layer)
