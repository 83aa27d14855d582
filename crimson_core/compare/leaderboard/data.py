"""The report pairs of a test set, in the same order for all systems."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crimson_core.compare import summary
from crimson_core.compare.leaderboard.config import Columns, Config, Source, System, TestSet
from crimson_core.compare.section import Systems
from crimson_core.errors import InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair, is_missing
from crimson_core.run.pairs import align_systems, pairs_from_rows, without_blank_rows
from crimson_core.run.tables import READABLE, Rows, column_names, describe_columns, open_table, with_names

# Subgroups that are made from the patient context; all others are columns.
_FROM_CONTEXT = {"age_band": ("age", summary.age_band), "sex": ("sex", summary.sex)}
_SPREADSHEETS = (".xlsx", ".xls", ".ods")
_LONGEST_WAIT = 10  # seconds, for the Hub's first answer
# The advice in errors about a missing column.
IN_CONFIG = "Name the right one in the config: the columns of a test set under columns, of a system under column."


def read_systems(config: Config, test_set: str, folder: Path, how: str = IN_CONFIG) -> Systems:
    """The report pairs of all systems on a test set; `how` is the advice in errors about a missing column.

    Raises:
        InputError: A table or a column is missing, a cell is not a report, or the systems have different pairs.
    """
    asked = config.test_sets[test_set]
    shared = [system.column for system in config.systems.values() if test_set not in system.data]
    rows, source = read_source(asked.data, folder, [*_wanted(asked), *shared]), f"{test_set} ({_short(asked.data)})"
    columns = _columns(asked.columns, rows)
    # The reference stands in for the candidate, so that errors in the test set itself are reported first.
    rows = without_blank_rows(rows) if config.fill_missing else rows
    fill: dict[str, Any] = {"fill_missing": config.fill_missing}
    own = pairs_from_rows(rows, columns | {"prediction": columns["reference"]}, source, how, **fill)
    pairs = {}
    for name, system in config.systems.items():
        if test_set in system.data:
            pairs[name] = _own_pairs(name, system, test_set, asked.columns, own, folder, how, config.fill_missing)
        else:
            pairs[name] = pairs_from_rows(rows, columns | {"prediction": system.column}, source, how, **fill)
    # The test set comes first: it sets the order, and errors say which of its pairs a system lacks.
    aligned = align_systems(
        {f"test set {test_set}": own, **{f"system {name}": theirs for name, theirs in pairs.items()}},
        by_id="id" in columns,
    )
    return Systems(
        {name: aligned[f"system {name}"] for name in pairs},
        _labels(rows, patient, source, "patients", missing=None) if (patient := asked.columns.patient) else None,
        {name: _subgroup(name, rows, own, source) for name in asked.subgroups},
        "id" if "id" in columns else "order",
    )


def read_source(source: Source, folder: Path, wanted: Sequence[str]) -> Rows:
    """The rows of a table, with the columns that are wanted.

    The formats of `crimson score` are read as it reads them. `datasets` reads everything else: other files, folders of files,
    the folders of `save_to_disk`, and data sets of the Hub. Local files leave nothing in its cache.

    Raises:
        InputError: The table does not exist, it has several splits and none is named, or it has no such split, name or revision.
    """
    path = folder / source.path
    ours = path.is_file() and path.suffix.lower() in READABLE
    one = (path / "dataset_info.json").is_file()  # of `save_to_disk`: one split
    saved = one or (path / "dataset_dict.json").is_file()
    for option, idle in {"revision": path.exists(), "name": path.is_file() or saved, "split": ours or one}.items():
        if idle and (value := getattr(source, option)):
            raise InputError(
                f"{source.path!r} is a file or folder of this disk, and so has no {option} {value!r}. Leave it out, or give a Hub id."
            )
    if path.is_file() and path.suffix.lower() in _SPREADSHEETS:
        raise InputError(f"{source.path!r} is a spreadsheet. Save it as CSV.")
    if ours:
        return with_names(replace(open_table(path), source=path.name), filter(None, wanted)).rows
    if not path.exists() and (
        Path(source.path).suffix.lower() in READABLE or source.path.count("/") > 1 or source.path.startswith(".")
    ):
        raise InputError(f"{path} is no file or folder, and {source.path!r} no Hub id. Check the path.")
    import datasets

    reached = True
    with TemporaryDirectory() as cache:
        try:
            if saved:
                found = datasets.load_from_disk(path)
            elif path.is_file():
                found = datasets.load_dataset(str(path.parent), data_files=path.name, cache_dir=cache)
            elif path.exists():
                found = datasets.load_dataset(str(path), source.name, cache_dir=cache)
            else:
                with _hub_asked_once() as reached:
                    found = datasets.load_dataset(source.path, source.name, revision=source.revision)
        except Exception as error:  # of many kinds; their text may hold cells
            why = type(error).__name__ if reached else "the Hub cannot be reached, and its cache lacks it"
            raise InputError(
                f"{source.path!r} cannot be read ({why}). Give a file, a folder or the Hub id of a data set."
            ) from None
        if isinstance(found, datasets.DatasetDict):
            split = source.split or (next(iter(found)) if len(found) == 1 else None)
            if split not in found:
                problem = "needs a split" if split is None else f"has no split {split!r}"
                raise InputError(f"{source.path!r} {problem}. It has: {', '.join(found)}.")
            found = found[split]
        rows = found.select_columns([name for name in found.column_names if name in wanted]).to_list()
    if not rows:
        raise InputError(f"{source.path!r} has no rows: there is nothing to score.")
    return rows


@contextmanager
def _hub_asked_once() -> Iterator[bool]:
    """Whether the Hub can be reached; if not, its client uses its cache alone meanwhile.

    Otherwise the client would repeat each of its many requests for half a minute, and report every repetition.
    """
    from huggingface_hub import constants, get_session

    offline = constants.HF_HUB_OFFLINE
    reached = not offline
    if reached:
        try:
            get_session().head(constants.ENDPOINT, timeout=_LONGEST_WAIT)
        except Exception:  # of httpx, httpx2 or requests, depending on the client's version
            reached = False
    constants.HF_HUB_OFFLINE = not reached
    try:
        yield reached
    finally:
        constants.HF_HUB_OFFLINE = offline


def _wanted(asked: TestSet) -> list[str]:
    named = asked.columns.model_dump()
    return [column or role for role, column in named.items()] + asked.subgroups


def _columns(asked: Columns, rows: Rows) -> dict[str, str]:
    """Columns by role, for roles whose column is named or exists."""
    have = column_names(rows)
    optional = asked.model_dump(exclude={"reference", "patient"})
    return {"reference": asked.reference} | {
        role: column or role for role, column in optional.items() if column or role in have
    }


def _own_pairs(
    name: str,
    system: System,
    test_set: str,
    asked: Columns,
    own: Sequence[ReportPair],
    folder: Path,
    how: str,
    fill_missing: bool,
) -> list[ReportPair]:
    """The pairs of a system with its own table for a test set."""
    table = system.data[test_set]
    rows = read_source(table, folder, [asked.reference, asked.id or "id", system.column, *CONTEXT_FIELDS, *asked.model_dump().values()])  # fmt: skip
    rows = without_blank_rows(rows) if fill_missing else rows
    source, columns = f"{name} ({_short(table)})", _columns(asked, rows)
    if asked.reference in column_names(rows):
        return pairs_from_rows(rows, columns | {"prediction": system.column}, source, how, fill_missing=fill_missing)
    if "id" not in columns:
        raise InputError(
            f"{source} has neither a column {asked.reference!r} of references nor a column 'id' to find them by. Give one."
        )
    # Ids that are not the test set's are refused where the systems are aligned.
    by_id = {pair.id: pair for pair in own}
    read = pairs_from_rows(
        rows,
        {"prediction": system.column, "reference": system.column, "id": columns["id"]},
        source,
        how,
        fill_missing=fill_missing,
    )
    return [
        replace(pair, reference=by_id[pair.id].reference, context=by_id[pair.id].context) if pair.id in by_id else pair
        for pair in read
    ]


def _subgroup(name: str, rows: Rows, pairs: Sequence[ReportPair], source: str) -> list[str]:
    if name in _FROM_CONTEXT:
        role, label = _FROM_CONTEXT[name]
        if not any(pair.context and getattr(pair.context, role) for pair in pairs):
            raise InputError(f"{source}: there is no {role}, so that no subgroup can be made by {name}.")
        return [label(pair) for pair in pairs]
    return _labels(rows, name, source, "subgroups", missing=summary.UNKNOWN)


def _labels(rows: Rows, column: str, source: str, what: str, missing: str | None) -> list[str]:
    have = column_names(rows)
    if column not in have:
        raise InputError(f"{source} has no column {column!r} for the {what}. {describe_columns(have)}")
    labels = []
    for number, row in enumerate(rows, 1):
        cell = row.get(column)
        label = missing if is_missing(cell) or not str(cell).strip() else str(cell).strip()
        if label is None:
            raise InputError(f"{source} row {number}, column {column!r}, is empty. Every row needs one of the {what}.")
        labels.append(label)
    return labels


def _short(source: Source) -> str:
    return Path(source.path).name if "/" in source.path else source.path
