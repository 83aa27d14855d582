"""The data card of a generated data set: `README.md` with counts, limits and plots, by which `datasets` also loads the folder."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import yaml

from crimson_core.protocol.evaluation import ERROR_TYPES, GRADES, SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import CONTEXT_FIELDS
from training.corpus import SPLITS, Corpus
from training.journal import write_whole
from training.plots import plot_all
from training.records import REGIMES
from training.writers.forging import FORGERIES

_AT_ONCE = 500  # records whose types are told together
# Keys of the configuration that may hold a secret or a place on somebody's machine.
_PRIVATE = re.compile(r"api_?key|secret|password|(^|_)token$|endpoint|base_url", re.IGNORECASE)
# All that a record can hold: the types of what no record of a small data set holds.
_FINDING = {"id": "R1", "finding": "", "clinical_significance": ""}
_FULL_RECORD = {
    **dict.fromkeys(("id", "split", "study", "candidate_study", "ground_truth", "candidate"), ""),
    "patient_context": dict.fromkeys(CONTEXT_FIELDS, ""),
    "context_included": dict.fromkeys(CONTEXT_FIELDS, True),
    "regime": 0,
    "error_types": [""],
    "changes": [dict.fromkeys(("kind", "attribute", "before", "after"), "")],
    "forgery": "",
    "raw_evaluation": {
        "reference_findings": [_FINDING],
        "predicted_findings": [_FINDING],
        "matched_findings": [{"ref_id": "", "pred_id": ""}],
        "errors": {
            "false_findings": [""],
            "missing_findings": [""],
            "attribute_errors": [{"ref_id": "", "pred_id": "", "severity": "", "error_types": [""], "explanation": ""}],
        },
    },
    "crimson_score": 1.0,
    "label_source": "",
    "writer": "",
    "seed": 0,
}
_LABEL_LIMITS = {
    "construction": "Labels by construction say what the writer meant to change. A candidate is kept only if the offline judge "
    "reads it so; what that judge misreads can be wrong in both. The rest of the label is what it reads in the report: a "
    "finding that its lexicon does not hold is in neither list, and clinical significance is by rule. No radiologist has "
    "checked them.",
    "offline": "Labels of the offline judge are rules: they miss wording outside the lexicon, and know no more of "
    "clinical significance than a table.",
    "model": "Labels of a model judge hold that model's mistakes; no radiologist has checked them.",
}


@dataclass
class _Figures:
    """What the card tells, in counters and plain numbers, so that no text of a record stays in memory."""

    splits: Counter[str] = field(default_factory=Counter)
    regimes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (regime, split), and so on
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    combined: Counter[str] = field(default_factory=Counter)
    forgeries: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    significance: Counter[tuple[str, str]] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    attributes: Counter[tuple[str, str]] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    scores: dict[str, array] = field(default_factory=lambda: {regime: array("d") for regime in REGIMES})
    words: dict[str, array] = field(default_factory=lambda: {k: array("l") for k in ("ground truth", "candidate")})
    findings: dict[str, array] = field(default_factory=lambda: {k: array("l") for k in ("ground truth", "candidate")})
    schema: pa.Schema | None = None

    @property
    def total(self) -> int:
        return sum(self.splits.values())


def write_data_card(
    records: Iterable[Mapping[str, Any]],
    folder: Path,
    *,
    config: Mapping[str, Any],
    corpus: Corpus,
    failures: Mapping[str, int],
    cost: float,
) -> None:
    """Write `README.md` and `plots/` into the folder of a data set, whose `<split>.jsonl` are there.

    Memory is flat but for some numbers per record.

    Args:
        records: All records, as dictionaries with the fields of `training.records.Record`.
        folder: Of the data set.
        config: What it was made with; keys and places on a disk are left out.
        corpus: What it was made of.
        failures: Number of records that could not be made, by reason.
        cost: US dollars that were spent.

    Raises:
        CrimsonError: The folder cannot be written.
    """
    figures = _counted(records)
    plots = plot_all(
        folder / "plots",
        regimes=_by_split(figures.regimes, REGIMES, figures.splits),
        errors=_by_split(figures.errors, _ordered_errors(figures.errors), figures.splits),
        significance=_by_column(
            figures.significance, _with_others(figures.significance, SIGNIFICANCE_LEVELS), ("ground truth", "candidate")
        ),
        scores=[score for scores in figures.scores.values() for score in scores],
        words=figures.words,
        findings=figures.findings,
    )
    body = "\n".join(_body(figures, config, corpus, failures, cost, plots)) + "\n"
    write_whole(folder / "README.md", [_front_matter(figures), re.sub(r"\n{3,}", "\n\n", body)])


def _counted(records: Iterable[Mapping[str, Any]]) -> _Figures:
    figures = _Figures()
    schemas = [pa.Table.from_pylist([_FULL_RECORD]).schema]
    records = iter(records)
    while some := list(islice(records, _AT_ONCE)):
        for record in some:
            _count(figures, record)
        schemas = [pa.unify_schemas([*schemas, pa.Table.from_pylist(some).schema], promote_options="permissive")]
    figures.schema = schemas[0]
    return figures


def _count(figures: _Figures, record: Mapping[str, Any]) -> None:
    split, regime, label = record["split"], REGIMES[record["regime"]], record["raw_evaluation"]
    figures.splits[split] += 1
    figures.regimes[regime, split] += 1
    figures.sources[record["label_source"], split] += 1
    figures.errors.update((_error_name(change), split) for change in record["changes"])
    if record["forgery"]:
        figures.forgeries[record["forgery"], split] += 1
    if len(record["error_types"]) > 1:
        figures.combined[split] += 1
    for text, key, findings in (
        ("ground truth", "ground_truth", label["reference_findings"]),
        ("candidate", "candidate", label["predicted_findings"]),
    ):
        figures.words[text].append(len(record[key].split()))
        figures.findings[text].append(len(findings))
        figures.significance.update((finding["clinical_significance"], text) for finding in findings)
    errors = label["errors"]
    figures.judged.update({kind: len(ids) for kind, ids in errors.items()})
    for error in errors["attribute_errors"]:
        figures.attributes.update((kind, error["severity"]) for kind in error["error_types"])
    figures.drawn.update(name for name in CONTEXT_FIELDS if record["context_included"][name])
    figures.held.update(name for name in CONTEXT_FIELDS if record["patient_context"][name] is not None)
    figures.scores[regime].append(record["crimson_score"])


def _error_name(change: Mapping[str, Any]) -> str:
    return change["kind"].replace("_", " ") + (f": {change['attribute']}" if change["attribute"] else "")


def _ordered_errors(errors: Counter[tuple[str, str]]) -> list[str]:
    kinds = ("false finding", "omission")
    return sorted({name for name, _ in errors}, key=lambda name: (name not in kinds, name))


def _by_split(
    counts: Counter[tuple[str, str]], names: Sequence[str], splits: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    return _by_column(counts, names, [split for split in SPLITS if splits[split]])


def _by_column(
    counts: Counter[tuple[str, str]], names: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, int]]:
    return {name: {column: counts[name, column] for column in columns} for name in names}


def _with_others(counts: Counter[tuple[str, str]], names: Sequence[str]) -> list[str]:
    """The names that there should be, and those that a judge wrote besides."""
    return [*names, *sorted({name for name, _ in counts} - set(names))]


# the text


def _front_matter(figures: _Figures) -> str:
    from datasets import Features

    splits = [split for split in SPLITS if figures.splits[split]]
    features = Features.from_arrow_schema(figures.schema)
    data = {
        "pretty_name": "CRIMSON training records",
        "language": ["en"],
        "license": "other",
        "task_categories": ["text-generation"],
        "tags": ["radiology", "chest-x-ray", "report-evaluation", "crimson"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}.jsonl"} for split in splits],
            }
        ],
        # Else the types would be told by the first records, which may lack what later ones hold.
        "dataset_info": {"config_name": "default", "features": features._to_yaml_list()},
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n"


def _body(
    figures: _Figures,
    config: Mapping[str, Any],
    corpus: Corpus,
    failures: Mapping[str, int],
    cost: float,
    plots: Mapping[str, str],
) -> Iterator[str]:
    splits = [split for split in SPLITS if figures.splits[split]]
    yield "# CRIMSON training records"
    yield (
        f"\n{figures.total:,} pairs of a ground-truth and a candidate chest X-ray report, each with a CRIMSON evaluation as "
        f"its label, made from the corpus {corpus.name}.\n"
        "\n**For research only.** The records hold report text: the terms of the corpus hold for them too, and whoever "
        "shares them must be allowed to share the reports. They are no basis for decisions about patients.\n"
        "\n## Counts"
    )
    yield _table(["", *splits, "all"], [_row("records", figures.splits, splits)])
    yield "\nRegime: how the candidate came about, drawn with equal probability.\n"
    rows = [
        [f"{number} {name}", *_cells(figures.regimes, name, splits), _quartiles(figures.scores[name])]
        for number, name in enumerate(REGIMES)
    ]
    yield _table(["regime", *splits, "all", "score: quartiles"], rows)
    yield _plot(plots, "regimes")
    if figures.errors:
        yield (
            "\nErrors that candidates were written with (regimes 3 to 5; at most two in a candidate, "
            f"{figures.combined.total():,} candidates hold two).\n"
        )
        yield _table(["error", *splits, "all"], _rows(figures.errors, _ordered_errors(figures.errors), splits))
        yield _plot(plots, "errors")
    if figures.forgeries:
        yield "\nWhat candidates hold beside their report to win a judge over; the label is that of the report.\n"
        yield _table(["forgery", *splits, "all"], _rows(figures.forgeries, FORGERIES, splits))
    yield "\n## Labels"
    yield _table(
        ["label source", *splits, "all"],
        _rows(figures.sources, sorted({name for name, _ in figures.sources}), splits, code=True),
    )
    yield "\n" + " ".join(_LABEL_LIMITS[kind] for kind in _label_kinds(figures))
    yield "\nClinical significance of the findings.\n"
    texts = ("ground truth", "candidate")
    levels = _with_others(figures.significance, SIGNIFICANCE_LEVELS)
    yield _table(["significance", *texts, "all"], _rows(figures.significance, levels, texts))
    yield _plot(plots, "significance")
    judged = ", ".join(
        f"{figures.judged[kind]:,} {kind.replace('_', ' ')}" for kind in ("false_findings", "missing_findings")
    )
    yield f"\nThe labels hold {judged} and {figures.judged['attribute_errors']:,} attribute errors, of these types and grades.\n"
    yield _table(
        ["attribute error", *GRADES, "all"],
        _rows(figures.attributes, _with_others(figures.attributes, ERROR_TYPES), GRADES),
    )
    yield _plot(plots, "scores")
    yield "\n## Patient context\n"
    yield (
        "*Drawn*: the field was to be included. *Held*: it was, and the corpus knows it. *Known*: studies of the corpus "
        "that have it.\n"
    )
    yield _table(
        ["field", "drawn", "held", "known"],
        [
            [
                name,
                _share(figures.drawn[name], figures.total),
                _share(figures.held[name], figures.total),
                _share(sum(bool(s.context and getattr(s.context, name)) for s in corpus.studies), len(corpus.studies)),
            ]
            for name in CONTEXT_FIELDS
        ],
    )
    yield "\n## Lengths\n"
    measures = [("words", figures.words), ("findings", figures.findings)]
    yield _table(
        ["", "mean", "median", "most"],
        [
            [f"{what}, {text}", f"{fmean(values):.1f}", f"{median(values):g}", f"{max(values):,}"]
            for what, measured in measures
            for text, values in measured.items()
            if values
        ],
    )
    yield _plot(plots, "lengths") + "\n" + _plot(plots, "findings")
    yield "\n## Corpus, failures and cost\n"
    studies = Counter(study.split for study in corpus.studies)
    yield _table(["", *SPLITS, "all"], [_row("studies", studies, SPLITS)])
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in corpus.left_out.items())
    ages = f" Ages that cannot be read and count as unknown: {corpus.unread_ages:,}." if corpus.unread_ages else ""
    yield f"\nStudies left out: {left_out or 'none'}.{ages} Records of a split are made of its own studies only.\n"
    if failures:
        rows = [[reason.replace("|", "\\|"), f"{count:,}"] for reason, count in Counter(failures).most_common()]
        yield _table(["records that could not be made", "number"], rows)
    else:
        yield "Every record could be made."
    yield f"\nSpent on APIs: {cost:,.2f} US dollars."
    yield "\n## Configuration\n"
    yield f"```yaml\n{yaml.safe_dump(_public(config), sort_keys=False, allow_unicode=True)}```"
    yield "\n## Loading\n"
    yield '```python\nfrom datasets import load_dataset\n\nrecords = load_dataset("<this folder or its Hub id>")\n```'


def _label_kinds(figures: _Figures) -> list[str]:
    def kind(source: str) -> str:
        if source.startswith("construction"):
            return "construction"
        return "offline" if "judge:offline" in source else "model"

    present = {kind(source) for source, _ in figures.sources}
    return [name for name in _LABEL_LIMITS if name in present]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, rule, *rows))


def _rows(
    counts: Counter[tuple[str, str]], names: Iterable[str], columns: Sequence[str], code: bool = False
) -> list[list[str]]:
    # A signature has bars, which would end a cell.
    return [
        [f"`{name}`".replace("|", "\\|") if code else name.replace("_", " "), *_cells(counts, name, columns)]
        for name in names
    ]


def _cells(counts: Counter[tuple[str, str]], name: str, columns: Sequence[str]) -> list[str]:
    numbers = [counts[name, column] for column in columns]
    return [f"{number:,}" for number in (*numbers, sum(numbers))]


def _row(name: str, counts: Mapping[str, int], columns: Sequence[str]) -> list[str]:
    numbers = [counts[column] for column in columns]
    return [name, *(f"{number:,}" for number in (*numbers, sum(numbers)))]


def _quartiles(scores: Sequence[float]) -> str:
    ranked = sorted(scores)
    if not ranked:
        return "–"
    return " / ".join(f"{ranked[round(share * (len(ranked) - 1))]:.2f}" for share in (0.25, 0.5, 0.75))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _plot(plots: Mapping[str, str], name: str) -> str:
    return f"\n![{plots[name]}](plots/{name}.png)" if name in plots else ""


def _public(value: Any) -> Any:
    """A configuration without secrets, and without where files are on a disk."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items() if not _PRIVATE.search(str(key))}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return Path(value).name
    return value
