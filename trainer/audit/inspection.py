"""All checks, in one pass over the films."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from threadpoolctl import threadpool_limits

from dicomnode.findings import Reason
from trainer import data
from trainer.audit import duplicates, looks
from trainer.audit.confounding import Confounding, confounding
from trainer.audit.findings import Finding, Kind, Mention
from trainer.audit.measure import Film, Unusable, measure
from trainer.errors import DataError

Flagged = dict[Kind, list[Mention]]

_REFUSALS: Final = {
    None: Kind.UNREADABLE,
    Reason.VIEW: Kind.NOT_FRONTAL,
    Reason.PIXEL_SIZE: Kind.TINY,
    Reason.CONTRAST: Kind.LOW_CONTRAST,
}
"""What the gate's reasons are called here; all others are `REFUSED`."""
_LOOKS: Final = {
    looks.Look.INVERTED: Kind.INVERTED,
    looks.Look.UPSIDE_DOWN: Kind.UPSIDE_DOWN,
    looks.Look.ON_SIDE: Kind.ON_SIDE,
    looks.Look.UNLIKE: Kind.UNLIKE,
}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found, and which films a cleaned set would do without."""

    cases: tuple[data.Case, ...]
    usable: int
    """Films that can be decoded and that the node would evaluate."""
    classes: dict[str, dict[str, int]]
    """Films and patients of each."""
    findings: tuple[Finding, ...]
    """The gravest first."""
    source: Confounding
    view: Confounding
    dropped: dict[str, tuple[Kind, str]]
    """Why a cleaned set leaves a film out, by its name; the first reason that applies."""
    compared: int
    """Pairs of similar films that were laid over each other."""

    @property
    def grave(self) -> bool:
        """Whether there is more than notes."""
        return any(finding.kind.severity != "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "films": len(self.cases),
            "usable": self.usable,
            "classes": self.classes,
            "findings": [finding.to_json() for finding in self.findings],
            "confounding": [self.source.to_json(), self.view.to_json()],
            "dropped": {name: kind.name.lower() for name, (kind, _) in self.dropped.items()},
            "pairs_compared": self.compared,
        }


def inspect(
    cases: Sequence[data.Case],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit the films. The same films give the same audit, whatever their order.

    Raises `DataError` when there is no film at all.
    """
    if not cases:
        raise DataError("there are no films to audit")
    cases = sorted(cases, key=lambda case: case.name)
    # the matrices are small: threads that wait for each other make them slower, not faster
    with threadpool_limits(1, user_api="blas"):
        films, unusable = measure(cases, workers=workers, progress=progress)
        same = duplicates.find(films)
    flagged: Flagged = defaultdict(list)
    _flag_unusable(flagged, unusable)
    _flag_each(flagged, films)
    _flag_duplicates(flagged, same.groups)
    _flag_patients(flagged, cases)
    source, view = confounding(cases, "source"), confounding(cases, "view")
    findings = [
        Finding(kind=kind, sentence=_sentence(kind, films), films=tuple(films))
        for kind, films in flagged.items()
    ]
    findings += _about_the_whole(cases, source, view, same)
    grades = ("error", "warning", "note")
    kinds = list(Kind)
    findings.sort(key=lambda one: (grades.index(one.kind.severity), kinds.index(one.kind)))
    return Audit(
        cases=tuple(cases),
        usable=len(films),
        classes=_classes(cases),
        findings=tuple(findings),
        source=source,
        view=view,
        dropped=_dropped(flagged, same.groups),
        compared=same.compared,
    )


# ------------------------------------------------------------------------ film by film


def _flag_unusable(flagged: Flagged, unusable: Iterable[Unusable]) -> None:
    for film in unusable:
        kind = _REFUSALS.get(film.refusal, Kind.REFUSED)
        flagged[kind].append(_mention(film.case, film.reason))


def _flag_each(flagged: Flagged, films: Iterable[Film]) -> None:
    for film in films:
        case = film.case
        if not looks.is_frontal(case.view):
            flagged[Kind.NOT_FRONTAL].append(_mention(case, f"view {case.view}"))
        if min(film.rows, film.columns) < looks.MINIMUM_SIDE:
            flagged[Kind.TINY].append(_mention(case, f"{film.columns} x {film.rows} pixels"))
        if film.spread < looks.MINIMUM_SPREAD:
            flagged[Kind.LOW_CONTRAST].append(_mention(case, f"{film.spread} of 255 greys"))
        if film.look in _LOOKS:
            flagged[_LOOKS[film.look]].append(_mention(case))


def _flag_duplicates(flagged: Flagged, groups: Iterable[duplicates.Group]) -> None:
    for number, group in enumerate(groups, start=1):
        if len(group.labels) > 1:
            kind = Kind.LABEL_CONFLICT
        else:
            kind = Kind.EXACT_DUPLICATE if group.exact else Kind.NEAR_DUPLICATE
        detail = "same bytes" if group.exact else f"agreement {group.agreement:.2f}"
        if group.patients > 1:
            detail += f", {group.patients} patients"
        flagged[kind] += [_mention(film.case, detail, number) for film in group.films]


def _flag_patients(flagged: Flagged, cases: Sequence[data.Case]) -> None:
    films_of: dict[str, list[data.Case]] = defaultdict(list)
    for case in cases:
        films_of[case.patient].append(case)
    several = [films for _, films in sorted(films_of.items()) if len(films) > 1]
    several.sort(key=lambda films: films[0].name)
    for number, films in enumerate(several, start=1):
        if len({case.label for case in films}) > 1:
            flagged[Kind.BOTH_LABELS] += [_mention(case, "", number) for case in films]
        if len({case.source for case in films}) > 1:
            flagged[Kind.SEVERAL_SOURCES] += [_mention(case, "", number) for case in films]
    unknown = [_mention(case) for case in cases if case.patient == case.name]
    if unknown:
        flagged[Kind.PATIENT_UNKNOWN] = unknown


def _mention(case: data.Case, detail: str = "", group: int | None = None) -> Mention:
    return Mention(name=case.name, label=case.label, source=case.source, detail=detail, group=group)


def _sentence(kind: Kind, films: Sequence[Mention]) -> str:
    groups = len({film.group for film in films})
    counted = f"{len(films)} {'film' if len(films) == 1 else 'films'}"
    if films[0].group is None:
        return counted
    if kind in (Kind.BOTH_LABELS, Kind.SEVERAL_SOURCES):
        return f"{groups} {'patient' if groups == 1 else 'patients'}, {counted}"
    apart = len({film.group for film in films if "patients" in film.detail})
    leak = f"; {apart} under several patients, whom a split by patient parts" if apart else ""
    return f"{groups} {'picture' if groups == 1 else 'pictures'}, {counted}{leak}"


# ----------------------------------------------------------------- the set as a whole


def _about_the_whole(
    cases: Sequence[data.Case], source: Confounding, view: Confounding, same: duplicates.Duplicates
) -> Iterator[Finding]:
    try:
        data.require_classes(cases)
    except DataError as error:
        yield Finding(kind=Kind.FEW_PATIENTS, sentence=str(error))
    for kind, table in ((Kind.SOURCE_CONFOUNDING, source), (Kind.VIEW_CONFOUNDING, view)):
        if table.strong:
            yield Finding(kind=kind, sentence=told(table))
    if same.not_compared:
        yield Finding(
            kind=Kind.NOT_COMPARED,
            sentence=f"{same.not_compared:,} pairs were not compared, {same.compared:,} were; "
            "audit parts of the set for the rest",
        )


def told(table: Confounding) -> str:
    """The figures of a table in one sentence."""
    return (
        f"Cramér's V {table.cramers_v:.2f} (corrected {table.cramers_v_corrected:.2f}); "
        f"{table.single_label_share:.0%} of the films have a {table.by} that holds one label "
        f"only; guessing by {table.by} alone is right for {table.guess_accuracy:.0%}, "
        f"guessing the commonest label for {table.majority_accuracy:.0%}"
    )


def _classes(cases: Sequence[data.Case]) -> dict[str, dict[str, int]]:
    return {
        label: {
            "films": sum(case.label == label for case in cases),
            "patients": len({case.patient for case in cases if case.label == label}),
        }
        for label in sorted({case.label for case in cases})
    }


# --------------------------------------------------------------------- what goes


def _dropped(flagged: Flagged, groups: Iterable[duplicates.Group]) -> dict[str, tuple[Kind, str]]:
    dropped: dict[str, tuple[Kind, str]] = {}
    for kind in Kind:
        if kind.drops and kind not in (Kind.EXACT_DUPLICATE, Kind.NEAR_DUPLICATE):
            for film in flagged.get(kind, ()):
                dropped.setdefault(film.name, (kind, film.detail))
    for group in groups:
        left = [film for film in group.films if film.case.name not in dropped]
        left.sort(key=lambda film: (-film.rows * film.columns, film.case.name))
        for other in left[1:]:
            exact = other.sha256 == left[0].sha256
            dropped[other.case.name] = (
                Kind.EXACT_DUPLICATE if exact else Kind.NEAR_DUPLICATE,
                f"as {left[0].case.name}",
            )
    return dict(sorted(dropped.items()))
