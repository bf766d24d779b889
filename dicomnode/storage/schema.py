"""The tables: SQLAlchemy Core, the same on SQLite and PostgreSQL.

`REVISIONS` is the line of migrations in `migrations/versions`; a test holds these tables
against their sum. Nothing is ever updated in `outcomes` and `labels` except
`superseded_at`, so a report plan can point at exactly the outcomes it was made of.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

REVISIONS = ("0001",)
"""Every schema revision that this program knows, oldest first; the last one is current."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware in, aware out, UTC in between, with microseconds.

    `timestamp with time zone` on PostgreSQL; text that sorts by time on SQLite.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; pass an aware datetime")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

studies = Table(
    "studies",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("first_received_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("accession_number", Text, nullable=False),
    Column("patient_id", Text, nullable=False),
    Index("ix_studies_last_received_at", "last_received_at"),
    Index(
        "ix_studies_accession_number",
        "accession_number",
        sqlite_where=text("accession_number <> ''"),
        postgresql_where=text("accession_number <> ''"),
    ),
    sqlite_with_rowid=False,
)
"""Every index is a page more to write and flush before an instance is acknowledged: there
are no more of them than the queries need, and partial ones where most rows are of no use."""

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("own_product", Boolean, nullable=False),
    UniqueConstraint("sop_instance_uid", name="uq_instances_sop_instance_uid"),
    Index("ix_instances_study_instance_uid", "study_instance_uid"),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    UniqueConstraint(
        "sop_instance_uid",
        "study_instance_uid",
        "series_instance_uid",
        "digest",
        name="uq_conflicts_content",
    ),
    Index("ix_conflicts_path", "path"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("superseded_at", UtcDateTime),
    Column("evaluated", Boolean, nullable=False),
    Column("statement", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("cam", LargeBinary),
    Column("cam_rows", Integer),
    Column("cam_columns", Integer),
    Column("embedding", LargeBinary),
    Column("embedding_length", Integer),
    Index("ix_outcomes_instance_id", "instance_id"),
    Index(
        "uq_outcomes_current",
        "instance_id",
        unique=True,
        sqlite_where=text("superseded_at IS NULL"),
        postgresql_where=text("superseded_at IS NULL"),
    ),
)

documents = Table(
    "documents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("planned_at", UtcDateTime, nullable=False),
    Column("written_at", UtcDateTime),
    Column("sop_class_uid", String(64)),
    Column("path", Text),
    UniqueConstraint("sop_instance_uid", name="uq_documents_sop_instance_uid"),
    Index("ix_documents_study", "study_instance_uid", "revision"),
    Index(
        "uq_documents_report",
        "study_instance_uid",
        "revision",
        unique=True,
        sqlite_where=text("kind = 'sr'"),
        postgresql_where=text("kind = 'sr'"),
    ),
)
"""Planned documents have no `written_at`, `sop_class_uid` and `path` yet."""

document_images = Table(
    "document_images",
    metadata,
    Column("document_id", ForeignKey("documents.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("outcome_id", ForeignKey("outcomes.id"), nullable=False),
)
"""What a report says, in its order."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("key", String(160), nullable=False),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("document_id", ForeignKey("documents.id")),
    Column("destination", String(64)),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("run_at", UtcDateTime, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("last_error", Text),
    Column("error_code", String(64)),
    Column("status", Integer),
    Column("settled_at", UtcDateTime),
    UniqueConstraint("kind", "key", name="uq_jobs_kind_key"),
    Index("ix_jobs_due", "state", "kind", "destination", "run_at"),
    Index("ix_jobs_study", "study_instance_uid", "kind", "state"),
    Index(
        "ix_jobs_document_id",
        "document_id",
        sqlite_where=text("document_id IS NOT NULL"),
        postgresql_where=text("document_id IS NOT NULL"),
    ),
)
"""`status` is what the destination answered to a DELIVER job."""

labels = Table(
    "labels",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("instance_id", ForeignKey("instances.id")),
    Column("label", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("labelled_at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("superseded_at", UtcDateTime),
    Index("ix_labels_study_instance_uid", "study_instance_uid"),
    Index(
        "uq_labels_current_study",
        "study_instance_uid",
        unique=True,
        sqlite_where=text("superseded_at IS NULL AND instance_id IS NULL"),
        postgresql_where=text("superseded_at IS NULL AND instance_id IS NULL"),
    ),
    Index(
        "uq_labels_current_instance",
        "instance_id",
        unique=True,
        sqlite_where=text("superseded_at IS NULL AND instance_id IS NOT NULL"),
        postgresql_where=text("superseded_at IS NULL AND instance_id IS NOT NULL"),
    ),
)
"""What people and other systems say of a study (no `instance_id`) or of one image. As in
`outcomes`, only `superseded_at` is ever updated; an empty label takes the one before back."""

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""alembic's own table; read without alembic."""
