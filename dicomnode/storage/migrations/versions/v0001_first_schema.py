"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "conflicts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint(
            "sop_instance_uid",
            "study_instance_uid",
            "series_instance_uid",
            "digest",
            name="uq_conflicts_content",
        ),
    )
    op.create_index("ix_conflicts_path", "conflicts", ["path"])
    op.create_table(
        "meta",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "studies",
        sa.Column("study_instance_uid", sa.String(64), primary_key=True),
        sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_studies_accession_number",
        "studies",
        ["accession_number"],
        sqlite_where=sa.text("accession_number <> ''"),
        postgresql_where=sa.text("accession_number <> ''"),
    )
    op.create_index("ix_studies_last_received_at", "studies", ["last_received_at"])
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "study_instance_uid",
            sa.String(64),
            sa.ForeignKey("studies.study_instance_uid"),
            nullable=False,
        ),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("own_product", sa.Boolean(), nullable=False),
        sa.UniqueConstraint("sop_instance_uid", name="uq_instances_sop_instance_uid"),
    )
    op.create_index("ix_instances_study_instance_uid", "instances", ["study_instance_uid"])
    op.create_table(
        "outcomes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("instance_id", sa.Integer(), sa.ForeignKey("instances.id"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True)),
        sa.Column("evaluated", sa.Boolean(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("cam", sa.LargeBinary()),
        sa.Column("cam_rows", sa.Integer()),
        sa.Column("cam_columns", sa.Integer()),
        sa.Column("embedding", sa.LargeBinary()),
        sa.Column("embedding_length", sa.Integer()),
    )
    op.create_index("ix_outcomes_instance_id", "outcomes", ["instance_id"])
    op.create_index(
        "uq_outcomes_current",
        "outcomes",
        ["instance_id"],
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL"),
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "study_instance_uid",
            sa.String(64),
            sa.ForeignKey("studies.study_instance_uid"),
            nullable=False,
        ),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True)),
        sa.Column("sop_class_uid", sa.String(64)),
        sa.Column("path", sa.Text()),
        sa.UniqueConstraint("sop_instance_uid", name="uq_documents_sop_instance_uid"),
    )
    op.create_index("ix_documents_study", "documents", ["study_instance_uid", "revision"])
    op.create_index(
        "uq_documents_report",
        "documents",
        ["study_instance_uid", "revision"],
        unique=True,
        sqlite_where=sa.text("kind = 'sr'"),
        postgresql_where=sa.text("kind = 'sr'"),
    )
    op.create_table(
        "document_images",
        sa.Column("document_id", sa.Integer(), sa.ForeignKey("documents.id"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("outcome_id", sa.Integer(), sa.ForeignKey("outcomes.id"), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.String(160), nullable=False),
        sa.Column(
            "study_instance_uid",
            sa.String(64),
            sa.ForeignKey("studies.study_instance_uid"),
            nullable=False,
        ),
        sa.Column("document_id", sa.Integer(), sa.ForeignKey("documents.id")),
        sa.Column("destination", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.Column("error_code", sa.String(64)),
        sa.Column("status", sa.Integer()),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("kind", "key", name="uq_jobs_kind_key"),
    )
    op.create_index(
        "ix_jobs_document_id",
        "jobs",
        ["document_id"],
        sqlite_where=sa.text("document_id IS NOT NULL"),
        postgresql_where=sa.text("document_id IS NOT NULL"),
    )
    op.create_index("ix_jobs_due", "jobs", ["state", "kind", "destination", "run_at"])
    op.create_index("ix_jobs_study", "jobs", ["study_instance_uid", "kind", "state"])
    op.create_table(
        "labels",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "study_instance_uid",
            sa.String(64),
            sa.ForeignKey("studies.study_instance_uid"),
            nullable=False,
        ),
        sa.Column("instance_id", sa.Integer(), sa.ForeignKey("instances.id")),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_labels_study_instance_uid", "labels", ["study_instance_uid"])
    op.create_index(
        "uq_labels_current_study",
        "labels",
        ["study_instance_uid"],
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL AND instance_id IS NULL"),
        postgresql_where=sa.text("superseded_at IS NULL AND instance_id IS NULL"),
    )
    op.create_index(
        "uq_labels_current_instance",
        "labels",
        ["instance_id"],
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL AND instance_id IS NOT NULL"),
        postgresql_where=sa.text("superseded_at IS NULL AND instance_id IS NOT NULL"),
    )
