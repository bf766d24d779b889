"""The file that `trainer submit` reads: where to run, and what."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.config import FitConfig
from trainer.errors import UsageError

CONFIG_MOUNT: Final = PurePosixPath("/etc/trainer")
"""Where a worker finds the file that says what to run."""
TMP_MOUNT: Final = PurePosixPath("/tmp")  # noqa: S108 - the worker's own, an emptyDir

_TABLES: Final = ("cluster", "fit", "experiment", "data", "gate", "retrain")
_OF_A_RETRAINING: Final = ("data", "gate", "retrain")
_FIT_KEYS: Final = frozenset(field.name for field in dataclasses.fields(FitConfig))

Command = Literal["fit", "retrain"]

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""An RFC 1123 label."""
ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Whole = Annotated[int, Field(strict=True)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Table):
    """A PersistentVolumeClaim, or a folder of it, as the workers see it."""

    claim: ObjectName
    """The claim's name. With several workers on several machines its access mode must be
    ReadWriteMany (or ReadOnlyMany with `read_only`)."""
    mount: str
    """The absolute path at which the workers find it."""
    sub_path: str = ""
    """A folder of the claim; empty is all of it."""
    read_only: bool = False


class ClusterSettings(_Table):
    """Where and how the workers run. The defaults fit boards with 4 GB, such as a Jetson Nano."""

    image: str = Field(min_length=1, pattern=r"^\S+$")
    """The trainer's image."""
    namespace: Label = "dicomnode"
    workers: Whole = Field(default=1, ge=1, le=64)
    """Processes that train together, one a pod."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """IfNotPresent needs no registry once a machine has the image: there may be no internet."""
    cpu: Quantity = "2"
    """Cores that a worker asks for. It may use more where there is more: no limit is set."""
    memory: Quantity = "2500Mi"
    """Memory of a worker, asked for and not exceeded. The VGG16 recipe stays under 2 GB."""
    gpus: Whole = Field(default=0, ge=0)
    """`nvidia.com/gpu` of a worker."""
    runtime_class: ObjectName | Literal[""] = ""
    """The RuntimeClass, for instance `nvidia` on a Jetson. Workers are then also in the group
    `video` (44), to which a Jetson gives its GPU."""
    architecture: Literal["", "amd64", "arm64"] = ""
    """Only machines of this kind. Workers of two kinds round differently: their weights would
    not stay equal."""
    node_selector: dict[str, str] = {}
    """Labels that a machine must have."""
    spread: Literal["required", "preferred", "none"] = "preferred"
    """One worker a machine: always (boards: two workers do not fit into 4 GB), where possible,
    or as it comes."""
    service_account: ObjectName = "default"
    """The workers' account. It needs no rights and gets no token."""
    user: Whole = Field(default=10001, ge=1)
    """User and group id of the workers, and group of the volumes. Never root."""
    restarts: Whole = Field(default=3, ge=0, le=20)
    """How often all workers may start again, from the last checkpoint."""
    deadline_seconds: Whole = Field(default=43_200, ge=60)
    """The Job is ended after this time, whoever watches it."""
    start_seconds: Whole = Field(default=1_800, ge=1)
    """How long `trainer submit` waits until every worker has started once (images are pulled)."""
    keep_seconds: Whole = Field(default=86_400, ge=0)
    """An ended Job that nobody removed removes itself after this time."""
    claims: tuple[Claim, ...] = ()
    secret: ObjectName | Literal[""] = ""
    """A Secret whose keys become variables of the workers, for instance the
    DICOMNODE_STORAGE__DATABASE_URL that a retraining reads labels from."""
    kubeconfig: str = ""
    """Empty: KUBECONFIG, or ~/.kube/config; inside a pod, its service account."""
    context: str = ""
    """Of the kubeconfig; empty is its current one."""
    in_cluster: bool = False
    """Insist on the pod's service account."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        taken: list[PurePosixPath] = [CONFIG_MOUNT, TMP_MOUNT]
        for claim in self.claims:
            path = PurePosixPath(claim.mount)
            if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
                raise ValueError(f"claims: mount must be an absolute path, got {claim.mount!r}")
            if (
                PurePosixPath(claim.sub_path).is_absolute()
                or ".." in PurePosixPath(claim.sub_path).parts
            ):
                raise ValueError(f"claims: sub_path must be relative, got {claim.sub_path!r}")
            for other in taken:
                if path.is_relative_to(other) or other.is_relative_to(path):
                    raise ValueError(f"claims: {path} and {other} are mounted over each other")
            taken.append(path)
        if self.in_cluster and (self.kubeconfig or self.context):
            raise ValueError("in_cluster and kubeconfig/context exclude each other")
        return self

    def claim_of(self, path: str) -> Claim | None:
        """The claim that a path of a worker lies on."""
        asked = PurePosixPath(path)
        if ".." in asked.parts:
            return None
        return next((each for each in self.claims if asked.is_relative_to(each.mount)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What the workers run: `trainer fit` or `trainer retrain` on a file of these tables."""

    command: Command
    tables: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubmitSettings:
    """The whole file."""

    cluster: ClusterSettings
    run: Run


def load(path: Path) -> SubmitSettings:
    """Read the file; raises `UsageError` with every mistake in it, one a line."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return parse(tables, path.name)


def parse(tables: dict[str, Any], name: str) -> SubmitSettings:
    """The settings of the tables of the file `name`; raises `UsageError`.

    [cluster] says where to run. The other tables are those of `trainer fit --config`, or with
    [data], [gate] or [retrain] those of `trainer retrain --config`; the workers get them.
    """
    problems = [
        f"{table} is not a table of this file{_nearest(table, _TABLES)}"
        for table in tables
        if table not in _TABLES
    ]
    problems += [
        f"{table} must be a table, got {value!r}"
        for table, value in tables.items()
        if not isinstance(value, dict)
    ]
    if problems:
        raise _wrong(name, problems)
    cluster, problems = _cluster(tables.get("cluster"))
    if cluster is None:
        raise _wrong(name, problems)
    command: Command = "retrain" if any(table in tables for table in _OF_A_RETRAINING) else "fit"
    run = {table: dict(value) for table, value in tables.items() if table != "cluster"}
    problems = _strategy(run.setdefault("fit", {}), cluster)
    problems += [
        f"fit.{key} is not a setting{_nearest(key, _FIT_KEYS)}"
        for key in run["fit"]
        if key not in _FIT_KEYS
    ]
    for place in _places(command, run):
        problems += place.problems(cluster)
    if problems:
        raise _wrong(name, problems)
    return SubmitSettings(cluster=cluster, run=Run(command=command, tables=run))


def _wrong(name: str, problems: list[str]) -> UsageError:
    return UsageError("\n".join(f"{name}: {problem}" for problem in problems))


def _cluster(table: Any) -> tuple[ClusterSettings | None, list[str]]:
    if table is None:
        return None, ["[cluster] is missing; it says where to run, at least `image`"]
    try:
        return ClusterSettings.model_validate(table), []
    except ValidationError as error:
        return None, [_said(problem) for problem in error.errors(include_url=False)]


def _said(problem: Any) -> str:
    place = ".".join(("cluster", *map(str, problem["loc"])))
    match problem["type"]:
        case "extra_forbidden":
            fields = Claim.model_fields if "claims" in place else ClusterSettings.model_fields
            return f"{place} is not a setting{_nearest(str(problem['loc'][-1]), fields)}"
        case "missing":
            return f"{place} is missing"
        case "value_error":
            return f"cluster.{problem['ctx']['error']}"
    return f"{place}: {problem['msg']}, got {problem['input']!r}"


def _nearest(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _strategy(fit: dict[str, Any], cluster: ClusterSettings) -> list[str]:
    """One worker trains alone; several find each other by what the manifest tells them."""
    strategy = "kubernetes" if cluster.workers > 1 else "local"
    if fit.setdefault("strategy", strategy) not in ("kubernetes", strategy):
        return [f"fit.strategy must be kubernetes here, got {fit['strategy']!r}"]
    return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """A path inside the workers."""

    key: str
    path: Any
    written: bool
    implied: bool = False
    """The program's default, when the key is not given."""

    def problems(self, cluster: ClusterSettings) -> list[str]:
        if self.path is None:
            return [f"{self.key} is missing"]
        if not isinstance(self.path, str) or not PurePosixPath(self.path).is_absolute():
            return [f"{self.key} must be an absolute path inside the workers, got {self.path!r}"]
        named = f"{self.key} {self.path}{' (the default)' if self.implied else ''}"
        claim = cluster.claim_of(self.path)
        if claim is None:
            mounts = ", ".join(claim.mount for claim in cluster.claims) or "none"
            return [f"{named} lies on no claim (mounted: {mounts}); add it to cluster.claims"]
        if self.written and claim.read_only:
            return [f"{named} is written to, and the claim {claim.claim} is read_only"]
        return []


def _places(command: Command, run: dict[str, Any]) -> list[_Place]:
    """What must lie on claims: everything else of a worker is read-only, or goes with it."""
    fit, data, retrain = (run.get(table, {}) for table in ("fit", "data", "retrain"))
    places = [_Place(key="fit.out", path=fit.get("out"), written=True)]
    if "work" in fit:
        places.append(_Place(key="fit.work", path=fit["work"], written=True))
    if command == "fit":
        places.append(_Place(key="fit.data", path=fit.get("data"), written=False))
        places.append(_report(fit))
        return places
    source = next((key for key in ("node", "location") if key in data), "location")
    places.append(_Place(key=f"data.{source}", path=data.get(source), written=False))
    places.append(_Place(key="retrain.runs", path=retrain.get("runs"), written=True))
    return places


def _report(fit: dict[str, Any]) -> _Place:
    if "report" in fit or not isinstance(fit.get("out"), str):
        return _Place(key="fit.report", path=fit.get("report", fit.get("out")), written=True)
    beside = f"{fit['out'].rstrip('/')}-reports"
    return _Place(key="fit.report", path=beside, written=True, implied=True)
