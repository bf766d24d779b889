"""From films to a trained network and its predictions, over the workers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer import data, features, train
from trainer.cluster import Cluster
from trainer.config import FitConfig
from trainer.fit.card import library_versions
from trainer.fit.progress import Meter, Progress
from trainer.networks import Network

_DECISIVE: Final = (
    *("recipe", "network", "weights", "alpha", "head", "fine_tune", "dtype"),
    *("epochs", "batch_size", "seed"),
)
"""Fields of the configuration that decide what is learned (films, parts and initial weights
go into the identity by content)."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Uncalibrated probabilities float64 [N, classes] of the films in two parts."""

    validation: NDArray[np.float64]
    test: NDArray[np.float64]
    history: tuple[train.Epoch, ...]


def learn(
    config: FitConfig,
    network: Network,
    films: data.Films,
    parts: data.Split,
    labels: NDArray[np.int64],
    *,
    cluster: Cluster,
    checkpoint: train.Checkpoint,
    progress: Progress,
) -> Learned:
    """Train what is trainable of `network`, which then has the weights that are kept.

    With a base and without augmentation, all films become features once, and training goes
    through these. With augmentation the base runs in every step, and only the films that are
    judged become features. Without a base the network sees the films themselves.
    """
    thesis = config.recipe == "thesis"
    watched = parts.test if thesis else parts.validation
    base, live = network.base, network.base is not None and config.augments
    model = network.trainable
    if base is None:
        inputs_of = _films(films)
    else:
        needed = np.arange(len(films.cases))
        if live:
            needed = np.union1d(parts.validation, parts.test)
        rows = _features(config, network, films, needed, cluster, progress)
        if network.tail is None and not live:
            rows, model = _pooled(rows, network.head)
        inputs_of = _placed(rows, needed)
    seen = _films(films) if live else inputs_of
    history = train.train(
        model,
        train.Part(inputs=seen(parts.training), labels=labels[parts.training]),
        train.Part(inputs=inputs_of(watched), labels=labels[watched]),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.rate,
        seed=config.seed,
        decay="cosine" if network.name == "tiny" else "thesis",
        augment=config.augments,
        before=base if live else None,
        slow=() if network.tail is None else network.tail.trainable_variables,
        slow_rate=network.tail_rate,
        keep="last" if thesis else "best",
        cluster=cluster,
        checkpoint=checkpoint,
        on_resume=lambda epoch: progress("resumed", {"epoch": f"{epoch}/{config.epochs}"}),
        on_epoch=lambda epoch: progress("epoch", _told(epoch, config.epochs)),
    )

    def predicted(part: NDArray[np.intp]) -> NDArray[np.float64]:
        return train.predict(model, inputs_of(part), cluster=cluster)

    return Learned(
        validation=predicted(parts.validation),
        test=predicted(parts.test),
        history=tuple(history),
    )


def identity(config: FitConfig, network: Network, films: data.Films, parts: data.Split) -> str:
    """Hex, of everything that decides what the run learns: a checkpoint belongs to it.

    Not the number of workers: any number of them comes to the same.
    """
    told = {name: str(getattr(config, name)) for name in _DECISIVE}
    told |= {"rate": str(config.rate), "augments": str(config.augments)}
    told |= {"base": network.weights_sha256, **library_versions()}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for part, indices in vars(parts).items():
        lines = (f"{part} {films.digests[i]} {films.cases[i].label}\n" for i in indices)
        digest.update("".join(lines).encode())
    for weight in network.trainable.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:32]


def _films(films: data.Films) -> Callable[[NDArray[np.intp]], train.Inputs]:
    return lambda part: train.Selected(films.tensors, part)


def _features(
    config: FitConfig,
    network: Network,
    films: data.Films,
    needed: NDArray[np.intp],
    cluster: Cluster,
    progress: Progress,
) -> train.Inputs:
    """The features of the films `needed`, in their order."""
    base = network.base
    assert base is not None
    shape = tuple(int(side) for side in base.output_shape[1:])
    meter, started = Meter(progress, "features"), time.monotonic()
    rows = features.cached(
        base,
        train.Selected(films.tensors, needed),
        [films.digests[film] for film in needed],
        folder=config.work_folder / "features",
        space=features.Space(
            network=network.name,
            weights_sha256=network.weights_sha256,
            profile=network.profile,
            dtype=config.dtype,
            shape=shape,
        ),
        share=features.Share(
            index=cluster.index,
            workers=cluster.workers,
            total=cluster.sum,
            check=cluster.check,
            patience=config.patience_seconds,
        ),
        progress=meter,
    )
    progress(
        "features",
        {
            "films": len(rows),
            "computed": meter.done,
            "shape": list(shape),
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    return rows


def _pooled(rows: train.Inputs, head: Any) -> tuple[train.Inputs, Any]:
    """What the head makes of the features before anything is trained, and the rest of it."""
    constant, rest = features.parted(head)
    return (rows, head) if constant is None else (features.applied(constant, rows), rest)


def _placed(
    rows: train.Inputs, needed: NDArray[np.intp]
) -> Callable[[NDArray[np.intp]], train.Inputs]:
    """Rows of the films `needed`, to be asked for by the films' numbers."""
    return lambda part: train.Selected(rows, np.searchsorted(needed, part))


def _told(epoch: train.Epoch, epochs: int) -> dict[str, Any]:
    told = asdict(epoch)
    number = told.pop("number")
    return {"epoch": f"{number}/{epochs}"} | {name: round(told[name], 4) for name in told}
