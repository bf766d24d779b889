"""The settings of a retraining: one TOML file with the tables data, fit, gate and retrain."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from dicomnode import config as node_config
from dicomnode.config import StorageSettings
from dicomnode.errors import ConfigError
from trainer import gate
from trainer.config import FitConfig, load_fit
from trainer.errors import UsageError

_TABLES: Final = ("data", "fit", "gate", "retrain", "experiment", "cluster")
"""`cluster` is read by `trainer submit`, `experiment` by people."""


_LONGEST_WAIT_SECONDS: Final = 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Table ``[retrain]``."""

    runs: Path = Path("retraining")
    """Where each run leaves its folder; all workers must see it."""
    keep_runs: int = 24
    """Older run folders are removed."""
    minimum_new_films: int = 1
    """Fewer films that are new, relabelled or gone since the newest version: nothing to do."""
    wait_seconds: float = 3600.0
    """How long a worker waits for the chief's snapshot."""


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """Everything that a retraining is told."""

    storage: StorageSettings | None
    """The node's store, whose films and labels are used; or"""
    location: Path | None
    """a folder or manifest. Exactly one of the two is given."""
    fit: FitConfig
    policy: gate.Policy
    run: RunSettings
    sha256: str
    """Of what decides about the result: the tables data, fit and gate."""


def load(path: Path) -> RetrainSettings:
    """Read and check a retraining file; relative paths are taken from its folder.

    Raises `UsageError` that names what is wrong.
    """
    tables = _read(path)
    folder = path.resolve().parent
    sources = _table(tables, "data", ("node", "location"))
    if len(sources) != 1:
        raise UsageError(
            f"{path}: [data] must have either node (the node's settings file) or location "
            f"(a folder or manifest.csv), got {', '.join(sources) or 'neither'}"
        )
    found = {name: folder / str(value) for name, value in sources.items()}
    for name, target in found.items():
        if not target.exists():
            raise UsageError(f"{path}: data.{name} is {target}, which does not exist")
    fit = load_fit(
        path, {"data": found.get("location", folder), **_anchored(tables.get("fit", {}), folder)}
    )
    return RetrainSettings(
        storage=_storage(found["node"]) if "node" in found else None,
        location=found.get("location"),
        fit=fit,
        policy=gate.policy_from(_table(tables, "gate")),
        run=_run_settings(_table(tables, "retrain"), folder),
        sha256=_digest({name: tables.get(name) for name in ("data", "fit", "gate")}),
    )


def _storage(path: Path) -> StorageSettings:
    try:
        return node_config.load(path).storage
    except ConfigError as error:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in error.problems)) from error


def _anchored(table: Any, folder: Path) -> dict[str, Any]:
    """The paths of [fit], taken from the file's folder."""
    table = table if isinstance(table, dict) else {}
    paths = {name: table[name] for name in ("out", "work") if isinstance(table.get(name), str)}
    weights = table.get("weights")
    if isinstance(weights, str) and weights not in ("random", "imagenet"):
        return {"weights": str(folder / weights), **{n: folder / v for n, v in paths.items()}}
    return {name: folder / value for name, value in paths.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    for name in tables:
        if name not in _TABLES:
            raise UsageError(f"{path}: {_unknown(name, _TABLES)}")
    return tables


def _table(
    tables: dict[str, Any], name: str, known: tuple[str, ...] | None = None
) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"[{name}] must be a table, got {table!r}")
    for key in table:
        if known is not None and key not in known:
            raise UsageError(_unknown(key, known, prefix=f"{name}."))
    return table


def _run_settings(table: dict[str, Any], folder: Path) -> RunSettings:
    known = {field.name: field for field in fields(RunSettings)}
    for key, value in table.items():
        if key not in known:
            raise UsageError(_unknown(key, tuple(known), prefix="retrain."))
        if key in ("keep_runs", "minimum_new_films") and not (type(value) is int and value > 0):
            raise UsageError(f"retrain.{key} must be a whole number above 0, got {value!r}")
        if key == "wait_seconds" and not (
            type(value) in (int, float) and 0 < value <= _LONGEST_WAIT_SECONDS
        ):
            raise UsageError(
                f"retrain.{key} must be a number above 0 and at most {_LONGEST_WAIT_SECONDS}, "
                f"got {value!r}"
            )
        if key == "runs" and not (isinstance(value, str) and value):
            raise UsageError(f"retrain.{key} must be a path, got {value!r}")
    settings = RunSettings(**(table | {"runs": Path(table.get("runs", RunSettings.runs))}))
    return replace(settings, runs=folder / settings.runs)


def _unknown(name: str, known: tuple[str, ...], *, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{prefix}{name} is not a setting; {hint}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
