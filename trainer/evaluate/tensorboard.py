"""A run's figures as TensorBoard event files, written by tensorflow itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from trainer.errors import StorageFull, TrainerError
from trainer.evaluate.assessment import Assessment
from trainer.evaluate.history import epochs_of

_SCALAR: Final = 1
"""DATA_CLASS_SCALAR of tensorboard's summary.proto ..."""
_TENSOR: Final = 2
"""... and DATA_CLASS_TENSOR."""


def write_tensorboard(folder: Path, history: Sequence[Any], assessment: Assessment) -> None:
    """Scalars `epoch/...` per epoch of `history` and `test/...` of the assessment, in `folder`.

    Needs tensorflow, not the tensorboard package. Raises `StorageFull`, `TrainerError`.
    """
    import tensorflow as tf  # noqa: PLC0415 - takes seconds to import

    epochs = epochs_of(history)
    last = int(epochs[-1].get("number", len(epochs))) if epochs else 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            for place, epoch in enumerate(epochs, start=1):
                step = int(epoch.get("number", place))
                for name, value in epoch.items():
                    if name != "number":
                        _scalar(tf, f"epoch/{name}", value, step)
            for name, value in _final(assessment).items():
                _scalar(tf, f"test/{name}", value, last)
            note = f"{assessment.threshold_rule}; {assessment.confounding.sentence}"
            about = _plugin(tf, "text", _TENSOR)
            tf.summary.write("test/about", tf.constant(note), step=last, metadata=about)
        writer.close()
    except tf.errors.ResourceExhaustedError as error:
        raise StorageFull(f"no space left for the event files in {folder}") from error
    except (OSError, tf.errors.OpError) as error:
        raise TrainerError(f"cannot write event files to {folder}") from error


def _scalar(tf: Any, name: str, value: float, step: int) -> None:
    """`tf.summary.scalar` would do, but wants the tensorboard package for this one record."""
    metadata = _plugin(tf, "scalars", _SCALAR)
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)


def _plugin(tf: Any, name: str, data_class: int) -> Any:
    return tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=name),
        data_class=data_class,
    )


def _final(assessment: Assessment) -> dict[str, float]:
    figures = {
        name: figure["value"]
        for name, figure in assessment.metrics.items()
        if "value" in figure and figure["value"] is not None
    }
    return figures | {"threshold": assessment.threshold, "temperature": assessment.temperature}
