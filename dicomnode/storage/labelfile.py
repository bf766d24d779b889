"""CSV files of labels: what `dicomnode labels import` reads and `export` writes.

A file is read as a whole or not at all. Messages name lines and columns by number and never
repeat a cell that may hold a patient's identifier.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TextIO

from dicomnode.errors import LabelsRefused
from dicomnode.storage.labelled import Label
from dicomnode.storage.labels import class_name, origin

MAXIMUM_BYTES = 32 * 1024 * 1024
MAXIMUM_LINES = 100_000
"""A file is recorded in one transaction, in which nobody else can write to SQLite: some two
to three seconds for as many, while a node waits for ten (`database.BUSY_MILLISECONDS`)."""

COLUMNS = ("sop_instance_uid", "study_instance_uid", "label", "source", "author", "time")
HISTORY_COLUMNS = (*COLUMNS, "recorded_at", "superseded_at")

_KEYS = ("sop_instance_uid", "study_instance_uid", "accession_number")
_READ = (*_KEYS, "patient_id", "label", "source", "author", "time", "superseded_at")
_WRITTEN_ONLY = ("recorded_at",)
_SPELLINGS = {name.replace("_", ""): name for name in (*_READ, *_WRITTEN_ONLY)}
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_SHOWN = 20
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class LabelLine:
    """One line: a key, and what is said of it. Empty where the file says nothing."""

    line: int
    label: str
    """Empty: what was said before is taken back."""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    accession_number: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    source: str = ""
    author: str = ""
    labelled_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A file without a fault of its own; whether the store knows its keys is another thing."""

    lines: tuple[LabelLine, ...]
    superseded: int
    """Lines of a history that say what does not hold any more; they are left out."""
    columns_left_out: tuple[int, ...]
    """Columns whose header is none of ours, by number."""


class Problems:
    """Everything that is wrong with a file, by line; `refuse` says it in one error."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        self._found.append((line, text))

    def refuse(self, next_step: str = "") -> None:
        """Raises `LabelsRefused` when anything was found."""
        if not self._found:
            return
        told = [f"  line {line}: {text}" for line, text in sorted(self._found)[:_SHOWN]]
        if len(self._found) > _SHOWN:
            told.append(f"  and {len(self._found) - _SHOWN} more")
        if next_step:
            told.append(next_step)
        raise LabelsRefused("\n".join(["nothing was recorded:", *told]))


def read_label_file(data: bytes, *, now: datetime, withdraw: bool = False) -> LabelFile:
    """The lines of a CSV file, separated by comma, semicolon or tab, in UTF-8 or UTF-16.

    `label` and one of `sop_instance_uid`, `study_instance_uid` and `accession_number` are
    needed; `patient_id`, `source`, `author` and `time` (ISO 8601; without a zone it is this
    machine's time) may be there. Headers may also be spelt as the data element's keyword
    (SOPInstanceUID). An empty label is refused unless `withdraw`.

    Raises `LabelsRefused` with the lines and what is wrong with each.
    """
    if len(data) > MAXIMUM_BYTES:
        raise LabelsRefused(
            f"the file has {len(data)} bytes, at most {MAXIMUM_BYTES} are read; part it"
        )
    rows = _rows(_decoded(data))
    _, header = next(rows, (0, []))
    columns, left_out = _columns(header)
    problems = Problems()
    lines: list[LabelLine] = []
    superseded = 0
    for number, row in rows:
        if len(lines) + superseded >= MAXIMUM_LINES:
            raise LabelsRefused(f"the file has more than {MAXIMUM_LINES} lines; part it")
        if len(row) != len(header):
            problems.add(number, f"{len(row)} columns; the header has {len(header)}")
            continue
        cells = {name: row[index].strip() for name, index in columns.items()}
        if cells.get("superseded_at"):
            superseded += 1
            continue
        try:
            lines.append(_line(number, cells, now=now, withdraw=withdraw))
        except LabelsRefused as error:
            problems.add(number, str(error))
    problems.refuse()
    return LabelFile(lines=tuple(lines), superseded=superseded, columns_left_out=left_out)


def write_labels(stream: TextIO, labels: Iterable[Label], *, history: bool = False) -> int:
    """Write labels as CSV that `read_label_file` takes; how many there were.

    A history also has what was superseded or taken back.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HISTORY_COLUMNS if history else COLUMNS)
    written = 0
    for label in labels:
        row = [label.sop_instance_uid, label.study_instance_uid, label.label]
        row += [label.source, label.author, label.labelled_at.isoformat()]
        if history:
            until = label.superseded_at
            row += [label.recorded_at.isoformat(), until.isoformat() if until else ""]
        writer.writerow(row)
        written += 1
    return written


def _decoded(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise LabelsRefused(
            f"line {line} is not {encoding.removesuffix('-sig').upper()}; save the file as "
            "'CSV UTF-8'"
        ) from error


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not empty, the header first."""
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r"sep=(.)\r?", first)  # as Excel begins a file
    if said:
        delimiter, text = said[1], rest
    else:
        delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num + bool(said), row
    except csv.Error as error:
        raise LabelsRefused(
            f"line {reader.line_num + bool(said)} is no CSV ({error}); check its quotes"
        ) from error


def _columns(header: Sequence[str]) -> tuple[dict[str, int], tuple[int, ...]]:
    """Where our columns are, and the numbers of those that are not ours."""
    found: dict[str, int] = {}
    left_out = []
    for index, cell in enumerate(header):
        spelt = re.sub(r"[\W_]", "", cell).lower()
        name = _SPELLINGS.get(spelt)
        if name is None:
            close = difflib.get_close_matches(spelt, _SPELLINGS, n=1, cutoff=0.8)
            if close:
                raise LabelsRefused(
                    f"the header of column {index + 1} is nearly {_SPELLINGS[close[0]]}; spell "
                    "it so, or name it otherwise if it is something else"
                )
            left_out.append(index + 1)
        elif name in found:
            raise LabelsRefused(f"columns {found[name] + 1} and {index + 1} are both {name}")
        elif name not in _WRITTEN_ONLY:
            found[name] = index
    if "label" not in found or not set(_KEYS) & set(found):
        raise LabelsRefused(
            f"the first line must name the columns: label and one of {', '.join(_KEYS)}; found "
            f"{', '.join(found) or 'none of them'}"
        )
    return found, tuple(left_out)


def _line(number: int, cells: dict[str, str], *, now: datetime, withdraw: bool) -> LabelLine:
    if not any(cells.get(name) for name in _KEYS):
        raise LabelsRefused(f"no key; expected one of {', '.join(_KEYS)}")
    for name in ("sop_instance_uid", "study_instance_uid"):
        uid = cells.get(name, "")
        if uid and (len(uid) > 64 or not _UID.fullmatch(uid)):
            raise LabelsRefused(f"{name} is not a UID (PS3.5 9.1)")
    for name in ("accession_number", "patient_id"):
        if len(cells.get(name, "")) > 64:
            raise LabelsRefused(f"{name} is longer than the 64 characters of PS3.5 6.2")
    if not cells["label"] and not withdraw:
        raise LabelsRefused("the label is empty; with --withdraw that takes a label back")
    source, author = cells.get("source", ""), cells.get("author", "")
    return LabelLine(
        line=number,
        label=class_name(cells["label"]) if cells["label"] else "",
        sop_instance_uid=cells.get("sop_instance_uid", ""),
        study_instance_uid=cells.get("study_instance_uid", ""),
        accession_number=cells.get("accession_number", ""),
        patient_id=cells.get("patient_id", ""),
        source=origin(source, "source") if source else "",
        author=origin(author, "author") if author else "",
        labelled_at=_time(cells.get("time", ""), now=now),
    )


def _time(text: str, *, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise LabelsRefused("time is not ISO 8601, as 2026-03-04T05:06:07+01:00") from error
    if moment > now + _CLOCKS_DIFFER:
        raise LabelsRefused("time is in the future")
    return moment
