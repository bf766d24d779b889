"""What people and other systems say of studies and images, kept as a history.

A label is a class name ("positive"). It stands for a whole study or for one image, and the
image's own outweighs its study's. It is superseded, never changed or deleted; an empty one
takes back what was said before. The import of files is in `storage.labelimport`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, select, update

from dicomnode.errors import LabelsRefused, NotInStore
from dicomnode.ports import Clock
from dicomnode.storage import labelled
from dicomnode.storage.database import Database
from dicomnode.storage.labelled import ClassCount, Label, LabelledInstance
from dicomnode.storage.schema import instances, labels, studies

REVIEW = "review"
"""The source of what a reader said on the review page; an import does not overrule it."""

_CLASS_NAME = re.compile(r"[^\W_](?:[\w .+-]{0,62}[\w+-])?")
_ORIGIN = re.compile(r"[^\W_][\w .,:@+()'/-]{0,127}")
_PAGE = 1000


class SqlLabels:
    """`Storage.labels`. Each method is one transaction; what iterates is read in pages, each
    page a transaction, so that a hundred thousand labels need no memory."""

    def __init__(self, database: Database, *, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.database = database
        self.clock = clock

    def record(
        self,
        label: str,
        *,
        study_instance_uid: str,
        sop_instance_uid: str = "",
        source: str = REVIEW,
        author: str,
        labelled_at: datetime | None = None,
    ) -> bool:
        """Say `label` of an image, or of a whole study when no SOP Instance UID is given.

        An empty `label` takes back what was said. False when the same source and author
        said the same already. Raises `NotInStore` when the study or the image is not held,
        `LabelsRefused` for a word that cannot be a class, a source or an author.
        """
        now = self.clock()
        facts = {
            "label": class_name(label) if label else "",
            "source": origin(source, "source"),
            "author": origin(author, "author"),
        }

        def work(connection: Connection) -> bool:
            if self.database.dialect == "postgresql":
                lock_table(connection)
            instance_id = _target(connection, study_instance_uid, sop_instance_uid)
            current = and_(_of(study_instance_uid, instance_id), labels.c.superseded_at.is_(None))
            held = connection.execute(select(labels).where(current)).mappings().first()
            if held is None and not label:
                return False
            if held is not None and all(held[name] == value for name, value in facts.items()):
                return False
            connection.execute(update(labels).where(current).values(superseded_at=now))
            connection.execute(
                insert(labels).values(
                    study_instance_uid=study_instance_uid,
                    instance_id=instance_id,
                    labelled_at=labelled_at or now,
                    recorded_at=now,
                    **facts,
                )
            )
            return True

        return self.database.write(work)

    def current_labels(self, study_instance_uid: str | None = None) -> Iterator[Label]:
        """What holds now, said of one study and its images or of all, in the order of
        recording."""
        return self._labels(
            study_instance_uid, labels.c.superseded_at.is_(None), labels.c.label != ""
        )

    def history(self, study_instance_uid: str | None = None) -> Iterator[Label]:
        """Everything that was ever said, in the order of recording."""
        return self._labels(study_instance_uid)

    def labelled_instances(self) -> Iterator[LabelledInstance]:
        """Every instance for which a label holds, in the order of arrival; the node's own
        products are never among them."""
        last = 0
        while page := self._labelled_after(last):
            yield from page
            last = page[-1].instance.id

    def counts(self) -> list[ClassCount]:
        """How many studies and images each class has now, by name."""
        return self.database.read(labelled.counts)

    def classes(self) -> set[str]:
        """Every class name that holds anywhere now."""
        current = (labels.c.superseded_at.is_(None), labels.c.label != "")
        names = select(labels.c.label).where(*current).distinct()
        return self.database.read(lambda c: set(c.execute(names).scalars()))

    def unlabelled(self) -> int:
        """Images for which no label holds."""
        return self.database.read(labelled.unlabelled)

    def _labels(
        self, study_instance_uid: str | None, *conditions: ColumnElement[bool]
    ) -> Iterator[Label]:
        statement = _said().where(*conditions).order_by(labels.c.id).limit(_PAGE)
        if study_instance_uid is not None:
            statement = statement.where(labels.c.study_instance_uid == study_instance_uid)
        last = 0
        while page := self._page(statement.where(labels.c.id > last)):
            yield from page
            last = page[-1].id

    def _labelled_after(self, instance_id: int) -> list[LabelledInstance]:
        return self.database.read(lambda c: labelled.page(c, after=instance_id, limit=_PAGE))

    def _page(self, statement: Select[Any]) -> list[Label]:
        return self.database.read(
            lambda c: [labelled.label(row) for row in c.execute(statement).mappings()]
        )


def class_name(text: str) -> str:
    """`text` as a class name, Unicode-composed. Raises `LabelsRefused` when it is none.

    It names folders and columns and stands in reports: 1-64 letters, digits, spaces and
    `_ . + -`, beginning with a letter or a digit. What is none is not repeated: in a file
    whose columns are mixed up it may be a patient's name.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not _CLASS_NAME.fullmatch(name):
        raise LabelsRefused(
            "the label cannot be a class name: expected 1-64 letters, digits, spaces and "
            "_ . + -, beginning with a letter or a digit"
        )
    return name


def origin(text: str, what: str) -> str:
    """`text` as a source or an author. Raises `LabelsRefused`; a spreadsheet that opens the
    export must not take it for a formula."""
    name = unicodedata.normalize("NFC", text.strip())
    if not _ORIGIN.fullmatch(name):
        raise LabelsRefused(
            f"the {what} cannot be used: expected 1-128 letters, digits, spaces and "
            "_ . , : @ + ( ) ' / -, beginning with a letter or a digit"
        )
    return name


def lock_table(connection: Connection) -> None:
    """Let nobody else record until the end of this transaction (PostgreSQL; SQLite has one
    writer anyway). Readers go on."""
    connection.exec_driver_sql("LOCK TABLE labels IN SHARE ROW EXCLUSIVE MODE")


def _target(connection: Connection, study_instance_uid: str, sop_instance_uid: str) -> int | None:
    """The instance's id, or None for the whole study."""
    if not sop_instance_uid:
        study = select(studies.c.study_instance_uid).where(
            studies.c.study_instance_uid == study_instance_uid
        )
        if connection.execute(study).first() is None:
            raise NotInStore(f"no study {study_instance_uid} in the store to label")
        return None
    image = select(instances.c.id).where(
        instances.c.sop_instance_uid == sop_instance_uid,
        instances.c.study_instance_uid == study_instance_uid,
        instances.c.own_product.is_(False),
    )
    found = connection.execute(image).scalar()
    if found is None:
        raise NotInStore(f"no image {sop_instance_uid} of study {study_instance_uid} in the store")
    return int(found)


def _of(study_instance_uid: str, instance_id: int | None) -> ColumnElement[bool]:
    return and_(
        labels.c.study_instance_uid == study_instance_uid,
        labels.c.instance_id.is_(None)
        if instance_id is None
        else labels.c.instance_id == instance_id,
    )


def _said() -> Select[Any]:
    return select(
        labels, func.coalesce(instances.c.sop_instance_uid, "").label("sop_instance_uid")
    ).join_from(labels, instances, instances.c.id == labels.c.instance_id, isouter=True)
