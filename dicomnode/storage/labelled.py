"""Which label holds for which image: its own, else its study's. The read side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    exists,
    func,
    select,
)

from dicomnode.findings import Reason
from dicomnode.ports import StoredInstance
from dicomnode.storage import records
from dicomnode.storage.schema import conflicts, instances, labels, outcomes


@dataclass(frozen=True, kw_only=True)
class Label:
    """One statement, as it was recorded."""

    id: int
    study_instance_uid: str
    sop_instance_uid: str
    """Empty when the label stands for the whole study."""
    label: str
    """The class name; empty when the statement takes the one before back."""
    source: str
    """"review", "import:<file name>", or what another system is called."""
    author: str
    labelled_at: datetime
    """When it was said."""
    recorded_at: datetime
    """When this database heard of it."""
    superseded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledInstance:
    """A stored instance with the label that holds for it."""

    instance: StoredInstance
    label: Label
    """Its own, or its study's."""
    refusal: Reason | None
    """Why the node did not judge it, when it looked at it and refused."""
    came_twice: bool
    """Its SOP Instance UID came again with other content (a conflict that was set aside):
    nobody can say which of the two images the label means."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How much a class has."""

    label: str
    studies: int
    """Studies with an image of this class."""
    instances: int
    """Images of this class, by their own label or by their study's."""
    newest: datetime
    """When the newest statement behind them was made."""


def page(connection: Connection, *, after: int, limit: int) -> list[LabelledInstance]:
    """The next instances with a label, by id, beginning after the id `after`."""
    current = and_(outcomes.c.instance_id == instances.c.id, outcomes.c.superseded_at.is_(None))
    refused = select(outcomes.c.content).where(current, outcomes.c.evaluated.is_(False))
    twice = exists().where(conflicts.c.sop_instance_uid == instances.c.sop_instance_uid)
    statement = (
        _effective(
            *instances.c, refused.scalar_subquery().label("refused"), twice.label("came_twice")
        )
        .where(instances.c.id > after)
        .order_by(instances.c.id)
        .limit(limit)
    )
    return [_labelled_instance(row) for row in connection.execute(statement).mappings()]


def counts(connection: Connection) -> list[ClassCount]:
    """How many studies and images each class has."""
    effective = _effective(instances.c.study_instance_uid).subquery()
    statement = (
        select(
            effective.c.said_label,
            func.count(effective.c.study_instance_uid.distinct()),
            func.count(),
            func.max(effective.c.said_labelled_at, type_=labels.c.labelled_at.type),
        )
        .group_by(effective.c.said_label)
        .order_by(effective.c.said_label)
    )
    return [
        ClassCount(label=name, studies=studies, instances=images, newest=newest)
        for name, studies, images, newest in connection.execute(statement)
    ]


def unlabelled(connection: Connection) -> int:
    """Images for which no label holds."""
    own, whole, joined = _joined()
    statement = (
        select(func.count())
        .select_from(joined)
        .where(instances.c.own_product.is_(False), own.c.id.is_(None), whole.c.id.is_(None))
    )
    return int(connection.execute(statement).scalar_one())


def label(row: Mapping[Any, Any]) -> Label:
    """From columns of `labels`, and the SOP Instance UID ("" for a whole study)."""
    return Label(
        id=row["id"],
        study_instance_uid=row["study_instance_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        label=row["label"],
        source=row["source"],
        author=row["author"],
        labelled_at=row["labelled_at"],
        recorded_at=row["recorded_at"],
        superseded_at=row["superseded_at"],
    )


def _joined() -> tuple[Any, Any, Any]:
    own, whole = labels.alias("own"), labels.alias("whole")
    of_study = and_(
        _holds(whole),
        whole.c.instance_id.is_(None),
        whole.c.study_instance_uid == instances.c.study_instance_uid,
    )
    of_image = and_(_holds(own), own.c.instance_id == instances.c.id)
    joined = instances.outerjoin(own, of_image).outerjoin(whole, of_study)
    return own, whole, joined


def _holds(table: Any) -> ColumnElement[bool]:
    return and_(table.c.superseded_at.is_(None), table.c.label != "")


def _effective(*columns: Any) -> Select[Any]:
    """Images with the label that holds for them, its columns named `said_...`."""
    own, whole, joined = _joined()
    said = [
        case((own.c.id.is_not(None), own.c[column.name]), else_=whole.c[column.name]).label(
            f"said_{column.name}"
        )
        for column in labels.c
    ]
    return (
        select(*columns, *said)
        .select_from(joined)
        .where(instances.c.own_product.is_(False), own.c.id.is_not(None) | whole.c.id.is_not(None))
    )


def _labelled_instance(row: RowMapping) -> LabelledInstance:
    said = {column.name: row[f"said_{column.name}"] for column in labels.c}
    said["sop_instance_uid"] = row["sop_instance_uid"] if said["instance_id"] is not None else ""
    refused = row["refused"]
    return LabelledInstance(
        instance=records.stored_instance(row),
        label=label(said),
        refusal=None if refused is None else Reason(json.loads(refused)["reason"]),
        came_twice=bool(row["came_twice"]),
    )
