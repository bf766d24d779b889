"""What a file of labels changes: decided as a whole, then recorded in one transaction.

The decision is made on a view of the database that was read before, so that a running node
is kept from writing only while rows are written. If anybody else recorded a label
meanwhile, it is made again.
"""

from __future__ import annotations

import difflib
import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from dicomnode.errors import StorageUnavailable
from dicomnode.storage.database import Database, scalar
from dicomnode.storage.labelfile import LabelLine, Problems
from dicomnode.storage.labelkeys import Known, Target, chunks
from dicomnode.storage.labels import REVIEW, SqlLabels, lock_table
from dicomnode.storage.schema import labels

_TRIES: Final = 5


class Effect(enum.Enum):
    """What a line does to the label that is held."""

    NEW = "new"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    UNCHANGED = "unchanged"
    OLDER = "older"
    """The line's time is before that of the label that is held."""
    REVIEWED = "reviewed"
    """A reader said otherwise on the review page, and the file comes from elsewhere."""
    UNKNOWN = "unknown"
    """The store does not hold its key, and such lines were to be left out."""


RECORDED: Final = (Effect.NEW, Effect.CHANGED, Effect.WITHDRAWN)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How an import is to be taken."""

    default_source: str
    default_author: str
    """Recorded where neither the line nor this policy states one; never compared."""
    source: str = ""
    author: str = ""
    """Stated for every line that states none itself."""
    skip_unknown: bool = False
    overrule_reviews: bool = False


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did, or would do."""

    effects: Mapping[Effect, tuple[int, ...]]
    """Line numbers by what became of them; equal lines for one target count once."""
    changes: Mapping[tuple[str, str], int]
    """How often a class ("" for none) became another one."""

    @property
    def recorded(self) -> int:
        return sum(len(self.effects.get(effect, ())) for effect in RECORDED)


@dataclass(kw_only=True)
class _Plan:
    rows: list[dict[str, Any]] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)
    effects: dict[Effect, list[int]] = field(default_factory=dict)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: int = 0
    """Rows of `labels` when it was made: none is ever deleted, so it counts the changes."""


def import_lines(
    store: SqlLabels, lines: Sequence[LabelLine], policy: Policy, *, dry_run: bool = False
) -> Imported:
    """Record what `lines` say, all of it or nothing.

    Raises `LabelsRefused` for keys that the store does not hold (unless `skip_unknown`), or
    that are ambiguous or disagree with each other, and for lines that contradict each other.
    """
    now = store.clock()
    for _ in range(_TRIES):
        plan = store.database.read(lambda c: _planned(c, lines, policy, now))
        if dry_run or not plan.rows or store.database.write(_recorder(store.database, plan, now)):
            effects = {effect: tuple(numbers) for effect, numbers in plan.effects.items()}
            return Imported(effects=effects, changes=dict(plan.changes))
    raise StorageUnavailable(
        f"labels were recorded by others during each of {_TRIES} tries to import; try again"
    )


def require_known_classes(
    lines: Sequence[LabelLine], known: Iterable[str], allowed: Iterable[str]
) -> None:
    """Refuse class names that nobody used before: a typing error would be a class of its own.

    Where there is no label yet, any names are good, unless two are nearly alike. `allowed`
    are meant to be new. Raises `LabelsRefused`.
    """
    first_lines = {line.label: line.line for line in reversed(lines) if line.label}
    known, allowed = set(known), set(allowed)
    problems = Problems()
    for name in sorted(first_lines.keys() - known - allowed):
        alike = _nearest(name, (known or first_lines.keys() - {name}) | allowed)
        if known or alike:
            like = f", nearly {alike!r}" if alike else ""
            problems.add(first_lines[name], f"class {name!r} was not used before{like}")
    problems.refuse("correct it, or say --new-class NAME for each one that is meant")


def _nearest(name: str, others: Iterable[str]) -> str | None:
    """One that `name` may be a misspelling of; not the "normal" of an "abnormal"."""
    folded = {
        other.casefold(): other
        for other in others
        if name.casefold() == other.casefold() or not _continues(name, other)
    }
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
    return folded[close[0]] if close else None


def _continues(one: str, other: str) -> bool:
    one, other = one.casefold(), other.casefold()
    return one.endswith(other) or other.endswith(one)


def effect_of(line: LabelLine, held: Mapping[str, Any] | None, policy: Policy) -> Effect:
    """What `line` does, given the current row of `labels` for its target."""
    if held is None:
        return Effect.NEW if line.label else Effect.UNCHANGED
    said_by_reader = REVIEW in (line.source, policy.source)
    if held["source"] == REVIEW and not said_by_reader and not policy.overrule_reviews:
        return Effect.UNCHANGED if line.label == held["label"] else Effect.REVIEWED
    stated = {
        "source": line.source or policy.source,
        "author": line.author or policy.author,
        "labelled_at": line.labelled_at,
    }
    news = [name for name, value in stated.items() if value and value != held[name]]
    if line.label == held["label"] and not news:
        return Effect.UNCHANGED
    if line.labelled_at is not None and line.labelled_at < held["labelled_at"]:
        return Effect.OLDER
    if not line.label:
        return Effect.WITHDRAWN if held["label"] else Effect.UNCHANGED
    return Effect.CHANGED if held["label"] else Effect.NEW


def _planned(
    connection: Connection, lines: Sequence[LabelLine], policy: Policy, now: datetime
) -> _Plan:
    plan = _Plan(seen=_seen(connection))
    targets = _targets(connection, lines, plan, policy)
    held = _held(connection, targets)
    for target, line in targets.items():
        current = held.get(target)
        effect = effect_of(line, current, policy)
        plan.effects.setdefault(effect, []).append(line.line)
        if effect not in RECORDED:
            continue
        if current is not None:
            plan.superseded.append(current["id"])
        before = current["label"] if current is not None else ""
        plan.changes[before, line.label] += 1
        plan.rows.append(
            {
                "study_instance_uid": target[0],
                "instance_id": target[1],
                "label": line.label,
                "source": line.source or policy.source or policy.default_source,
                "author": line.author or policy.author or policy.default_author,
                "labelled_at": line.labelled_at or now,
                "recorded_at": now,
            }
        )
    return plan


def _recorder(database: Database, plan: _Plan, now: datetime) -> Any:
    """Writes the plan; False when it was made on what does not hold any more."""

    def work(connection: Connection) -> bool:
        if database.dialect == "postgresql":
            lock_table(connection)
        if _seen(connection) != plan.seen:
            return False
        if plan.superseded:
            supersede = update(labels).where(labels.c.id == bindparam("held"))
            connection.execute(
                supersede.values(superseded_at=now), [{"held": held} for held in plan.superseded]
            )
        connection.execute(insert(labels), plan.rows)
        return True

    return work


def _seen(connection: Connection) -> int:
    return int(scalar(connection, select(func.count()).select_from(labels)))


def _targets(
    connection: Connection, lines: Sequence[LabelLine], plan: _Plan, policy: Policy
) -> dict[Target, LabelLine]:
    known = Known(connection, lines)
    problems = Problems()
    unknown = []
    targets: dict[Target, LabelLine] = {}
    for line in lines:
        target = known.target(line)
        if isinstance(target, str):
            problems.add(line.line, target)
        elif target is None:
            unknown.append(line.line)
        elif target not in targets:
            targets[target] = line
        elif targets[target].label != line.label:
            problems.add(line.line, f"contradicts line {targets[target].line}")
    if unknown and policy.skip_unknown:
        plan.effects[Effect.UNKNOWN] = unknown
    elif unknown:
        for number in unknown:
            problems.add(number, "the store does not hold what its key names")
    problems.refuse(
        f"{len(unknown)} of {len(lines)} keys are unknown: did a spreadsheet drop leading "
        "zeros? --skip-unknown leaves such lines out"
        if unknown and not policy.skip_unknown
        else ""
    )
    return targets


def _held(connection: Connection, targets: Iterable[Target]) -> dict[Target, Mapping[str, Any]]:
    """The current rows of these targets."""
    found: dict[Target, Any] = {}
    for uids in chunks({study for study, _ in targets}):
        statement = select(labels).where(
            labels.c.study_instance_uid.in_(uids), labels.c.superseded_at.is_(None)
        )
        for row in connection.execute(statement).mappings():
            found[row["study_instance_uid"], row["instance_id"]] = row
    return found
