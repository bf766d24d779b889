"""What a training run is told. One frozen record, validated once, at the edge.

It is made of options, of the table [fit] of a TOML file, and of a recipe's values, in this
order of precedence (`fit_config`).
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from dicomnode.modelcard import Code
from trainer.errors import UsageError
from trainer.spelling import plain

NETWORKS: Final = (
    "tiny",
    "vgg16",
    "mobilenet",
    "mobilenet_v2",
    "efficientnet_b0",
    "xception",
    "densenet121",
)
"""`tiny` learns from scratch; the others are backbones of keras.applications."""

FINDINGS: Final = {
    "covid19": Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
    "pneumonia": Code(value="233604007", scheme_designator="SCT", meaning="Pneumonia"),
}
"""What `--finding` knows: the code that the report gives to the positive class."""

RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "thesis": {
        "network": "vgg16",
        "head": "thesis",
        "epochs": 25,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "test_fraction": 0.2,
        "seed": 42,
    },
}
"""What a recipe sets where nothing else was said. `thesis` also parts the films by image and
without a validation part, keeps the last epoch and the threshold at 0.5."""

WORK: Final = ".work"


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """One training run."""

    data: Path
    """A folder per class, a folder with manifest.csv, or a manifest."""
    out: Path
    """The model directory; the new version appears under it as the next number."""
    recipe: Literal["default", "thesis"] = "default"
    network: str = "vgg16"
    weights: str = "random"
    """`random`, `imagenet` (a download by Keras) or a .h5/.weights.h5 file."""
    alpha: float | None = None
    """Width of a MobileNet; None takes it from the file, or 1.0."""
    head: Literal["thesis", "pooled"] | None = None
    """None takes the network's own."""
    fine_tune: int = 0
    """How many layers at the end of the backbone are trained too, at a tenth of the rate."""
    augment: bool | None = None
    """Mirror and move the films of each epoch; None does so for `tiny` only. A frozen backbone
    then runs in every step: features cannot be kept."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the frozen part of the backbone computes with."""
    epochs: int = 25
    batch_size: int = 16
    """Over all workers."""
    learning_rate: float | None = None
    """None means 1e-3 for a head on a backbone, 3e-3 for `tiny`."""
    seed: int = 42
    """Of the split, the weights, the order, dropout and augmentation."""
    positive_class: str = "positive"
    finding: str = "covid19"
    model_name: str = "covid19"
    test_fraction: float = 0.2
    """Of the patients, held out until the end."""
    validation_fraction: float = 0.2
    """Of the remaining patients; the threshold and the epoch are chosen on them."""
    minimum_sensitivity: float | None = None
    """The threshold with the best specificity that reaches it on the validation part; None takes
    the largest Youden index."""
    prevalence: float | None = None
    """At which the predictive values are told; None means that of the test part."""
    strict: bool = False
    """A film that cannot be read ends the run; else it is listed and left out."""
    strategy: Literal["local", "direct", "kubernetes"] = "local"
    work: Path | None = None
    """Features and checkpoints, shared by all workers; None means OUT/.work."""
    report: Path | None = None
    """Where reports go, a folder per version; None means OUT-reports, beside OUT."""
    patience_seconds: float = 1800.0
    """How long a worker waits for another that lives and does nothing."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def rate(self) -> float:
        """The learning rate of what is new."""
        return self.learning_rate or (3e-3 if self.network == "tiny" else 1e-3)

    @property
    def augments(self) -> bool:
        return self.network == "tiny" if self.augment is None else self.augment

    @property
    def work_folder(self) -> Path:
        return self.work or self.out / WORK

    @property
    def report_folder(self) -> Path:
        out = self.out.resolve()
        return self.report or out.with_name(f"{out.name}-reports")

    def _problems(self) -> list[str]:
        problems = self._wrong_choices() + self._wrong_numbers()
        if self.network == "tiny" and self.weights != "random":
            problems.append("--network tiny learns from scratch; use --weights random")
        if self.network == "tiny" and self.fine_tune:
            problems.append("--network tiny is trained as a whole; leave --fine-tune out")
        if self.weights not in ("random", "imagenet") and not Path(self.weights).is_file():
            problems.append(
                f"--weights must be random, imagenet or a file, got {self.weights!r} (no such file)"
            )
        if self.recipe == "thesis" and self.minimum_sensitivity is not None:
            problems.append(
                "--recipe thesis has its threshold at 0.5; leave --minimum-sensitivity out"
            )
        if not (self.data.is_dir() or (self.data.suffix == ".csv" and self.data.is_file())):
            problems.append(
                f"--data must be a folder or the .csv of a manifest, got {str(self.data)!r}"
            )
        return problems

    def _wrong_choices(self) -> list[str]:
        choices = {
            "recipe": tuple(RECIPES),
            "network": NETWORKS,
            "finding": tuple(FINDINGS),
            "dtype": ("float32", "bfloat16"),
            "strategy": ("local", "direct", "kubernetes"),
        }
        if self.head is not None:
            choices["head"] = ("thesis", "pooled")
        return [
            f"--{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
            for name, known in choices.items()
            if getattr(self, name) not in known
        ]

    def _wrong_numbers(self) -> list[str]:
        rate, prevalence = self.learning_rate, self.prevalence
        problems = [
            f"--{name} must be at least {least}, got {value}"
            for name, least, value in (
                ("epochs", 1, self.epochs),
                ("batch-size", 1, self.batch_size),
                ("fine-tune", 0, self.fine_tune),
                ("seed", 0, self.seed),
                ("patience-seconds", 1, self.patience_seconds),
            )
            if value < least
        ]
        problems += [
            f"--{name} must lie between 0 and 1, got {value}"
            for name, value in (
                ("test-fraction", self.test_fraction),
                ("validation-fraction", self.validation_fraction),
                ("prevalence", prevalence),
                ("minimum-sensitivity", self.minimum_sensitivity),
            )
            if value is not None and not 0 < value < 1
        ]
        if rate is not None and not rate > 0:
            problems.append(f"--learning-rate must be above 0, got {rate}")
        return problems


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The table [experiment] of a card: what to expect of its run, for people."""

    name: str = ""
    data: str = ""
    expected_time: str = ""
    expected_score: str = ""
    command: str = ""


def load_fit(path: Path, overrides: Mapping[str, Any]) -> FitConfig:
    """The table [fit] of a TOML file; what `overrides` gives (not None) is stronger.

    Raises `UsageError` that names the file, the key and the nearest known one.
    """
    tables = _tables(path)
    if "experiment" in tables:
        _checked(Experiment, tables["experiment"], f"{path}: experiment")
    given = _checked(FitConfig, tables.get("fit", {}), f"{path}: fit")
    return fit_config({**given, **_given(overrides)}, origin=str(path))


def load_experiment(path: Path) -> Experiment:
    """The table [experiment] of a card. Raises `UsageError`."""
    values = _tables(path).get("experiment", {})
    return Experiment(**_checked(Experiment, values, f"{path}: experiment"))


def fit_config(values: Mapping[str, Any], *, origin: str = "the command") -> FitConfig:
    """A run from what was said; unsaid values are the recipe's, then the defaults. The model
    is named after its directory. Raises `UsageError`."""
    given = _given(values)
    for name in ("data", "out"):
        if name not in given:
            raise UsageError(f"{origin} does not say {name}; pass --{name} DIR")
    recipe = str(given.get("recipe", "default"))
    if "positive_class" in given:
        given["positive_class"] = plain(given["positive_class"])
    named = {"model_name": Path(given["out"]).resolve().name}
    return FitConfig(**{**named, **RECIPES.get(recipe, {}), **given})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _checked(record: type, values: Any, where: str) -> dict[str, Any]:
    """The values of a table in the types of a record's fields."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a table, got {values!r}")
    kinds = typing.get_type_hints(record)
    names = [field.name for field in fields(record)]
    found = {}
    for name, value in values.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
            raise UsageError(f"{where}.{name} is not a setting; {hint}")
        found[name] = _typed(kinds[name], value, f"{where}.{name}")
    return found


_WORDS: Final = {
    Path: "a path in quotes",
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def _typed(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is Literal:
        kind = str
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where} must be {_WORDS[kind]}, got {value!r}")
    return value
