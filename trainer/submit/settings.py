"""The file that `trainer submit` reads: where to run, and what."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.config import FitConfig
from trainer.errors import UsageError

CONFIG_MOUNT: Final = PurePosixPath("/etc/trainer")
"""Where a worker finds the file that says what to run."""
TMP_MOUNT: Final = PurePosixPath("/tmp")  # noqa: S108 - the worker's own, an emptyDir

_FIT_PATHS: Final = ("data", "out", "work", "report")
_FIT_KEYS: Final = frozenset(field.name for field in dataclasses.fields(FitConfig)) | {
    "work",
    "report",
    "strategy",
}

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""An RFC 1123 label."""
ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
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
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that train together, one a pod."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """IfNotPresent needs no registry once a machine has the image: there may be no internet."""
    cpu: Quantity = "2"
    """Cores that a worker asks for. It may use more where there is more: no limit is set."""
    memory: Quantity = "2500Mi"
    """Memory of a worker, asked for and not exceeded. The VGG16 recipe stays under 2 GB."""
    gpus: int = Field(default=0, ge=0)
    """`nvidia.com/gpu` of a worker."""
    runtime_class: ObjectName | Literal[""] = ""
    """The RuntimeClass, for instance `nvidia` on a Jetson."""
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
    user: int = Field(default=10001, ge=1)
    """User and group id of the workers, and group of the volumes. Never root."""
    restarts: int = Field(default=3, ge=0, le=20)
    """How often all workers may start again, from the last checkpoint."""
    deadline_seconds: int = Field(default=43_200, ge=60)
    """The Job is ended after this time, whoever watches it."""
    start_seconds: int = Field(default=1_800, ge=1)
    """How long `trainer submit` waits until every worker has started once (images are pulled)."""
    keep_seconds: int = Field(default=86_400, ge=0)
    """An ended Job that nobody removed removes itself after this time."""
    claims: tuple[Claim, ...] = ()
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
        for claim in self.claims:
            if PurePosixPath(path).is_relative_to(claim.mount):
                return claim
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What the workers run: `trainer fit` or `trainer retrain` on a file of these tables."""

    command: Literal["fit", "retrain"]
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
    """The settings of the tables of the file `name`; raises `UsageError`."""
    unknown = sorted(set(tables) - {"cluster", "fit", "retrain"})
    problems = [
        f"{name}: [{table}] is not a table of this file; expected [cluster], and [fit] or [retrain]"
        for table in unknown
    ]
    cluster, wrong = _cluster(tables.get("cluster"))
    problems += [f"{name}: {problem}" for problem in wrong]
    runs = [table for table in ("fit", "retrain") if table in tables]
    if len(runs) != 1:
        found = " and ".join(f"[{table}]" for table in runs) or "neither"
        problems.append(f"{name}: found {found}; expected [fit] or [retrain], what to run")
    if problems or cluster is None:
        raise UsageError("\n".join(problems))
    (command,) = runs
    run, wrong = (_fit if command == "fit" else _retrain)(tables[command], cluster)
    if wrong:
        raise UsageError("\n".join(f"{name}: {problem}" for problem in wrong))
    return SubmitSettings(cluster=cluster, run=run)


def _cluster(table: Any) -> tuple[ClusterSettings | None, list[str]]:
    if not isinstance(table, dict):
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


def _nearest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _fit(table: Any, cluster: ClusterSettings) -> tuple[Run, list[str]]:
    table = dict(table) if isinstance(table, dict) else {}
    problems = [
        f"fit.{key} is not a setting{_nearest(key, _FIT_KEYS)}"
        for key in table
        if key not in _FIT_KEYS
    ]
    problems += [f"fit.{key} is missing" for key in ("data", "out") if key not in table]
    if cluster.workers > 1 and "work" not in table:
        problems.append(
            f"fit.work is missing; {cluster.workers} workers share features and checkpoints there, "
            "on a claim that all of them mount"
        )
    for key in _FIT_PATHS:
        if key in table:
            problems += _misplaced(f"fit.{key}", table[key], cluster, written=key != "data")
    strategy = "kubernetes" if cluster.workers > 1 else "local"
    if table.setdefault("strategy", strategy) not in ("kubernetes", strategy):
        problems.append(f"fit.strategy must be kubernetes here, got {table['strategy']!r}")
    return Run(command="fit", tables={"fit": table}), problems


def _retrain(table: Any, cluster: ClusterSettings) -> tuple[Run, list[str]]:
    del cluster
    if not isinstance(table, dict) or not table:
        return Run(command="retrain", tables={}), [
            "[retrain] is empty; it holds the tables of `trainer retrain --config`"
        ]
    return Run(command="retrain", tables=table), []


def _misplaced(key: str, path: Any, cluster: ClusterSettings, *, written: bool) -> list[str]:
    if not isinstance(path, str) or not re.match("/", path):
        return [f"{key} must be an absolute path inside the workers, got {path!r}"]
    claim = cluster.claim_of(path)
    if claim is None:
        mounts = ", ".join(claim.mount for claim in cluster.claims) or "none"
        return [f"{key} {path} lies on no claim (mounted: {mounts}); add one to cluster.claims"]
    if written and claim.read_only:
        return [f"{key} {path} is written to, and the claim {claim.claim} is read_only"]
    return []
