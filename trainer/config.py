"""What a training run is told. One frozen record, validated once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.modelcard import Code
from trainer.errors import UsageError

NETWORKS: Final = ("tiny", "mobilenet", "mobilenet_v2", "vgg16")
"""`tiny` learns from scratch; the others are frozen backbones with the thesis head."""

FINDINGS: Final = {
    "covid19": Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
    "pneumonia": Code(value="233604007", scheme_designator="SCT", meaning="Pneumonia"),
}
"""What `--finding` knows: the code that the report gives to the positive class."""

PREPROCESS_PROFILE: Final = "unit-rgb-224/1"


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """One training run."""

    data: Path
    """A folder per class, or a folder with manifest.csv."""
    out: Path
    """The model directory; the new version appears under it as the next number."""
    network: str = "tiny"
    weights: str = "random"
    """`random`, `imagenet` (a download by Keras) or a .h5/.weights.h5 file."""
    alpha: float | None = None
    """Width of a MobileNet; None takes it from the file, or 1.0."""
    epochs: int = 25
    batch_size: int = 16
    learning_rate: float | None = None
    """None means 1e-3 for a head on frozen features, 3e-3 for `tiny`."""
    seed: int = 42
    positive_class: str = "positive"
    finding: str = "covid19"
    model_name: str = "covid19"
    test_fraction: float = 0.2
    """Of the patients, held out until the end."""
    validation_fraction: float = 0.2
    """Of the remaining patients; the threshold and the epoch are chosen on them."""
    profile: str = PREPROCESS_PROFILE

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        if self.network not in NETWORKS:
            problems.append(f"--network must be one of {', '.join(NETWORKS)}, got {self.network!r}")
        if self.finding not in FINDINGS:
            problems.append(f"--finding must be one of {', '.join(FINDINGS)}, got {self.finding!r}")
        if self.network == "tiny" and self.weights != "random":
            problems.append("--network tiny learns from scratch; use --weights random")
        if self.weights not in ("random", "imagenet") and not Path(self.weights).is_file():
            problems.append(
                f"--weights must be random, imagenet or a file, got {self.weights!r} (no such file)"
            )
        if not self.data.is_dir():
            problems.append(f"--data must be a folder, got {str(self.data)!r}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            problems.append(f"--learning-rate must be above 0, got {self.learning_rate}")
        problems += [
            f"--{name} must be at least 1, got {value}"
            for name, value in (("epochs", self.epochs), ("batch-size", self.batch_size))
            if value < 1
        ]
        return problems
