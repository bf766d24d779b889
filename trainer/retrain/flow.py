"""One retraining from the first look to the decision. See `trainer.retrain`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomnode.modelcard import CARD_PATH, ModelCard
from trainer import data, evaluate, fit, registry
from trainer.cluster import ClusterSpec
from trainer.errors import NothingToDo, TrainerError, UsageError
from trainer.fit.storage import require_writable, space_required
from trainer.retrain import runs, snapshot
from trainer.retrain.judgement import Judgement, judge
from trainer.retrain.outcome import Outcome, decision, ended, films_sha256
from trainer.retrain.settings import RetrainSettings

Progress = Callable[[str, dict[str, Any]], None]


def retrain(
    settings: RetrainSettings,
    progress: Progress,
    *,
    run: str | None = None,
    force: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Outcome:
    """Train on what there is now, and publish what passes the gate.

    `run` names the run; the workers of one run must all give the same name (in a Kubernetes
    Job it is the Job's). Without `force` a run that would see nothing new raises
    `NothingToDo`. Raises the errors of `trainer.errors`; nothing is published then.
    """
    spec = ClusterSpec.from_environment(settings.fit.strategy, environ)
    run = runs.name(run or _run_name(settings.fit.strategy, environ))
    if not spec.is_chief:
        return _work(settings, run, progress)
    require_writable(settings.run.runs, settings.fit.out)
    _require_card(settings.fit.out)
    with runs.alone(settings.run.runs), space_required(settings.run.runs):
        over = ended(settings, run)
        if over is not None:
            return over
        folder = _begin(settings, run, force=force, tell=spec.workers > 1, progress=progress)
        return _lead(settings, folder, progress)


def _require_card(base: Path) -> None:
    """What serves must say what it is, or an hour of training could not be judged."""
    newest = max(registry.versions(base), default=None)
    if newest is not None:
        registry.read_card(base, newest)


def _run_name(strategy: str, environ: Mapping[str, str]) -> str:
    if strategy == "local":
        return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if strategy == "kubernetes":
        return environ["DICOMNODE_JOB_NAME"]
    raise UsageError(
        f"with --strategy {strategy} all workers need the same --run NAME, another one each time"
    )


# -------------------------------------------------------------------------------- chief


def _begin(
    settings: RetrainSettings, run: str, *, force: bool, tell: bool, progress: Progress
) -> Path:
    """The run's folder with its snapshot. Raises `NothingToDo`."""
    folder = settings.run.runs / run
    if (folder / runs.SNAPSHOT).is_file():
        progress("resumed", {"run": run})
    else:
        runs.tidy(settings.run.runs, settings.run.keep_runs)
        _take(settings, folder, force=force, tell=tell)
    if tell:
        runs.tell_workers(folder, "train")
    return folder


def _take(settings: RetrainSettings, folder: Path, *, force: bool, tell: bool) -> None:
    """The run's folder comes to be with its snapshot: nothing new leaves none behind."""
    fresh = settings.run.runs / f".{runs.SNAPSHOT}"
    try:
        taken = snapshot.take(settings, fresh)
        if not force:
            _require_news(settings, taken)
        fresh.rename(runs.opened(settings.run.runs, folder.name) / runs.SNAPSHOT)
    except NothingToDo:
        if tell:
            runs.tell_workers(runs.opened(settings.run.runs, folder.name), "nothing_new")
        raise
    finally:
        fresh.unlink(missing_ok=True)


def _require_news(settings: RetrainSettings, taken: snapshot.Snapshot) -> None:
    base, least = settings.fit.out, settings.run.minimum_new_films
    changed = snapshot.changes(taken.labels, base)
    if changed is not None and changed < least:
        raise NothingToDo(
            f"{changed} films are new, gone or relabelled since version "
            f"{max(registry.versions(base))}, a retraining asks for {least} "
            "(retrain.minimum_new_films); --force trains all the same"
        )
    last = runs.last(settings.run.runs)
    now = (taken.sha256, settings.sha256)
    if last is not None and (last.films_sha256, last.settings_sha256) == now:
        raise NothingToDo(
            f"the last run ({last.run}: {last.outcome}) had the same films, labels and settings; "
            "--force trains all the same"
        )


def _lead(settings: RetrainSettings, folder: Path, progress: Progress) -> Outcome:
    taken = snapshot.read(folder / runs.SNAPSHOT)
    base = settings.fit.out
    with _trained(settings, taken, folder, progress) as candidate:
        judged = judge(candidate, base, settings.policy, progress)
        with space_required(base, folder):
            _report(folder, candidate, judged)
            version = _published(candidate, base, judged, folder)
    outcome = _outcome(folder, judged, version)
    try:
        _remember(settings, outcome, judged, taken)
    except OSError as error:
        said = "was refused" if version is None else f"is published and serves as {version}"
        raise TrainerError(
            f"the candidate {said}, but the decision could not be recorded in {folder}: "
            f"{error.strerror}"
        ) from error
    progress(outcome.outcome, {"version": version, "run": folder.name})
    return outcome


def _remember(
    settings: RetrainSettings, outcome: Outcome, judged: Judgement, taken: snapshot.Snapshot
) -> None:
    folder = outcome.folder
    runs.write_json(
        folder / runs.DECISION,
        outcome.to_json()
        | {"decided_at": _now(), "policy": settings.policy.model_dump()}
        | judged.decision.to_json(),
    )
    runs.remember(
        settings.run.runs,
        runs.Last(
            run=folder.name,
            outcome=outcome.outcome,
            films_sha256=taken.sha256,
            settings_sha256=settings.sha256,
        ),
    )


def _published(candidate: fit.Candidate, base: Path, judged: Judgement, folder: Path) -> int | None:
    """The new version's number; a refused candidate goes to the run's folder instead."""
    assert candidate.folder is not None, "only the chief decides, and it has the candidate"
    _record_in_card(candidate.folder, judged, folder)
    if judged.decision.verdict == "promote":
        return registry.publish_after(candidate.folder, base, judged.current_version)
    shutil.copytree(candidate.folder, folder / runs.CANDIDATE, dirs_exist_ok=True)
    return None


def _report(folder: Path, candidate: fit.Candidate, judged: Judgement) -> None:
    """The candidate's evaluation, with what the gate said of it."""
    said = "promoted" if judged.decision.verdict == "promote" else "refused"
    history = [asdict(epoch) for epoch in candidate.history]
    evaluate.write_tensorboard(folder, history, candidate.assessment)
    evaluate.write_report(
        folder,
        title=f"{candidate.card.model_name}, candidate of run {folder.name}: {said}",
        card=candidate.card,
        assessment=candidate.assessment,
        history=history,
        skipped=candidate.films.skipped,
        notes=[
            f"Gate: {said}.",
            *(f"{check.outcome}: {check.sentence}." for check in judged.decision.checks),
            *(f"{note}." for note in judged.notes),
        ],
    )


def _outcome(folder: Path, judged: Judgement, version: int | None) -> Outcome:
    return Outcome(
        outcome="refused" if version is None else "published",
        run=folder.name,
        folder=folder,
        version=version,
        compared_with=judged.current_version,
        reasons=judged.decision.reasons,
        warnings=judged.decision.warnings,
        notes=judged.notes,
    )


def _record_in_card(folder: Path, judged: Judgement, run: Path) -> None:
    """So that a version says for itself why it serves, and which run it came from."""
    path = folder / CARD_PATH
    card = ModelCard.from_json(path.read_bytes())
    told = {
        "run": run.name,
        "films_sha256": films_sha256(run),
        "compared_with": judged.current_version,
        "checks": [check.sentence for check in judged.decision.checks],
        "notes": list(judged.notes),
    }
    changed = {"gate": told, "parent_version": judged.current_version}
    path.write_text(card.model_copy(update=changed).to_json() + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ------------------------------------------------------------------------------ workers


def _work(settings: RetrainSettings, run: str, progress: Progress) -> Outcome:
    """Train along; the chief takes the snapshot before and decides afterwards."""
    folder, word = runs.await_chief(settings.run.runs, run, settings.run.wait_seconds)
    if word != "train":
        raise NothingToDo(f"the chief of run {run} found nothing new")
    if decision(settings, folder) is not None:  # started again after the others had ended
        return Outcome(outcome="worker", run=run, folder=folder)
    with _trained(settings, snapshot.read(folder / runs.SNAPSHOT), folder, progress):
        pass
    return Outcome(outcome="worker", run=run, folder=folder)


def _trained(
    settings: RetrainSettings, taken: snapshot.Snapshot, folder: Path, progress: Progress
) -> AbstractContextManager[fit.Candidate]:
    config = replace(settings.fit, data=folder / runs.SNAPSHOT)
    parts = data.held_out(
        taken.cases,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )
    return fit.trained(config, progress, cases=taken.cases, split=parts)
