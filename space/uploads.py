"""Reads visitors' uploads within the owner's limits, and deletes them at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from crimson_core.errors import InputError
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.pairs import pairs_from_rows
from crimson_core.run.parquet import Limits
from crimson_core.run.tables import READABLE, Rows, column_names, open_table
from space.settings import Settings

_EXAMPLES_FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = _EXAMPLES_FOLDER / "reports.csv"
SYSTEMS_EXAMPLE = _EXAMPLES_FOLDER / "systems.csv"

# Names in lower case without separators; a proposal, which the page shows for confirmation.
_USUAL_NAMES = {
    "reference": ("reference", "ref", "groundtruth", "gt", "target", "referencereport", "radiologist", "gold"),
    "prediction": ("prediction", "pred", "candidate", "generated", "hypothesis", "output", "candidatereport", "model"),
    "id": ("id", "studyid", "caseid", "accession", "uid", "study"),
    "age": ("age", "patientage"),
    "sex": ("sex", "gender", "patientsex"),
    "indication": ("indication", "history", "clinicalindication", "clinicalhistory"),
}


@dataclass(frozen=True)
class UploadedTable:
    """Rows of a file; `repr` shows no report text."""

    name: str
    rows: Rows = field(repr=False)

    @property
    def columns(self) -> list[str]:
        """Its column names, in order."""
        return column_names(self.rows)


def read_table(path: Path, name: str, settings: Settings) -> UploadedTable:
    """The table in a file, which is to be called `name`, within the owner's limits.

    Raises:
        InputError: The file cannot be read or is beyond a limit.
    """
    if path.suffix.lower() not in READABLE:
        raise InputError(f"{name} has an unknown ending. Give a file that ends in {', '.join(READABLE)}.")
    if path.stat().st_size > settings.max_bytes:
        raise InputError(f"{name} is larger than {settings.max_megabytes} MB. Upload a part of it.")
    try:
        limits = Limits(settings.max_rows, settings.max_bytes)
        rows = open_table(path, tell=lambda text: gr.Warning(text.replace(str(path), name)), limits=limits).rows
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None
    if len(rows) > settings.max_rows:
        raise InputError(f"{name} has {len(rows):,} rows; at most {settings.max_rows:,} are accepted.")
    return UploadedTable(name, rows)


def take_uploads(paths: Sequence[str], settings: Settings) -> list[UploadedTable]:
    """Read and delete uploaded files; the limits apply to all of them together.

    Raises:
        InputError: As `read_table`.
    """
    size = sum(Path(path).stat().st_size for path in paths if Path(path).exists())
    tables, refusal = [], None
    if len(paths) > 1 and size > settings.max_bytes:
        refusal = InputError(f"The files are larger than {settings.max_megabytes} MB together. Upload a part of them.")
    for path in paths:  # all are deleted, whatever the first one holds
        try:
            tables.append(_take_upload(path, settings))
        except InputError as error:
            refusal = refusal or error
    if refusal:
        raise refusal
    return tables


def guess_columns(columns: Sequence[str]) -> dict[str, str | None]:
    """For each role, the column with a usual name, else None."""
    plain = {"".join(c for c in str(column).lower() if c.isalnum()): column for column in reversed(columns)}
    return {role: next((plain[n] for n in names if n in plain), None) for role, names in _USUAL_NAMES.items()}


def checked_pairs(table: UploadedTable, columns: Mapping[str, Any], settings: Settings) -> list[ReportPair]:
    """The report pairs of a table; `columns` maps roles to columns, or to None.

    Raises:
        InputError: A column is not chosen or missing, or a cell is no report or context, or too long.
    """
    for role in ("reference", "prediction"):
        if not columns.get(role):
            raise InputError(f"Choose the column of the {'reference' if role == 'reference' else 'candidate'} reports.")
    if columns["reference"] == columns["prediction"]:
        raise InputError("Reference and candidate reports are the same column. Choose two.")
    chosen = {role: column for role, column in columns.items() if column}
    pairs = pairs_from_rows(table.rows, chosen, table.name, how="", tell=gr.Warning)
    check_lengths(pairs, settings, lambda row: f"{table.name} row {row + 1}")
    return pairs


def check_lengths(pairs: Iterable[ReportPair], settings: Settings, where: Callable[[int], str]) -> None:
    """Refuse reports that are too long.

    Raises:
        InputError: Names the place.
    """
    for row, pair in enumerate(pairs):
        texts = [pair.reference, pair.candidate, *(pair.context.as_dict().values() if pair.context else ())]
        longest = max(map(len, texts))
        if longest > settings.max_characters:
            raise InputError(
                f"{where(row)} holds a text of {longest:,} characters; at most {settings.max_characters:,} are accepted."
            )


def _take_upload(path: str, settings: Settings) -> UploadedTable:
    """Read an uploaded file and delete it, whether it can be read or not.

    Raises:
        InputError: As `read_table`.
    """
    file = Path(path)
    try:
        return read_table(file, file.name, settings)
    except FileNotFoundError:  # Gradio stores equal uploads once, and another session's was read first
        raise InputError(f"{file.name} is gone from the server. Upload it again.") from None
    finally:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or gone
            file.parent.rmdir()
