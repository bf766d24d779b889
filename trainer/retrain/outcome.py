"""What a run came to, also one that was started before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from trainer import registry
from trainer.errors import NothingToDo
from trainer.retrain import runs, snapshot
from trainer.retrain.settings import RetrainSettings


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to. `worker`: this process was not the chief and decided nothing."""

    outcome: Literal["published", "refused", "worker"]
    run: str
    folder: Path
    version: int | None = None
    """The version that was published."""
    compared_with: int | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}


def ended(settings: RetrainSettings, run: str) -> Outcome | None:
    """The outcome of a run that has published already; None of one that is not decided.

    A Job may start its chief again after the decision: what was published stays a success,
    and a refusal is not worth another training. Raises `NothingToDo`.
    """
    folder = settings.run.runs / run
    told = decision(settings, folder)
    if told is None:
        return None
    if told["outcome"] == "published" and settings.fit.strategy == "kubernetes":
        return Outcome(outcome="published", run=run, folder=folder, version=told["version"])
    raise NothingToDo(
        f"the run {run} is over ({told['outcome']}), see {folder}; give another --run NAME"
    )


def decision(settings: RetrainSettings, folder: Path) -> dict[str, Any] | None:
    """What a run came to, for chief and workers alike; None while it is not decided."""
    return runs.decision(folder) or _undecided(settings.fit.out, folder)


def _undecided(base: Path, folder: Path) -> dict[str, Any] | None:
    """The version that a run published before it died and could write its decision.

    Without this look the run would be held against its own version, and publish it twice.
    """
    newest = max(registry.versions(base), default=None)
    if newest is None or not (folder / runs.SNAPSHOT).is_file():
        return None
    gate = (registry.read_card(base, newest).model_extra or {}).get("gate") or {}
    same = (gate.get("run"), gate.get("films_sha256")) == (folder.name, films_sha256(folder))
    return {"outcome": "published", "version": newest} if same else None


def films_sha256(folder: Path) -> str:
    """Of the digests and labels of a run's snapshot."""
    return snapshot.read(folder / runs.SNAPSHOT).sha256
