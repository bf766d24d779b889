"""Which label holds for which image: its own, else its study's. The read side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    exists,
    func,
    select,
)

from dicomnode.findings import Reason
from dicomnode.ports import StoredInstance
from dicomnode.storage import records
from dicomnode.storage.schema import conflicts, instances, labels, outcomes

_CHUNK: Final = 500


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
        _images(*instances.c, refused.scalar_subquery().label("refused"), twice.label("came_twice"))
        .where(instances.c.id > after, _label_id().is_not(None))
        .order_by(instances.c.id)
        .limit(limit)
    )
    rows = connection.execute(statement).mappings().all()
    said = {
        row["id"]: row
        for ids in (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
        for row in connection.execute(
            select(labels).where(labels.c.id.in_({row["label_id"] for row in ids}))
        ).mappings()
    }
    return [_labelled_instance(row, said[row["label_id"]]) for row in rows]


def counts(connection: Connection) -> list[ClassCount]:
    """How many studies and images each class has."""
    images = _images(instances.c.study_instance_uid).subquery()
    statement = (
        select(
            labels.c.label,
            func.count(images.c.study_instance_uid.distinct()),
            func.count(),
            func.max(labels.c.labelled_at, type_=labels.c.labelled_at.type),
        )
        .join_from(images, labels, labels.c.id == images.c.label_id)
        .group_by(labels.c.label)
        .order_by(labels.c.label)
    )
    return [
        ClassCount(label=name, studies=studies, instances=images, newest=newest)
        for name, studies, images, newest in connection.execute(statement)
    ]


def unlabelled(connection: Connection) -> int:
    """Images for which no label holds."""
    images = _images(instances.c.id).where(_label_id().is_(None)).subquery()
    return int(connection.execute(select(func.count()).select_from(images)).scalar_one())


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


def _images(*columns: Any) -> Select[Any]:
    """Images, the node's own products aside, with `label_id`: which label holds, or null."""
    return select(*columns, _label_id().label("label_id")).where(instances.c.own_product.is_(False))


def _label_id() -> ColumnElement[int]:
    """Looked up per image: as a join, PostgreSQL would compare every image with every label
    until it has counted the labels of a large import."""
    own, whole = labels.alias("own"), labels.alias("whole")
    of_image = select(own.c.id).where(_holds(own), own.c.instance_id == instances.c.id)
    of_study = select(whole.c.id).where(
        _holds(whole),
        whole.c.instance_id.is_(None),
        whole.c.study_instance_uid == instances.c.study_instance_uid,
    )
    return func.coalesce(
        of_image.correlate(instances).scalar_subquery(),
        of_study.correlate(instances).scalar_subquery(),
    )


def _holds(table: Any) -> ColumnElement[bool]:
    return and_(table.c.superseded_at.is_(None), table.c.label != "")


def _labelled_instance(row: RowMapping, said: RowMapping) -> LabelledInstance:
    of_image = said["instance_id"] is not None
    refused = row["refused"]
    return LabelledInstance(
        instance=records.stored_instance(row),
        label=label({**said, "sop_instance_uid": row["sop_instance_uid"] if of_image else ""}),
        refusal=None if refused is None else Reason(json.loads(refused)["reason"]),
        came_twice=bool(row["came_twice"]),
    )
