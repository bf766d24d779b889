"""`trainer evaluate`."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dicomnode.modelcard import ModelCard
from trainer import registry
from trainer.errors import NothingToDo, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.data import Case, Films
    from trainer.evaluate import Assessment, SourceCounts

_IN_MEMORY: Final = 4000
"""Films (50 KB each) that are held in memory; more of them go to a nameless scratch file."""


class Part(enum.Enum):
    """Which films of the folder."""

    ALL = "all"
    TEST = "test"


def evaluate(
    model: Annotated[
        Path, typer.Option(help="A version's folder, or a model directory (its newest version).")
    ],
    data: Annotated[
        Path, typer.Option(help="A folder per class, or with manifest.csv, or a manifest.")
    ],
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html and its pictures there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value, for scripts.")] = False,
    prevalence: Annotated[
        float | None,
        typer.Option(metavar="P", help="Of the finding where PPV and NPV should hold, 0 to 1."),
    ] = None,
    part: Annotated[
        Part, typer.Option(help="all that the model did not learn from, or its own test part.")
    ] = Part.ALL,
    include_training: Annotated[
        bool, typer.Option("--include-training", help="Keep the films that it learned from.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a film that cannot be used.")
    ] = False,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over patients.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 42,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Ask a published version about labelled films, and say how good its answers are.

    Films that the version learned from are left out, as far as it says which they were.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from trainer import data as sources
    from trainer import evaluate as program
    from trainer.evaluate import assessment, served

    assessment.require_prevalence(prevalence)
    folder = _version_folder(model)
    card = served.read_card(folder)
    cases = sources.read_cases(data)
    served.require_labels(card, cases)
    with _bars(quiet=as_json) as bar:
        chosen = _chosen(cases, folder, card, part, include_training, bar("hash"))
        if not chosen.cases:
            raise NothingToDo(
                f"no film of {data} is left to evaluate on: {'; '.join(chosen.remarks)}"
            )
        scratch = Path(tempfile.gettempdir()) if len(chosen.cases) > _IN_MEMORY else None
        films = sources.load(
            chosen.cases,
            card.preprocess_profile,
            strict=strict,
            scratch=scratch,
            progress=bar("films"),
        )
        answers = served.predict_version(
            folder, films, batch_size=batch_size, progress=bar("answers")
        )
    told = program.judge(
        answers,
        threshold=card.threshold.value,
        threshold_rule=card.threshold.rule,
        prevalence=prevalence,
        resamples=resamples,
        seed=seed,
        training=chosen.training,
    )
    if report is not None:
        program.write_report(
            report,
            title=f"{card.model_name} version {card.model_version}: evaluation",
            card=card,
            assessment=told,
            skipped=films.skipped,
            notes=chosen.remarks,
            held_out=chosen.held_out,
        )
    if as_json:
        typer.echo(json.dumps(_entry(card, folder, chosen, films, told), indent=2, allow_nan=False))
    else:
        _say(card, chosen, films, told, report)


# ------------------------------------------------------------------------------ which films


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The films to evaluate on, and what is to be said about the choice."""

    cases: tuple[Case, ...]
    remarks: tuple[str, ...]
    held_out: bool | None
    """The model learned from none of them; None: nobody knows."""
    left_out: dict[str, int]
    training: SourceCounts | None = None
    """Positive and negative films per source that it was trained on, when all are here."""


def _version_folder(model: Path) -> Path:
    if (model / "saved_model.pb").is_file():
        return model
    newest = max(registry.versions(model), default=None)
    if newest is None:
        raise RegistryError(
            f"{model} is neither a version (no saved_model.pb) nor a model directory with "
            "versions; `trainer fit --out DIR` publishes one"
        )
    return model / str(newest)


def _chosen(
    cases: Sequence[Case],
    folder: Path,
    card: ModelCard,
    part: Part,
    include_training: bool,
    progress: Callable[[int, int], None],
) -> Chosen:
    used = registry.used_films(folder)
    if used is None:
        if part is Part.TEST:
            raise RegistryError(
                f"{folder} does not say which films were its test part "
                f"(no {registry.TRAINING_MANIFEST_PATH}); use --part all"
            )
        remark = "the version does not say which films it learned from; some may be among these"
        return Chosen(cases=tuple(cases), remarks=(remark,), held_out=None, left_out={})
    known = [used.get(digest) for digest in _digests(cases, progress)]
    learned = [film is not None and film.learned_from for film in known]
    patients = {case.patient for case, is_in in zip(cases, learned, strict=True) if is_in}
    related = [
        case.patient in patients and not is_in for case, is_in in zip(cases, learned, strict=True)
    ]
    counts = {"learned_from": sum(learned), "same_patients": sum(related)}
    relabelled = sum(
        film is not None and film.label != case.label
        for film, case in zip(known, cases, strict=True)
    )
    remarks = [f"{relabelled} films had another label in the training"] if relabelled else []
    if part is Part.TEST:
        kept = [film is not None and not film.learned_from for film in known]
        others = len(cases) - sum(kept)
        remarks.append(f"left out: {others} films that are not of the version's test part")
        shared = sum(one and other for one, other in zip(kept, related, strict=True))
        if shared:
            remarks.append(f"{shared} of the films are of patients that the model learned from")
        counts = {"not_of_the_test_part": others}
        held_out = not shared
    elif include_training:
        kept = [True] * len(cases)
        remarks.append(
            f"the model learned from {counts['learned_from']} of these {len(cases)} films: the "
            "figures flatter it and are no evaluation"
        )
        counts, held_out = {"learned_from": 0, "same_patients": 0}, not any(learned)
    else:
        kept = [not one and not other for one, other in zip(learned, related, strict=True)]
        remarks.append(
            f"left out: {counts['learned_from']} films that the model learned from, and "
            f"{counts['same_patients']} others of the same patients"
        )
        held_out = True
    return Chosen(
        cases=tuple(case for case, keep in zip(cases, kept, strict=True) if keep),
        remarks=tuple(remarks),
        held_out=held_out,
        left_out=counts,
        training=_trained_on(cases, known, used, card.positive_class),
    )


def _trained_on(
    cases: Sequence[Case],
    known: Sequence[registry.UsedFilm | None],
    used: dict[str, registry.UsedFilm],
    positive_class: str,
) -> SourceCounts | None:
    """Per source; None when films of the training part are missing here."""
    from trainer.evaluate import source_counts

    found = [
        case
        for case, film in zip(cases, known, strict=True)
        if film is not None and film.part == "training"
    ]
    listed = sum(film.part == "training" for film in used.values())
    return source_counts(found, positive_class) if found and len(found) >= listed else None


def _digests(cases: Sequence[Case], progress: Callable[[int, int], None]) -> Iterator[str]:
    """sha256 of each file; empty for one that cannot be read, which `load` will list."""
    for done, case in enumerate(cases, start=1):
        try:
            with case.path.open("rb") as stream:
                yield hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            yield ""
        progress(done, len(cases))


# ------------------------------------------------------------------------------- to the user


@contextmanager
def _bars(*, quiet: bool) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Bars on standard error, where it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not sys.stderr.isatty()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=hidden
    ) as progress:

        def bar(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield bar


def _entry(
    card: ModelCard, folder: Path, chosen: Chosen, films: Films, told: Assessment
) -> dict[str, Any]:
    return {
        "model": {
            "name": card.model_name,
            "version": card.model_version,
            "folder": str(folder),
            "device_uid": card.device_uid,
        },
        "held_out": chosen.held_out,
        "left_out": chosen.left_out,
        "remarks": list(chosen.remarks),
        "skipped": [asdict(film) for film in films.skipped],
        "assessment": told.to_json(),
    }


def _say(
    card: ModelCard, chosen: Chosen, films: Films, told: Assessment, report: Path | None
) -> None:
    from trainer.evaluate import text

    typer.echo(
        f"{card.model_name} version {card.model_version}, {card.network}: investigational, not "
        "for diagnostic use"
    )
    for line in text.lines(told):
        typer.echo(line)
    for remark in (*chosen.remarks, *told.notes):
        typer.echo(f"note: {remark}")
    for film in films.skipped:
        typer.echo(f"skipped: {film.name}: {film.why}")
    if report is not None:
        typer.echo(f"report: {report / 'report.html'}")
