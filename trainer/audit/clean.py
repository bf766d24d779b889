"""A cleaned manifest, and beside it a list of what was left out and why."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from trainer.audit.inspection import Audit
from trainer.data import Case
from trainer.data.manifest import SNAPSHOT_COLUMNS, private_file
from trainer.errors import DataError, UsageError

_PLAIN_COLUMNS: Final = tuple(name for name in SNAPSHOT_COLUMNS if name not in ("path", "sha256"))


def write_clean(audit: Audit, out: Path, *, manifest: Path | None = None) -> Path:
    """Write the films that stay as a manifest that `data.read_cases` accepts.

    `manifest` is the one that the films were read from: its columns, and their text, are
    kept. Film names stay relative to the folder of `out`; when a film lies outside that
    folder, the column `path` says where, absolute. What was left out goes to
    `<out's stem>.dropped.csv`, which is returned. Both are for the owner only, since a
    manifest says whose the films are. Raises `UsageError`, `DataError`.
    """
    if manifest is not None and out.exists() and out.samefile(manifest):
        raise UsageError(
            f"--write-clean {out} is the manifest that is being audited; give another file"
        )
    kept = [case for case in audit.cases if case.name not in audit.dropped]
    listed = out.with_name(f"{out.stem}.dropped.csv")
    labels = {case.name: case.label for case in audit.cases}
    try:
        _write(out, *_rows(kept, out, manifest))
        _write(
            listed,
            ("filename", "label", "reason", "detail"),
            (
                (name, labels[name], kind.name.lower(), detail)
                for name, (kind, detail) in audit.dropped.items()
            ),
        )
    except OSError as error:
        raise DataError(f"cannot write {error.filename or out}: {error.strerror}") from error
    return listed


def _rows(
    kept: Sequence[Case], out: Path, manifest: Path | None
) -> tuple[Sequence[str], Iterator[Sequence[object]]]:
    folder = out.parent.resolve()
    inside = all(case.path.resolve().is_relative_to(folder) for case in kept)
    originals = _originals(manifest)
    columns = list(next(iter(originals.values())) if originals else _PLAIN_COLUMNS)
    columns = [name for name in columns if name != "path"] + ([] if inside else ["path"])

    def rows() -> Iterator[Sequence[object]]:
        for case in kept:
            row = originals.get(case.name) or _plain(case)
            path = case.path.resolve()
            name = str(path.relative_to(folder)) if inside else case.name
            row = row | {"filename": name, "path": str(path)}
            yield [row.get(column, "") for column in columns]

    return columns, rows()


def _originals(manifest: Path | None) -> dict[str, dict[str, str]]:
    if manifest is None:
        return {}
    with manifest.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        columns = list(rows.fieldnames or ())
        return {
            row["filename"].strip(): {column: row[column] or "" for column in columns}
            for row in rows
        }


def _plain(case: Case) -> dict[str, str]:
    return {
        "label": case.label,
        # a film without a patient keeps none, so that a later audit still says so
        "patient_id": "" if case.patient == case.name else case.patient,
        "dataset": case.source,
        "view": case.view,
        "sop_instance_uid": case.sop_instance_uid,
        "study_instance_uid": case.study_instance_uid,
    }


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Complete or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with private_file(temporary) as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    temporary.replace(path)
